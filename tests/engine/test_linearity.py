"""The networks that SmoothDiff is refused for: each function without a rule is named, and none is taken for linear."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from heatserve.engine import Explainer, Query, UnsuitableModel, derivatives
from heatserve.engine.linearity import plan_or_reason
from tests.engine.one_layer import IMAGE, distance, mean_gradient, of, ours


class Hidden(torch.autograd.Function):
    """A ReLU that no mode sees as one."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient * (ctx.saved_tensors[0] > 0)


def _part_in_place(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :2].exp_()
    return x


def _gated(x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = x.sigmoid()
    return x * gate


def _branch(x: Tensor) -> Tensor:
    return x.relu() if x.sum() > 0 else x


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "softmax": (lambda x: x.softmax(1), "Softmax"),
    "layer norm": (lambda x: functional.layer_norm(x, x.shape[1:]), "LayerNorm"),
    "group norm": (lambda x: functional.group_norm(x, 2), "GroupNorm"),
    "instance norm": (functional.instance_norm, "normalisation"),
    "batch norm in training": (lambda x: functional.batch_norm(x, None, None, training=True), "normalisation"),
    "division": (lambda x: x / (1 + x.square()), "Div"),
    "matrix product": (lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2), "Bmm"),
    "maximum": (lambda x: x.amax(1), "Amax"),
    "adaptive max pooling": (lambda x: functional.adaptive_max_pool2d(x, 2), "AdaptiveMaxPool2D"),
    "exp": (torch.exp, "Exp"),
    "sine of an operator": (torch.ops.aten.sin.default, "Sin"),
    "mask": (lambda x: x * (x > 0), "no gradient"),
    "where": (lambda x: torch.where(x > 0, x, 0.1 * x), "no gradient"),
    "detached": (lambda x: x * x.detach(), "no gradient"),
    "a gate without a gradient": (_gated, "no gradient"),
    "indices of a pooling": (
        lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2),
        "no gradient",
    ),
    "rounded": (lambda x: x + x.round().long(), "no gradient"),
    "indexed": (lambda x: x.gather(1, x.argsort(1)), "no gradient"),
    "a function of its own": (Hidden.apply, "Hidden"),
    "a part in place": (_part_in_place, "CopySlices"),
    "a branch": (_branch, ""),
    "a slope that is read": (lambda x: x * float(x.detach().abs().max()), ""),
    "a bound that depends on the picture": (lambda x: torch.clamp(x, min=x.mean()), "argument"),
    "rows in other places": (lambda x: x.transpose(0, 1).relu().transpose(0, 1), "first axis"),
    "a dynamic convolution": (
        lambda x: functional.conv2d(x, x.mean((0, 2, 3), keepdim=True).expand(2, 4, 1, 1)),
        "Convolution",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_without_a_rule_is_refused_and_named(name: str) -> None:
    function, says = REFUSED[name]
    one = Explainer(of(function), IMAGE.clone())
    assert "smoothdiff" not in one.methods() and "smoothgrad" in one.methods()
    with pytest.raises(UnsuitableModel) as error:
        one.check("smoothdiff")
    assert says in str(error.value) and "use smoothgrad" in str(error.value)


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": nn.Dropout(0.5).eval(),
    "batch norm": lambda x: functional.batch_norm(x, torch.ones(4).to(x), 2 * torch.ones(4).to(x)),
    "average pooling": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "adaptive pooling": lambda x: functional.adaptive_avg_pool2d(x, (3, 2)),
    "concatenation and slices": lambda x: torch.cat([x[:, :2], x.flip(1)[..., 1:].repeat(1, 1, 1, 2)[..., :10]], 1),
    "padding and resizing": lambda x: functional.interpolate(
        functional.pad(x, (1, 2)), scale_factor=2, mode="bilinear"
    ),
    "constants": lambda x: (1 - x * 3) / 2 - torch.ones_like(x) * torch.arange(10.0).to(x),
    "shapes": lambda x: x.view(x.shape[0], -1).unflatten(1, (4, 12, 10)).permute(0, 2, 3, 1) + x.new_zeros(1),
    "channel shuffle": lambda x: functional.channel_shuffle(x, 2),
    "in place": lambda x: x.clone().add_(1).mul_(2),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_functions_are_allowed_and_exact(name: str) -> None:
    net = of(lambda x: LINEAR[name](functional.relu(x)))
    assert distance(ours(net), mean_gradient(net, 10)) < 2e-6


def test_a_network_that_takes_another_way_is_an_error_and_not_a_wrong_map() -> None:
    class Way(nn.Module):
        other = False

        def forward(self, x: Tensor) -> Tensor:
            return x.tanh() if self.other else x.relu()

    way = Way()
    one = Explainer(of(way), IMAGE.clone())
    way.other = True
    with pytest.raises(UnsuitableModel, match="other functions"):
        one.explain(IMAGE, Query("smoothdiff", target=0))


def test_a_scripted_network_is_refused() -> None:
    one = Explainer(torch.jit.trace(of(functional.relu), IMAGE), IMAGE.clone())
    with pytest.raises(UnsuitableModel, match="hides its functions"):
        one.check("smoothdiff")


@pytest.mark.parametrize("wrong", [lambda x: 1.01 * x, lambda x: -x, lambda x: x.flip(-1), torch.zeros_like])
def test_a_derivative_that_is_wrong_is_seen_at_load(
    wrong: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = derivatives.derivatives
    monkeypatch.setattr(derivatives, "derivatives", lambda *given: tuple(wrong(one) for one in right(*given)))
    with pytest.raises(UnsuitableModel, match="not the network's own where there is no noise"):
        Explainer(of(functional.silu), IMAGE.clone()).check("smoothdiff")


def test_a_load_takes_few_passes_for_the_derivatives() -> None:
    rows: list[int] = []
    net = of(functional.relu)
    net.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    plan_or_reason(net, IMAGE.clone())
    assert rows == [3, 1, 1, 1]
