"""Each kind of model answers as the table in docs/kinds.md says: eager, FX, compiled, TorchScript, exported."""

import io
import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from heatserve.engine import METHODS, Explainer, Query, UnsuitableModel
from heatserve.engine.kinds import KINDS, kind_of
from heatserve.engine.outputs import Outputs
from tests.engine.networks import Small, captum_gradient, distance, pictures, seeded, small

IMAGES = pictures(3)
TABLE = Path(__file__).parents[2] / "docs" / "kinds.md"
pytestmark = pytest.mark.filterwarnings("ignore")


def saved(module: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return torch.jit.load(io.BytesIO(buffer.getvalue()))


def exported(net: nn.Module, images: Tensor = IMAGES, free: bool = True) -> nn.Module:
    axes = {0: torch.export.Dim("n")} if free else {}
    program, buffer = torch.export.export(net, (images,), dynamic_shapes=(axes,)), io.BytesIO()
    torch.export.save(program, buffer)
    return torch.export.load(io.BytesIO(buffer.getvalue())).module()


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")


def in_place(net: nn.Module) -> nn.Module:
    net.compile(backend="eager")
    return net


#: By the table's rows: the kind, and the network made of an eager one.
MAKERS = {
    "eager": ("eager", lambda net: net),
    "FX": ("eager", torch.fx.symbolic_trace),
    "torch.compile(model)": ("compiled", compiled),
    "model.compile()": ("compiled", in_place),
    "TorchScript, scripted": ("scripted", torch.jit.script),
    "TorchScript, traced": ("scripted", lambda net: torch.jit.trace(net, IMAGES)),
    "TorchScript, frozen": ("scripted", lambda net: torch.jit.freeze(torch.jit.script(net))),
    "TorchScript, from a file": ("scripted", lambda net: saved(torch.jit.script(net))),
    "torch.export, any number of pictures": ("exported", exported),
    "torch.export, one picture": ("exported", lambda net: exported(net, IMAGES[:1], free=False)),
}
SEALED = [name for name, (kind, _) in MAKERS.items() if kind != "eager"]
LEAVES_OUT = ("eager", "FX", "torch.export, any number of pictures", "torch.export, one picture")


def made(name: str, net: nn.Module | None = None) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MAKERS[name][1](small() if net is None else net)


class Probable(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(self.trunk(x)).flatten(1)).sigmoid()


def probable() -> nn.Module:
    return seeded(Probable).eval()


@pytest.mark.parametrize("name", MAKERS)
def test_the_kind_is_known(name):
    assert kind_of(made(name)) == MAKERS[name][0] and MAKERS[name][0] in KINDS


@pytest.mark.parametrize("name", MAKERS)
def test_predictions_and_gradients_of_every_kind_are_the_networks(name):
    with torch.no_grad():
        expected = small()(IMAGES)
    one = Explainer(made(name), IMAGES[:2])
    for count in (1, 2, 3):
        scores, rows = one.run(IMAGES[:count], [[Query("gradient", target=n)] for n in range(count)])
        torch.testing.assert_close(scores, expected[:count], atol=1e-5, rtol=1e-5)
        for n, row in enumerate(rows):
            assert distance(row[0].values[None], captum_gradient(small(), IMAGES[n : n + 1], n)) < 1e-4


@pytest.mark.parametrize("name", MAKERS)
def test_every_method_that_needs_no_layer_is_answered_by_every_kind(name):
    one, eager = Explainer(made(name), IMAGES[:2]), Explainer(small(), IMAGES[:2])
    rows = [METHODS[method] for method in eager.methods()]
    rows = [row for row in rows if not (row.rule or row.of_layer or row.statistic == "derivatives")]
    methods = [row.name for row in rows if row.signal in ("input", "score")]
    assert {"gradient", "smoothgrad", "vargrad"} <= set(methods) <= set(one.methods())
    for method in methods:
        # The number is that of an odd batch, which no kind was made with.
        query = Query(method, target=1, samples=5 if METHODS[method].samples > 1 else None)
        found, expected = (each.explain(IMAGES[:1], query)[0].map for each in (one, eager))
        assert distance(found, expected) < 1e-3


@pytest.mark.parametrize("name", SEALED)
def test_layers_inside_are_refused_with_the_ways_out(name):
    with pytest.raises(
        UnsuitableModel, match=r"'trunk': .* such as gradient .* the eager network that it was made from"
    ):
        Explainer(made(name), IMAGES, layers=("trunk",))
    one = Explainer(made(name), IMAGES)
    assert one.layers == () and "gradcam" not in one.methods()
    with pytest.raises(UnsuitableModel, match="no layer inside it can be recorded"):
        one.check("gradcam")


def test_fx_answers_everything():
    eager, one = Explainer(small(), IMAGES), Explainer(made("FX"), IMAGES)
    assert one.methods() == eager.methods() and one.head is not None
    for method in ("gradcam", "cam"):
        for found, expected in zip(one.explain(IMAGES, Query(method)), eager.explain(IMAGES, Query(method))):
            assert distance(found.values, expected.values) < 1e-4


@pytest.mark.parametrize("make", ["torch.compile(model)", "TorchScript, scripted"])
def test_layers_outside_a_part_that_is_sealed_are_served(make):
    net = small()
    net.linear = made(make, net.linear)
    net.pool = made(make, net.pool)
    one = Explainer(net, IMAGES, layers=("trunk",))
    found, expected = one.explain(IMAGES, Query()), Explainer(small(), IMAGES).explain(IMAGES, Query())
    assert all(distance(a.values, b.values) < 1e-4 for a, b in zip(found, expected))
    net = small()
    net.trunk = made(make, net.trunk)
    with pytest.raises(UnsuitableModel, match=r"'trunk\.1': .*no layer inside it can be recorded"):
        Explainer(net, IMAGES, layers=("trunk.1",))


@pytest.mark.parametrize("name", MAKERS)
def test_a_sigmoid_in_forward_is_left_out_or_refused(name):
    if name in LEAVES_OUT:
        with torch.no_grad():
            own = probable()(IMAGES)
        one = Explainer(made(name, probable()), IMAGES, activation="sigmoid")
        torch.testing.assert_close(one.probabilities(one.run(IMAGES, [[]] * 3)[0]), own, atol=1e-5, rtol=0)
    else:
        with pytest.raises(UnsuitableModel, match="look like probabilities already"):
            Explainer(made(name, probable()), IMAGES, activation="sigmoid")
    with pytest.raises(UnsuitableModel, match="look like probabilities already"):
        Explainer(made(name, probable()), IMAGES)


class Logarithms(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(self.trunk(x)).flatten(1)).log_softmax(1)


@pytest.mark.parametrize("name", [name for name in SEALED if name not in LEAVES_OUT])
def test_a_log_softmax_whose_values_look_like_scores_is_refused_where_it_cannot_be_left_out(name):
    with pytest.raises(UnsuitableModel, match="a log-softmax is its last operation"):
        Explainer(made(name, seeded(Logarithms).eval()), IMAGES)


def test_a_sigmoid_behind_a_compiled_part_is_refused():
    net = probable()
    net.trunk = compiled(net.trunk)
    with pytest.raises(UnsuitableModel, match="a sigmoid is its last operation"):
        Explainer(net, IMAGES, activation="sigmoid")


class Single(Small):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 1)


@pytest.mark.parametrize("name", MAKERS)
def test_one_label_is_served_by_every_kind(name):
    if name == "model.compile()":
        with pytest.raises(UnsuitableModel, match=r"give torch\.compile\(model\)"):
            Explainer(made(name, seeded(Single).eval()), IMAGES, activation="sigmoid")
        return
    with torch.no_grad():
        score = seeded(Single).eval()(IMAGES)
    one = Explainer(made(name, seeded(Single).eval()), IMAGES[:2], activation="sigmoid")
    torch.testing.assert_close(one.run(IMAGES, [[]] * 3)[0], torch.cat([-score, score], 1), atol=1e-5, rtol=1e-5)


class Training(Small):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(super().forward(x))


class Normalised(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


@pytest.mark.parametrize("net", [Training, Normalised])
@pytest.mark.parametrize("make", [exported, lambda net: torch.jit.trace(net, IMAGES, check_trace=False)])
def test_a_network_that_was_recorded_in_training_mode_is_refused(net, make):
    with pytest.raises(UnsuitableModel, match=r"call model\.eval\(\)"):
        Explainer(make(seeded(net).train()), IMAGES)


def test_a_network_that_was_exported_for_another_number_of_pictures_is_refused_with_the_line_to_write():
    with pytest.raises(UnsuitableModel, match=r"torch\.export\.Dim"):
        Explainer(exported(small(), IMAGES[:2], free=False), IMAGES[:2])


@pytest.mark.parametrize("name", MAKERS)
def test_a_kind_is_closed_as_it_was(name):
    net = made(name)
    trained = {key: parameter.requires_grad for key, parameter in net.named_parameters()}
    Explainer(net, IMAGES[:2]).close()
    assert not isinstance(getattr(vars(net).get("forward"), "__self__", None), Outputs)
    assert {key: parameter.requires_grad for key, parameter in net.named_parameters()} == trained
    with torch.no_grad():
        torch.testing.assert_close(net(IMAGES[:1]), small()(IMAGES[:1]), atol=1e-5, rtol=1e-5)


def test_the_documents_table_has_a_row_for_each_kind_and_says_what_these_tests_do():
    rows = dict(re.findall(r"^\| `?([^|`]+)`? \| (.*) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE))
    for name, (kind, _) in MAKERS.items():
        cells = [cell.strip() for cell in rows[name].split("|")]
        assert cells[0] == "yes"
        assert cells[1] == ("yes" if kind == "eager" else "refused"), name
        assert cells[2].startswith("left out" if name in LEAVES_OUT else "refused"), name
