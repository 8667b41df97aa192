"""The registry takes methods from elsewhere, and they share all that the methods brought along have.

A path (integrated gradients) and a perturbation (RISE) are one file and one row each, in `tests/engine/added/`.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from heatserve.engine import (
    FORWARD,
    METHODS,
    WITH_BACKWARD,
    Explainer,
    ExtensionError,
    Query,
    Smoothing,
    load_installed,
    load_modules,
    register,
    registry,
)
from tests.engine.added import rise, straight_path
from tests.engine.networks import NAMES, difference_of_scores, distance, explainer, oracle, pictures, small

IMAGE = pictures(1, (24, 36), seed=8)
ONCE = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Both methods are in the registry during a test, and nothing that a test adds stays there."""
    before = dict(METHODS)
    register(straight_path.METHOD)
    register(rise.METHOD)
    yield
    registry._methods.clear()
    registry._methods.update(before)


# A path


@pytest.mark.parametrize("name", NAMES)
def test_integrated_gradients_are_captums(name: str) -> None:
    image = pictures(1).double()
    for target, contrast in ((1, None), (6, 2)):
        score = difference_of_scores(oracle(name, torch.float64), target, contrast)
        theirs = IntegratedGradients(score).attribute(image, target=0, n_steps=12, method="gausslegendre")[0]
        query = Query("straight_path", target=target, contrast=contrast, samples=12)
        (ours,) = explainer(name, torch.float64).explain(image, query)
        assert distance(ours.values.double(), theirs.detach()) < 1e-6
        assert ours.map.shape == image.shape[2:]


def test_integrated_gradients_sum_to_the_difference_of_the_scores() -> None:
    """The axiom of completeness, for a smooth network."""
    net = small(activation=nn.Tanh).double()
    with torch.no_grad():
        expected = float((net(IMAGE.double()) - net(torch.zeros_like(IMAGE).double()))[0, 2])
    one = Explainer(small(activation=nn.Tanh).double(), IMAGE.double())
    (found,) = one.explain(IMAGE.double(), Query("straight_path", target=2, samples=60))
    assert float(found.values.double().sum()) == pytest.approx(expected, rel=1e-5)


@ONCE
def test_one_point_of_a_path_is_a_point_and_not_the_image() -> None:
    with torch.enable_grad():
        middle = (IMAGE / 2).requires_grad_()
        (gradient,) = torch.autograd.grad(small()(middle)[0, 2], middle)
    (found,) = Explainer(small(), IMAGE).explain(IMAGE, Query("straight_path", target=2, samples=1))
    assert distance(found.values, (gradient * IMAGE)[0]) < 1e-5


@ONCE
def test_a_path_has_no_standard_error_and_cannot_be_asked_to_end_at_one() -> None:
    (found,) = Explainer(small(), IMAGE).explain(IMAGE, Query("straight_path", target=2))
    assert (found.samples_used, found.standard_error, found.relative_error, found.reached) == (20, None, None, False)
    with pytest.raises(ValueError, match="standard_error belongs to random samples, which straight_path does"):
        Query("straight_path", standard_error=0.1)


# A perturbation


def masks(samples: int, seed: int) -> Tensor:
    return rise.Masks(torch.ones_like(IMAGE[0]), seed).draw(0, samples)[:, 0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rise_is_the_sum_of_masks_weighted_by_the_probabilities_of_the_masked_images(precision: str) -> None:
    covers = masks(30, seed=3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
        weights = small()(IMAGE * covers[:, None]).float().softmax(1)[:, 4]
    theirs = torch.einsum("n,nhw->hw", weights.double(), covers.double()) / (30 * rise.VISIBLE)
    one = Explainer(small(), IMAGE, chunk=7, precision=precision)
    (ours,) = one.explain(IMAGE, Query("visible", target=4, samples=30, seed=3))
    assert ours.values.dtype is torch.float32
    assert distance(ours.values.double(), theirs) < (1e-5 if precision == "float32" else 1e-2)


@ONCE
def test_rise_of_a_network_that_sees_nothing_is_flat_within_its_standard_error() -> None:
    """The mask's mean is the probability that a cell is visible: each place has the constant probability, 1/4."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 36, 4, bias=False))
    net[1].weight.data.zero_()
    (found,) = Explainer(net, IMAGE).explain(IMAGE, Query("visible", target=1, samples=600))
    assert found.standard_error is not None
    z = (found.values - 0.25) / found.standard_error
    assert z.abs().max() < 6 and 0.3 < z.square().mean() < 2


@ONCE
def test_rise_finds_the_place_that_a_network_looks_at() -> None:
    class Spot(nn.Module):
        """Class 1 is the brightness of a few pixels."""

        def forward(self, x: Tensor) -> Tensor:
            spot = x[:, :, 4:8, 24:30].mean((1, 2, 3))
            return torch.stack([torch.zeros_like(spot), spot], 1)

    image = torch.full_like(IMAGE, 3.0)
    (found,) = Explainer(Spot(), image).explain(image, Query("visible", target=1))
    row, column = divmod(int(found.map.argmax()), found.map.shape[1])
    assert abs(row - 6) <= 3 and abs(column - 27) <= 5


@ONCE
def test_a_method_of_the_score_records_no_graph() -> None:
    one = Explainer(small(), IMAGE)
    graphs = []
    handle = one.model.register_forward_hook(lambda _m, _i, scores: graphs.append(scores.requires_grad))
    list(one.advance([(Smoothing(IMAGE[0], Query("visible", target=1)), 5)]))
    handle.remove()
    assert graphs == [False]


# Shared by all


@pytest.mark.parametrize("method", ["straight_path", "visible"])
def test_the_chunk_changes_nothing_but_rounding(method: str) -> None:
    query = Query(method, target=2, samples=21)
    (whole,) = Explainer(small(), IMAGE, chunk=21).explain(IMAGE, query)
    for chunk in (1, 4):
        (part,) = Explainer(small(), IMAGE, chunk=chunk).explain(IMAGE, query)
        assert distance(part.values, whole.values) < 1e-5


def test_a_path_masks_and_noise_share_their_passes_and_each_gets_the_answer_that_it_gets_alone() -> None:
    one, images = Explainer(small(), IMAGE), pictures(2, (24, 36), seed=3)
    asked = [
        (images[0], Query("straight_path", target=1, samples=9)),
        (images[1], Query("visible", target=4, samples=12, seed=2)),
        (images[0], Query("gradcam", target=3, samples=7)),
        (images[1], Query("vargrad", target=0, samples=9, seed=1)),
        (images[1], Query("visible", target=0, samples=8)),
    ]
    together = [Smoothing(image, query) for image, query in asked]
    while any(smoothing.left for smoothing in together):
        list(one.advance([(s, min(3 + k, s.left)) for k, s in enumerate(together) if s.left]))
    for (image, query), smoothing in zip(asked, together):
        alone, shared = one.explain(image[None], query)[0], smoothing.estimate()
        assert (shared.query, shared.samples_used) == (query, query.samples)
        assert distance(shared.values, alone.values) < 1e-5


def test_a_stream_gets_better_and_a_path_that_is_cut_off_is_near_the_whole_one() -> None:
    (whole,) = Explainer(small(activation=nn.Tanh), IMAGE).explain(IMAGE, Query("straight_path", target=2, samples=64))
    one = Explainer(small(activation=nn.Tanh), IMAGE, chunk=16)
    steps = [step.estimate() for step in one.smooth(IMAGE[0], Query("straight_path", target=2, samples=64))]
    assert [step.samples_used for step in steps] == [16, 32, 48, 64]
    far = [float((step.values - whole.values).norm() / whole.values.norm()) for step in steps]
    assert far[3] < 1e-5 < max(far[:3]) < 0.5


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_masks_end_at_a_standard_error_whatever_the_chunk(chunk: int) -> None:
    query = Query("visible", target=2, samples=200, standard_error=0.25)
    (found,) = Explainer(small().double(), IMAGE.double(), chunk=chunk).explain(IMAGE.double(), query)
    (whole,) = Explainer(small().double(), IMAGE.double(), chunk=7).explain(IMAGE.double(), query)
    assert found.reached and 10 <= found.samples_used == whole.samples_used < 200


@ONCE
def test_the_price_of_a_draw_is_a_forward_pass_and_two_more_for_a_backward_pass() -> None:
    assert (FORWARD, WITH_BACKWARD) == (1, 3)
    priced = {
        "visible": (1, 200),
        "straight_path": (3, 60),
        "smoothgrad": (3, 150),
        "gradient": (3, 3),
        "gradcam": (3, 0),
        "cam": (3, 0),
    }
    assert {name: (Query(name).price, Query(name).work) for name in priced} == priced
    assert Query("gradcam", samples=5).work == 15


@ONCE
def test_a_query_names_what_its_draws_depend_on() -> None:
    named = {name: Query(name).parameters for name in ("visible", "straight_path", "smoothgrad", "gradient")}
    assert named == {
        "visible": ("seed",),
        "straight_path": (),
        "smoothgrad": ("noise_level", "seed"),
        "gradient": (),
    }


# What the registry takes, and how it is extended


@ONCE
def test_a_registered_method_is_in_the_live_mapping_which_nobody_can_write_into() -> None:
    assert METHODS["visible"] is rise.METHOD and "visible" in Explainer(small(), IMAGE).methods()
    with pytest.raises(TypeError):
        METHODS["visible"] = rise.METHOD  # type: ignore[index]
    query = Query("visible", target=1)
    assert pickle.loads(pickle.dumps(query)) == query == replace(query)


class Half:
    """Draws that lack a half of their members."""

    parameters = ()

    @classmethod
    def of(cls, image: Tensor, sampling: object) -> Half:
        return cls()

    def draw(self, first: int, count: int) -> Tensor:
        return torch.zeros(count, 3, 24, 36)


@ONCE
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, r"there is a method 'visible' already \(Petsiuk et al. 2018\)"),
        ({"name": "gradcam"}, "there is a method 'gradcam' already"),
        ({"name": "Grad-CAM"}, "cannot be named 'Grad-CAM': lower case"),
        ({"name": "a" * 51}, "50 at most"),
        ({"name": "new", "signal": "logit"}, "signal must be one of: layer, input, score"),
        ({"name": "new", "statistic": "median"}, "statistic must be one of: mean, mean_square, variance"),
        ({"name": "new", "display": "minimum"}, "display must be one of: maximum, percentile"),
        ({"name": "new", "min_samples": 500}, "samples must be at least min_samples"),
        ({"name": "new", "draws": None}, "a score has no map"),
        ({"name": "describe"}, "cannot be named 'describe': a request with that word in its path asks for"),
        ({"name": "new", "draws": Half}, "'new': its draws must have weigh, random$"),
        ({"name": "new", "needs_linear_head": True}, "needs_linear_head belongs to a method of a layer"),
    ],
)
def test_a_row_that_cannot_be_is_refused_with_a_sentence(change: dict[str, object], said: str) -> None:
    before = dict(METHODS)
    with pytest.raises(ValueError, match=said):
        register(replace(rise.METHOD, **change))
    assert before == METHODS


MODULE = """
from heatserve.engine import METHODS, register
from dataclasses import replace
register(replace(METHODS["gradient"], name={name!r}))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@ONCE
def test_a_module_of_an_archive_brings_a_method_and_is_loaded_once(folder: Path) -> None:
    (folder / "archived_method.py").write_text(MODULE.format(name="archived"), encoding="utf-8")
    load_modules(["archived_method"])
    load_modules(["archived_method"])
    (found,) = Explainer(small(), IMAGE).explain(IMAGE, Query("archived", target=1))
    assert found.query.method == "archived"
    del sys.modules["archived_method"]


@ONCE
def test_an_installed_package_brings_a_method_by_its_entry_point(folder: Path) -> None:
    (folder / "installed_method.py").write_text(MODULE.format(name="installed"), encoding="utf-8")
    metadata = folder / "installed_method-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: installed-method\nVersion: 1.0\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\nany = installed_method\n", encoding="utf-8")
    assert "installed" not in METHODS
    load_installed()
    load_installed()
    assert METHODS["installed"].signal == "input"
    del sys.modules["installed_method"]


@ONCE
def test_entry_points_are_read_as_python_3_9_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class EntryPoint:
        name = "any"

        def load(self) -> None:
            register(replace(METHODS["gradient"], name="of_an_old_python"))

    monkeypatch.setattr(registry.metadata, "entry_points", lambda: {registry.GROUP: [EntryPoint()], "other": []})
    load_installed()
    assert "of_an_old_python" in METHODS
    monkeypatch.setattr(registry.metadata, "entry_points", dict)
    load_installed()


@ONCE
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nowhere_to_be_found", "module 'broken_method' brings no methods: ModuleNotFoundError"),
        (MODULE.format(name="gradcam"), "ValueError: there is a method 'gradcam' already"),
    ],
)
def test_a_module_that_fails_is_named_with_its_reason(folder: Path, text: str, said: str) -> None:
    (folder / "broken_method.py").write_text(text, encoding="utf-8")
    with pytest.raises(ExtensionError, match=said):
        load_modules(["broken_method"])


@ONCE
@pytest.mark.parametrize(("end", "raised"), [("1 / 0", ExtensionError), ("raise KeyboardInterrupt", KeyboardInterrupt)])
def test_a_module_that_fails_leaves_no_method_and_fails_alike_again(
    folder: Path, end: str, raised: type[BaseException]
) -> None:
    before, said = dict(METHODS), []
    (folder / "half_a_module.py").write_text(f"{MODULE.format(name='halved')}\n{end}\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(raised) as caught:
            load_modules(["half_a_module"])
        assert before == METHODS
        said.append(str(caught.value))
    assert said[0] == said[1]


@ONCE
def test_a_module_of_an_archive_that_is_not_there_is_named() -> None:
    with pytest.raises(ExtensionError, match="module 'not_in_the_archive' brings no methods: ModuleNotFoundError"):
        load_modules(["not_in_the_archive"])
