"""TorchServe's log: a line about a model is not taken for one about a model whose name begins or ends alike."""

import pytest

from heatserve_tools.torchserve import server_log


def added(model, version="1.0"):
    where = "2001-02-03T04:05:57,000 [DEBUG] main org.pytorch.serve.wlm.ModelVersionedRefs"
    return f"{where} - Adding new version {version} for model {model}\n"


def story(worker):
    """The lines of a worker that loads, works on a batch, and ends with an error."""
    thread = f"[DEBUG] {worker} org.pytorch.serve.wlm"
    said = f"[INFO ] {worker}-stdout MODEL_LOG"
    change = f"{thread}.WorkerThread - {worker} State change WORKER_STARTED -> WORKER_MODEL_LOADED"
    return "".join(
        f"2001-02-03T04:05:5{second},000 {line}\n"
        for second, line in enumerate(
            [
                f"{thread}.WorkerLifeCycle - Worker cmdline: [python]",
                change,
                f"{said} - Backend received inference at: 981173161",
                f"{said} - ValueError: of {worker}",
                f"{thread}.WorkerThread - Backend worker monitoring thread interrupted or backend worker process died.",
                f"{thread}.WorkerThread - Backend worker process died.",
            ]
        )
    )


def told(log, model):
    """Everything that is read from the log of a model."""
    return (
        server_log.loads(log, model),
        server_log.batches(log, model),
        server_log.seconds_to_ready(log, model),
        server_log.load_failed(log, model),
        f": ValueError: of W-9000-{model}_" in server_log.explain("Failed", log, model=model).splitlines()[0],
    )


ALL, NOTHING = (1, 1, [1.0], True, True), (0, 0, [], False, False)


@pytest.mark.parametrize("version", ["1.0", "2", "1.0_beta", "v2_1.0-rc", "1-stdout"])
def test_a_models_worker_is_known_by_the_version_that_the_frontend_gave_it(version):
    assert told(added("net", version) + story(f"W-9000-net_{version}"), "net") == ALL


def test_without_a_word_of_the_version_it_is_one_without_an_underscore():
    assert told(story("W-9000-net_1.0"), "net") == ALL
    assert told(story("W-9000-net_v2_1.0"), "net_v2") == ALL


@pytest.mark.parametrize("other", ["net_broken", "net_1.0", "net_1.0_1.0", "a-net", "W-1-net", "nets", "ne"])
@pytest.mark.parametrize("known", [True, False])
def test_a_model_is_not_taken_for_another_whose_name_begins_or_ends_with_its_own(other, known):
    log = (added("net") + added(other) if known else "") + story(f"W-9000-{other}_1.0")
    assert told(log, "net") == NOTHING
    assert told(log, other) == ALL


def test_the_versions_of_one_model_are_all_its_own():
    log = added("net", "1_a") + added("net", "2_b") + story("W-9000-net_1_a") + story("W-9001-net_2_b")
    assert server_log.loads(log, "net") == server_log.batches(log, "net") == 2
