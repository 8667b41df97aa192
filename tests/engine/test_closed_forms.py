"""The engine against mathematics: linear and quadratic models, and finite differences in float64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from heatserve.engine import Explainer, Query
from tests.engine.networks import distance, pictures, seeded

SHAPE = (3, 4, 5)
COUNT = 60


class Quadratic(nn.Module):
    """`y_c = x^T A_c x` for two classes."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.randn((2, COUNT, COUNT)) / COUNT**0.5)

    def forward(self, x):
        flat = x.flatten(1)
        return torch.einsum("ni,cij,nj->nc", flat, self.a, flat)


LINEAR = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(COUNT, 4)))
WEIGHTS = LINEAR[1].weight.detach().clone().reshape(4, *SHAPE)
LINEAR_EXPLAINER = Explainer(LINEAR, torch.zeros((1, *SHAPE)))
QUADRATIC = seeded(Quadratic)
QUADRATIC_EXPLAINER = Explainer(QUADRATIC, torch.zeros((1, *SHAPE)), chunk=250)
# The gradient of x^T A x is (A + A^T) x.
SLOPE = (QUADRATIC.a + QUADRATIC.a.mT).detach()


@settings(max_examples=30, deadline=None)
@given(
    method=st.sampled_from(["gradient", "smoothgrad"]),
    samples=st.integers(1, 20),
    seed=st.integers(0, 2**63 - 1),
    level=st.floats(0, 1),
    target=st.integers(0, 3),
    chunk=st.integers(1, 7),
)
def test_the_gradient_of_a_linear_model_is_its_weights_however_it_is_smoothed(
    method, samples, seed, level, target, chunk
):
    LINEAR_EXPLAINER.chunk = chunk
    query = Query(method, target=target, samples=samples, noise_level=level, seed=seed)
    (answer,) = LINEAR_EXPLAINER.explain(pictures(1, SHAPE[1:]), query)
    torch.testing.assert_close(answer.values, WEIGHTS[target], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(answer.map, WEIGHTS[target].abs().max(0).values, rtol=1e-6, atol=1e-7)
    if samples > 1:
        assert answer.standard_error.max() < 1e-7
        assert answer.relative_error < 1e-6


@pytest.mark.parametrize("contrast", [None, 2])
def test_of_a_linear_model_the_mean_square_is_the_weights_squared_and_the_variance_nothing(contrast):
    weights = WEIGHTS[1] - (0 if contrast is None else WEIGHTS[contrast])
    image = pictures(1, SHAPE[1:])
    query = Query("smoothgrad_squared", target=1, contrast=contrast, samples=9)
    (squared,) = LINEAR_EXPLAINER.explain(image, query)
    torch.testing.assert_close(squared.values, weights**2, rtol=1e-6, atol=1e-8)
    (variance,) = LINEAR_EXPLAINER.explain(image, Query("vargrad", target=1, contrast=contrast, samples=9))
    assert variance.values.max() < 1e-12
    assert variance.standard_error.max() < 1e-12


@pytest.mark.parametrize("target", [0, 1])
def test_the_gradient_of_a_quadratic_model_is_linear_in_the_image(target):
    images = pictures(3, SHAPE[1:])
    answers = QUADRATIC_EXPLAINER.explain(images, Query("gradient", target=target))
    for image, answer in zip(images, answers):
        torch.testing.assert_close(answer.values.flatten(), SLOPE[target] @ image.flatten(), rtol=1e-4, atol=1e-5)


def test_statistics_over_a_quadratic_models_gradient_have_their_expected_values_and_standard_errors():
    """g = Bx + Be with e ~ N(0, sigma^2): normal, mean Bx, variance v = sigma^2 (B B^T)_ii.

    Each estimate lies within 5 of its standard errors of its expectation, at every element, and their mean square is
    about 1; the standard errors themselves are within 20 % of the normal law's.
    """
    image, samples, level = pictures(1, SHAPE[1:], seed=4), 2000, 0.2
    sigma = level * (image.max() - image.min()).item()
    mean = SLOPE[1] @ image.flatten()
    variance = sigma**2 * (SLOPE[1] ** 2).sum(1)
    expected = {
        "smoothgrad": (mean, variance),
        "smoothgrad_squared": (mean**2 + variance, 2 * variance**2 + 4 * mean**2 * variance),
        "vargrad": (variance * (samples - 1) / samples, 2 * variance**2),
    }
    for method, (value, spread) in expected.items():
        query = Query(method, target=1, samples=samples, noise_level=level, seed=11)
        (answer,) = QUADRATIC_EXPLAINER.explain(image, query)
        error = answer.standard_error.flatten()
        z = (answer.values.flatten() - value) / error
        assert z.abs().max() < 5, method
        assert 0.5 < z.square().mean() < 1.7, method
        torch.testing.assert_close(error, (spread / samples).sqrt(), rtol=0.2, atol=0, msg=method)
        true = (spread / samples).sqrt().norm() / torch.as_tensor(value).norm()
        torch.testing.assert_close(answer.relative_error, true, rtol=0.1, atol=0, msg=method)


def finite_differences(function, point, step=1e-5):
    """Central differences of a scalar function, element by element, for one point (1, ...)."""
    shifts = step * torch.eye(point.numel(), dtype=point.dtype).reshape(-1, *point.shape[1:])
    return ((function(point + shifts) - function(point - shifts)) / (2 * step)).reshape(point.shape[1:])


def smooth_net():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, 2, 1), nn.Tanh(), nn.Conv2d(5, 4, 3, padding=1), nn.Softplus(),
        nn.Flatten(), nn.Linear(4 * 4 * 5, 3),
    ).double()  # fmt: skip


def test_gradients_at_the_input_equal_finite_differences():
    net = seeded(smooth_net)
    image = pictures(1, (8, 10)).double()
    explainer = Explainer(copy.deepcopy(net), image, layers=("3",))
    with torch.no_grad():
        for target, contrast in ((0, None), (2, None), (1, 2)):

            def score(x, target=target, contrast=contrast):
                y = net(x)
                return y[:, target] - (0 if contrast is None else y[:, contrast])

            expected = finite_differences(score, image)
            (answer,) = explainer.explain(image, Query("gradient", target=target, contrast=contrast))
            assert distance(answer.values, expected) < 1e-7


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_gradcam_equals_its_definition_with_finite_differences_at_the_activation(cut):
    net = seeded(smooth_net)
    images = pictures(3, (8, 10)).double()
    explainer = Explainer(copy.deepcopy(net), images, layers=(str(cut - 1),))
    filled = 0
    with torch.no_grad():
        for target in range(3):
            answers = explainer.explain(images, Query("gradcam", target=target))
            for image, answer in zip(images, answers):
                activation = net[:cut](image[None])
                slope = finite_differences(lambda a, target=target: net[cut:](a)[:, target], activation)
                expected = sum(slope[k].mean() * activation[0, k] for k in range(len(slope))).clamp_min(0)
                filled += int(expected.max() > 0)
                assert distance(answer.values, expected) < 1e-6
    assert filled > 3
