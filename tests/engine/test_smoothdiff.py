"""SmoothDiff against closed forms, autograd, and SmoothGrad's mean where both must be equal."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from heatserve.engine import METHODS, Explainer, Query, begun
from tests.engine.one_layer import DOUBLE, IMAGE, SIGMA, distance, gradient, mean_gradient, noisy, of, ours


@pytest.mark.parametrize("samples", [1, 10])
def test_a_linear_network_gives_its_weights(samples: int) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(360, 3)).double().requires_grad_(False)
    assert distance(ours(net, samples=samples).flatten(), net[1].weight[1]) < 1e-6


class Squeeze(nn.Module):
    """Squeeze and excitation without a nonlinear gate: a product of two linear functions."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True)


def _swish(x: Tensor) -> Tensor:
    return x.mul_(x.clone().sum(1, keepdim=True))


#: One nonlinear call in front of a linear layer: the mean of its derivatives is then the mean of the gradients.
EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu in place": lambda x: functional.relu(x, inplace=True),
    "relu_": lambda x: x.relu_(),
    "relu_ whose result is dropped": lambda x: (x.relu_(), x)[1],
    "torch.relu": torch.relu,
    "aten relu": torch.ops.aten.relu.default,
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "relu6": lambda x: functional.relu6(4 * x),
    "relu6 in place": nn.ReLU6(inplace=True),
    "hardtanh": lambda x: functional.hardtanh(x, -0.2, 0.5),
    "nn.Hardtanh": nn.Hardtanh(-0.3, 0.4),
    "clamp": lambda x: x.clamp(-0.1, 0.5),
    "clamp from below": lambda x: torch.clamp(x, min=0.1),
    "clamp_min": lambda x: x.clamp_min(0.1),
    "clamp_max_": lambda x: x.clamp_max_(0.1),
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "nn.LeakyReLU in place": nn.LeakyReLU(0.3, inplace=True),
    "elu": functional.elu,
    "selu": torch.selu,
    "silu": functional.silu,
    "nn.SiLU in place": nn.SiLU(inplace=True),
    "gelu": functional.gelu,
    "gelu, tanh": nn.GELU(approximate="tanh"),
    "hardswish": functional.hardswish,
    "hardswish in place": nn.Hardswish(inplace=True),
    "hardsigmoid": nn.Hardsigmoid(),
    "sigmoid": torch.sigmoid,
    "sigmoid_": lambda x: x.sigmoid_(),
    "tanh": lambda x: x.tanh(),
    "softplus": nn.Softplus(beta=2),
    "mish": functional.mish,
    "prelu": lambda x: functional.prelu(x, torch.tensor([0.3], dtype=x.dtype)),
    "square": torch.square,
    "max_pool2d": lambda x: functional.max_pool2d(x, 2),
    "max_pool2d, overlapping": nn.MaxPool2d(3, stride=2, padding=1),
    "max_pool2d, dilated": nn.MaxPool2d((2, 3), stride=(2, 1), dilation=(2, 1)),
    "max_pool2d, ceil_mode": nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "max_pool2d, gaps": nn.MaxPool2d(2, stride=4),
    "max_pool2d, not square": nn.MaxPool2d((4, 1), stride=(1, 3), padding=(1, 0)),
    "max_pool2d, ceil_mode with padding": nn.MaxPool2d(3, stride=3, padding=1, ceil_mode=True),
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, 2, 1),
    "max_pool2d with indices": lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
    "product": Squeeze(),
    "product in place": _swish,
    "square as a product": lambda x: x * x,
}


@pytest.mark.parametrize("name", EXACT)
def test_one_nonlinear_layer_gives_the_mean_gradient_of_the_same_noise(name: str) -> None:
    net = of(EXACT[name])
    assert distance(ours(net), mean_gradient(net, 10)) < 2e-6
    # The gradient without noise is far from it, so that a mean that is missing would be seen.
    assert distance(ours(net), gradient(net)) > 1e-3


@pytest.mark.parametrize("samples, margin", [(100, 0.2), (10_000, 0.02)])
def test_one_relu_converges_to_the_closed_form_of_smoothgrad(samples: int, margin: float) -> None:
    net = of(functional.relu)
    spread = SIGMA * float(IMAGE.max() - IMAGE.min())
    rows = torch.autograd.functional.jacobian(lambda x: net.first(x).flatten(), IMAGE).flatten(1)
    before = net.first(IMAGE).flatten()
    normal = torch.distributions.Normal(0.0, 1.0).cdf(before / (spread * rows.norm(dim=1)))
    limit = (net.last.weight[1] * normal) @ rows
    assert distance(ours(net, samples=samples).flatten(), limit) < margin


def test_two_layers_keep_a_bias_that_more_samples_do_not_take_away() -> None:
    second = nn.Conv2d(4, 4, 3, padding=1, dtype=DOUBLE).requires_grad_(False)
    generator = torch.Generator().manual_seed(8)
    second.weight.copy_(torch.randn(second.weight.shape, generator=generator, dtype=DOUBLE) / 3)
    net = of(lambda x: second.to(x.dtype)(x.relu()).relu())
    second.double()
    found = {samples: distance(ours(net, samples=samples), mean_gradient(net, samples)) for samples in (10, 300, 3000)}
    assert all(0.02 < far < 0.3 for far in found.values()), found
    assert 0.8 < found[3000] / found[300] < 1.25, found


def test_two_factors_that_both_have_a_rule_multiply_their_means() -> None:
    """`y = a * sigmoid(b)`, both linear in the image, has `mean(sigmoid) a' + mean(a) mean(sigmoid') b'`."""
    net = of(lambda x: x[:, :2] * x[:, 2:].sigmoid())
    copies = net.first(noisy(10))
    gate, slope = copies[:, 2:].sigmoid(), copies[:, 2:].sigmoid() * (1 - copies[:, 2:].sigmoid())
    weight = net.last.weight[1].view(2, *IMAGE.shape[2:])
    inner = torch.cat([weight * gate.mean(0), weight * copies[:, :2].mean(0) * slope.mean(0)])
    leaf = IMAGE.clone().requires_grad_()
    (expected,) = torch.autograd.grad((net.first(leaf)[0] * inner).sum(), leaf)
    assert distance(ours(net), expected[0]) < 2e-6


def test_no_noise_gives_the_gradient_of_a_deep_network() -> None:
    net = of(lambda x: functional.max_pool2d(functional.silu(x * x.mean((2, 3), keepdim=True).sigmoid()), 2).relu())
    found = Explainer(net, IMAGE.clone()).explain(IMAGE, Query("smoothdiff", target=1, samples=3, noise_level=0.0))[0]
    assert distance(found.values, gradient(net)) < 2e-6


def test_neither_the_chunk_nor_the_batch_changes_the_answer() -> None:
    net = of(lambda x: functional.max_pool2d(functional.silu(x), 2).relu())
    images = torch.cat([IMAGE, IMAGE.flip(2) * 1.3])
    answers = []
    for chunk in (1, 3, 4, 64):
        one = Explainer(net, IMAGE.clone(), chunk=chunk)
        answers.append([found.values for found in one.explain(images, Query("smoothdiff", target=2, samples=11))])
        one.close()
    one = Explainer(net, IMAGE.clone(), chunk=5)
    both = [one.begin(image, Query("smoothdiff", target=2, samples=11)) for image in images]
    while any(each.left for each in both):
        for _ in one.advance([(each, min(each.left, 3)) for each in both if each.left]):
            pass
    answers.append([each.estimate().values for each in both])
    for other in answers[1:]:
        assert all(distance(found, first) < 1e-5 for found, first in zip(other, answers[0]))
    assert distance(answers[0][0], answers[0][1]) > 0.1


@pytest.mark.parametrize("samples", [255, 256, 700])
def test_counts_do_not_overflow(samples: int) -> None:
    net = of(functional.relu)
    assert distance(ours(net, samples=samples), mean_gradient(net, samples)) < 2e-6


@pytest.mark.fast_path
def test_targets_and_contrasts_of_one_image_share_its_samples() -> None:
    net = of(functional.relu)
    one = Explainer(net, IMAGE.clone(), chunk=4)
    queries = [Query("smoothdiff", target=k, samples=10, noise_level=SIGMA) for k in (0, 1, 2)]
    queries.append(Query("smoothdiff", target=1, contrast=2, samples=10, noise_level=SIGMA))
    jobs: list = []
    for query in queries:
        jobs.append(begun(IMAGE[0], query, beside=jobs))
    assert [job.left for job in jobs] == [13, 3, 3, 3]
    calls: list[int] = []
    net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    while any(job.left for job in jobs):
        room, shares = 4, []
        for job in jobs:
            if job.left and room:
                shares.append((job, min(room, job.left)))
                room -= shares[-1][1]
        for _ in one.advance(shares):
            pass
    assert calls[:3] == [4, 4, 2] and len(calls) <= 3 + 4
    mean = {k: mean_gradient(net, 10, target=k) for k in range(3)}
    for job, expected in zip(jobs, (mean[0], mean[1], mean[2], mean[1] - mean[2])):
        assert distance(job.estimate().values, expected) < 2e-6
    other = begun(IMAGE[0], Query("smoothdiff", target=0, samples=10, seed=1), beside=jobs)
    assert other.left == 13


@pytest.mark.parametrize("samples", [5, 10])
def test_the_jackknife_is_the_spread_of_the_groups_where_the_answer_is_a_mean(samples: int) -> None:
    net = of(functional.relu)
    one = Explainer(net, IMAGE.clone())
    query = Query("smoothdiff", target=1, samples=samples, noise_level=SIGMA, standard_error=0.5)
    found = one.explain(IMAGE, query)[0]
    copies = noisy(samples).requires_grad_()
    (each,) = torch.autograd.grad(net(copies)[:, 1].sum(), copies)
    groups = torch.stack([each[group::5].mean(0) for group in range(5)])
    expected = groups.std(0) / math.sqrt(5)
    assert found.standard_error is not None and found.relative_error is not None
    assert distance(found.standard_error, expected) < 1e-5
    whole, size = float(expected.norm()), float(each.mean(0).norm())
    assert float(found.relative_error) == pytest.approx(whole / math.sqrt(size**2 - whole**2), rel=1e-5)
    assert found.reached == (float(found.relative_error) <= 0.5)
    assert distance(found.values, mean_gradient(net, samples)) < 2e-6


def test_the_jackknife_foretells_the_spread_over_seeds() -> None:
    net = of(lambda x: functional.max_pool2d(functional.silu(2 * x).relu(), 2))
    one = Explainer(net, IMAGE.clone())
    queries = [
        Query("smoothdiff", target=1, samples=20, noise_level=SIGMA, seed=seed, standard_error=1e-9)
        for seed in range(30)
    ]
    found = [one.explain(IMAGE, query)[0] for query in queries]
    spread = torch.stack([each.values for each in found]).std(0).norm()
    told = torch.stack([each.standard_error.norm() for each in found]).square().mean().sqrt()  # type: ignore[union-attr]
    assert float(told / spread) == pytest.approx(1, abs=0.25)


def test_the_row_says_what_it_is() -> None:
    row = METHODS["smoothdiff"]
    assert row.samples == 10 and "bias that does not average out" in row.caveat
    assert Query("smoothdiff", target=0).work == 13
    assert Query("smoothdiff", target=0, standard_error=0.1).work == 10 + 3 * 6
