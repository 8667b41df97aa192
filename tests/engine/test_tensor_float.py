"""The switches of TF32 on a CPU: set for a pass, and put back as they were, by either of torch's ways to say it."""

import subprocess
import sys

import pytest
import torch

from heatserve.engine import Explainer, Query, precision
from tests.engine.networks import pictures, small

ONCE = pytest.mark.parametrize("optimize", [True], indirect=True, ids=["optimized"])
pytestmark = ONCE
IMAGES = pictures(2)


class Watching(torch.nn.Module):
    """Says which mode its forward pass, and the backward pass through it, were made in."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.passes = small(), []

    def forward(self, x):
        self.passes.append(("forward", rounds()))
        if x.requires_grad:
            x.register_hook(lambda _: self.passes.append(("backward", rounds())))
        return self.net(x)


def rounds():
    """Whether products and convolutions are rounded."""
    newer = precision._operations()
    if newer:
        return {operation.fp32_precision == "tf32" for operation in newer}
    return {torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32}


def states():
    older = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return older, torch.get_float32_matmul_precision(), [one.fp32_precision for one in precision._operations()]


@pytest.fixture(params=["new", "legacy"])
def way(request, monkeypatch):
    if request.param == "legacy":
        monkeypatch.setattr(precision, "_operations", lambda: [])
    elif not precision._operations():
        pytest.skip("this torch has allow_tf32 alone")
    return False, True


@pytest.mark.parametrize("mode", ["highest", "high", "medium"])
def test_each_mode_of_matrix_products_is_put_back(mode):
    torch.set_float32_matmul_precision(mode)
    try:
        before = states()
        with precision.tensor_float(False):
            assert rounds() == {False}
        assert states() == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("allowed", [False, True])
def test_a_network_may_use_the_older_switches_in_its_forward_pass(allowed):
    before = states()
    with precision.tensor_float(allowed), torch.backends.cudnn.flags(enabled=False):
        pass
    assert states() == before


def test_the_switches_are_set_inside_and_as_they_were_outside(way):
    before = states()
    for allowed in (False, True):
        with precision.tensor_float(allowed):
            assert rounds() == {way[allowed]}
        assert states() == before
    with pytest.raises(KeyError), precision.tensor_float(True):
        raise KeyError
    assert states() == before


@pytest.mark.parametrize(("asked", "expected"), [("float32", False), ("tf32", True)])
def test_noisy_copies_are_passed_in_the_mode_that_was_asked_for_and_predictions_in_the_process_own(
    way, asked, expected, monkeypatch
):
    net = Watching()
    one = Explainer(net.eval(), IMAGES, chunk=4)
    monkeypatch.setattr(one, "precision", asked)  # a CPU has no TF32 of its own, but the switches
    for here in (False, True):
        with precision.tensor_float(here):
            net.passes.clear()
            one.run(IMAGES, [[], []])
            assert net.passes == [("forward", {way[here]})]
            net.passes.clear()
            one.explain(IMAGES[:1], Query("smoothgrad", target=1, samples=4))
            assert ("backward", {way[expected]}) in net.passes
            assert {modes == {way[expected]} for what, modes in net.passes if what == "backward"} == {True}
            assert net.passes[-2:] == [("forward", {way[expected]}), ("backward", {way[expected]})]


def test_what_is_proved_at_load_is_proved_in_float32(way):
    net = Watching()
    with precision.tensor_float(True):
        Explainer(net.eval(), IMAGES, chunk=4)
    assert net.passes and all(modes == {way[False]} for _, modes in net.passes)


def in_a_process_of_its_own(code):
    code = "import torch\nfrom heatserve.engine import precision\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="this torch has allow_tf32 alone")
def test_an_operation_that_had_the_value_of_all_follows_it_afterwards():
    in_a_process_of_its_own("""
torch.backends.fp32_precision = "tf32"
before = torch.backends.mkldnn.conv.fp32_precision
with precision.tensor_float(False):
    assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
assert torch.backends.mkldnn.conv.fp32_precision == before == "tf32"
torch.backends.fp32_precision = "ieee"
assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
""")


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="this torch has allow_tf32 alone")
def test_predictions_of_cuda_are_named_after_its_products_and_convolutions_alone():
    in_a_process_of_its_own("""
cuda = torch.device("cuda")
assert precision.of_predictions(cuda) == "tf32"
torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "ieee"
torch.backends.mkldnn.matmul.fp32_precision = "tf32"
assert precision.of_predictions(cuda) == precision.of_predictions(torch.device("cpu")) == "float32"
""")


@pytest.mark.parametrize(
    "setting",
    [
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
        "torch.set_float32_matmul_precision('high')",
        "torch.backends.cuda.matmul.allow_tf32 = True",
    ],
)
def test_whatever_the_process_has_set_an_explainer_loads_explains_and_leaves_it(setting):
    """In a process of its own: mixed settings cannot be taken back by the older way."""
    if "fp32" in setting and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has allow_tf32 alone")
    code = f"""
import torch
from heatserve import Explainer, Query
from heatserve.engine import precision
from tests.engine.networks import pictures, small
{setting}
before = [one.fp32_precision for one in precision._operations()]
one = Explainer(small(), pictures(2), optimize=True)
one.explain(pictures(2), Query("smoothgrad", samples=3))
assert one.precision == one.prediction_precision == "float32"
assert before == [one.fp32_precision for one in precision._operations()]
"""
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tf32_is_float32_where_there_is_none():
    assert Explainer(small(), IMAGES, precision="tf32").precision == "float32"
    assert precision.available("tf32", torch.device("cuda")) == "tf32"


def test_predictions_are_named_after_the_mode_that_the_process_is_in(way):
    device = torch.device("cuda")
    for allowed, name in ((True, "tf32"), (False, "float32")):
        with precision.tensor_float(allowed):
            assert precision.of_predictions(device) == name
            assert precision.of_predictions(torch.device("cpu")) == "float32"
