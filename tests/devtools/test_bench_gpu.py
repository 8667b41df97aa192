"""The benchmark of the CUDA device, on a CPU that stands in for it: all of it but the card."""

import pytest
import torch
from torch import nn

from devtools.bench import gpu, gpu_targets, smoothgrad, stopwatch
from devtools.bench.networks import Network
from devtools.bench.stopwatch import Stopwatch
from heatserve.engine import Explainer
from heatserve_tools.errors import ToolError
from tests.engine.networks import captum_gradient, distance, pictures, small


def small_bench(**changes):
    options = {"batches": (1, 2), "samples": 4, "precisions": ("float32", "bfloat16"), "side": 32, **changes}
    return gpu.Bench(stopwatch.host(), {"small": Network(small, "trunk")}, pictures, **options)


@pytest.fixture(scope="module")
def measured():
    shares = []
    found = gpu.measure(0, 2, shares.append, small_bench())
    return {result.what: result for result in found}, shares


def test_without_a_card_it_refuses_with_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ToolError, match="no CUDA device") as refused:
        gpu.measure(1, 1, lambda share: None)
    assert str(refused.value).count(".") == 1 and "\n" not in str(refused.value)


def test_everything_has_milliseconds_and_a_share_of_the_limit(measured):
    found, shares = measured
    assert shares == sorted(shares) and shares[-1] == 1
    for what in ("forward", "Grad-CAM", "CAM", "Grad-CAM of the top 5", "gradient", "Captum Saliency"):
        for batch in (1, 2):
            line = found[f"{what}: small, batch {batch}"]
            assert line.unit == "ms" and line.low <= line.value <= line.high
            assert line.detail["peak_mb"] > 0
            share = found.get(f"{what}: small, batch {batch}, share of the device's limit")
            assert what == "Captum Saliency" or (share.value > 0 and share.detail["gflop"] > 0)
            assert what == "forward" or found[f"{what}: small, batch {batch}, against a plain forward pass"].unit == "×"
    assert "Captum LayerGradCam: small, batch 1" in found and "Captum LayerGradCam: small, batch 2" not in found


def test_every_precision_is_measured_against_captum_with_its_error(measured):
    found, _ = measured
    lines = [line for what, line in found.items() if ", against Captum NoiseTunnel" in what]
    assert len(lines) == 2
    exact, coarse = (line.detail for line in lines)
    assert exact["bias"] == exact["difference"] == 0 and exact["rank_correlation"] == pytest.approx(1)
    assert 0 < coarse["difference"] < 0.2 and 0.9 < coarse["rank_correlation"] <= 1
    assert coarse["bias"] < coarse["difference"]
    assert exact["spread"] > 0
    assert exact["chunk"] == 4 and exact["captum_chunk"] in (1, 2)


def test_a_smoothings_memory_does_not_grow_with_its_samples(measured):
    found, _ = measured
    (line,) = [line for what, line in found.items() if "peak memory on the device" in what]
    assert line.value == pytest.approx(1, abs=0.02)


def test_the_limit_says_what_the_device_is(measured):
    found, _ = measured
    limits = [line for what, line in found.items() if what.startswith("the device's limit")]
    assert [line.unit for line in limits] == ["TFLOP/s"] * 2
    assert limits[0].value > 0 and limits[0].detail == {"device": "cpu"}


def test_the_limit_is_the_best_of_the_products():
    seconds = iter([0.5, 0.25, *[1.0] * 8])
    watch = Stopwatch(torch.device("cpu"), lambda action: lambda: next(seconds), lambda action: 0)
    assert gpu.limit(watch, "float32", 10) == 2 * 10**3 / 0.25


def test_operations_are_counted_as_the_shapes_say():
    layer, x = nn.Conv2d(3, 8, 3, padding=1), torch.rand(2, 3, 10, 10)
    assert gpu.operations(lambda: layer(x)) == 2 * (2 * 8 * 10 * 10) * (3 * 3 * 3)


def test_the_rounds_share_out_the_time_that_there_is(monkeypatch):
    given = []
    for part in ("_passes", "_smoothgrad"):
        monkeypatch.setattr(gpu, part, lambda *arguments: given.append(arguments[-3]) or [])
    gpu.measure(10_000, 1, lambda share: None, small_bench())
    assert sum(given) == pytest.approx(gpu.LONGEST)


def test_tf32_is_off_while_it_measures_and_then_as_before(monkeypatch):
    seen = []

    def switches():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    def look(*_):
        seen.append(switches())
        return []

    before = switches()
    monkeypatch.setattr(gpu, "_passes", look)
    monkeypatch.setattr(gpu, "_smoothgrad", look)
    gpu.measure(0, 1, lambda share: None, small_bench())
    assert set(seen) == {(False, False)}
    assert switches() == before


def test_captums_chunk_is_the_fastest_that_fits():
    cost = {1: 3.0, 2: 2.0, 5: 1.0, 10: 1.5}

    def of(size):
        if size == 10:
            raise torch.cuda.OutOfMemoryError("no room")
        return cost[size]

    watch = Stopwatch(torch.device("cpu"), lambda size: lambda: of(size), lambda action: 0)
    assert smoothgrad.best_chunk(lambda size: size, 10, watch) == 5


class Events:
    """The part of `torch.cuda` that the stopwatch uses: a queue of work, and a clock that moves on a wait."""

    def __init__(self):
        self.calls = []

    def event(self, enable_timing):
        assert enable_timing
        log = self.calls

        class Event:
            def record(self):
                log.append("record")

            def synchronize(self):
                log.append("wait for the event")

            def elapsed_time(self, other):
                log.append("read")
                return 250.0

        return Event()


def test_the_clock_starts_on_an_idle_device_and_is_read_when_the_work_is_done(monkeypatch):
    fake = Events()
    monkeypatch.setattr(torch.cuda, "Event", fake.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: fake.calls.append("wait for all"))
    measure = stopwatch._timed_by_events(lambda: fake.calls.append("work"))
    assert measure() == 0.25
    assert fake.calls == ["wait for all", "record", "work", "record", "wait for the event", "read"]


def test_peak_memory_is_what_the_action_adds(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("wait"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 100)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 175)
    assert stopwatch._peak_of_allocator(lambda: calls.append("work")) == 75
    assert calls == ["wait", "reset", "work", "wait"]


@pytest.mark.parametrize("batch", gpu_targets.BATCHES)
def test_each_figure_of_the_h100_has_its_measured_share(batch):
    found = gpu_targets.measure(stopwatch.host(), small(), pictures(batch, (24, 36)), 0, 2, samples=3)
    lines = {result.what: result for result in found}
    for label in ("Grad-CAM, tf32", "SmoothGrad 3, bfloat16, eager", "SmoothGrad 3, bfloat16, captured"):
        taken = lines[f"{label}: resnet50, batch {batch}"]
        share = lines[f"{label}: resnet50, batch {batch}, share of an H100's figure"]
        assert taken.unit == "ms" and share.unit == "%"
        assert share.value == pytest.approx(100 * share.detail["figure_ms"] / taken.value, rel=1e-2)
    assert lines[f"passes captured, batch {batch}"].value == 0


def test_the_smoothing_that_is_timed_is_that_of_all_pictures():
    images = pictures(3, (24, 36))
    one = Explainer(small(), images[:1], chunk=4)
    found = gpu_targets.smoothgrad(one, images, 5)()
    for image, values in zip(images, found):
        copies = smoothgrad.Noise(image, 0.15, 0).draw(0, 5)
        assert distance(values, captum_gradient(small(), copies, 0).mean(0)) < 1e-5
