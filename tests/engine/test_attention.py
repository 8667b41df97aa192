"""LeGrad, attention relevance and rollout equal the authors' formulas on attention that the libraries give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation, Saliency
from torch import Tensor, nn
from torchcam.methods import LeGrad

from heatserve.engine import METHODS, Explainer, Query, register, registry
from heatserve.engine.sampling import Noise
from heatserve.engine.steps import finish
from tests.engine import vits

ONCE = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])
NAMES = pytest.mark.parametrize("name", ["torchvision", "timm", "registers", "distilled", "beit", "huggingface_sdpa"])
METHODS_OF_ATTENTION = ("legrad", "attention_relevance", "attention_rollout")

pytestmark = ONCE


@pytest.fixture
def probed() -> Iterator[None]:
    """Two methods that answer with the second block's attention and its gradient as they are."""
    before = dict(registry._methods)
    row = METHODS["attention_relevance"]
    register(replace(row, name="probed_attention", attribute=lambda signal: signal.attentions[1]))
    register(replace(row, name="probed_gradient", attribute=lambda signal: signal.gradients[1]))
    yield
    registry._methods.clear()
    registry._methods.update(before)


def readers(name: str) -> list[int]:
    prefix, (height, width), read = vits.EXPECTED[name]
    return {"class": [0], "both": [0, 1], "places": [*range(prefix, prefix + height * width)]}[str(read)]


def by_the_authors(
    name: str, method: str, image: Tensor, target: int, contrast: int | None = None
) -> np.ndarray[Any, Any]:
    """The map (h, w) of one picture (1, C, H, W), in float64 and head by head."""
    attentions, own, scores = vits.captured(name, image)

    def of(logits: Tensor) -> Tensor:
        return logits[0, target] - (0 if contrast is None else logits[0, contrast])

    prefix, (height, width), _ = vits.EXPECTED[name]
    tokens = prefix + height * width
    relevance = np.eye(tokens)
    total = np.zeros(tokens)
    for block, attention in enumerate(attentions):
        score = of(own[block]) if method == "legrad" else of(scores)
        gradient = torch.autograd.grad(score, attention, retain_graph=True)[0][0].double().numpy()
        weights = attention[0].detach().double().numpy()
        heads = len(weights)
        if method == "legrad":
            total += np.maximum(gradient, 0).sum((0, 1)) / (heads * tokens * len(attentions))
        elif method == "attention_relevance":
            relevance = (
                relevance + sum(np.maximum(gradient[h] * weights[h], 0) for h in range(heads)) @ relevance / heads
            )
        else:
            relevance = (0.5 * sum(weights[h] for h in range(heads)) / heads + 0.5 * np.eye(tokens)) @ relevance
    values = total if method == "legrad" else np.stack([relevance[row] for row in readers(name)]).mean(0)
    return np.array([[values[prefix + row * width + column] for column in range(width)] for row in range(height)])


def close(found: Tensor, wanted: np.ndarray[Any, Any]) -> None:
    assert found.shape == wanted.shape
    assert wanted.max() > 0
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@NAMES
def test_each_row_of_a_mixed_batch_equals_the_authors_formula(name: str) -> None:
    images = vits.images(name, 4)
    asked = [
        [Query("legrad", target=2), Query("attention_relevance", target=5)],
        [],
        [Query("attention_relevance", target=3, contrast=1), Query("gradient", target=1)],
        [Query("attention_rollout"), Query("legrad", target=0, contrast=6)],
    ]
    logits, answers = vits.explainer(name).run(images, asked)
    for row, queries in enumerate(asked):
        for query, answer in zip(queries, answers[row]):
            image = images[row : row + 1]
            if query.method == "gradient":
                continue
            target = query.target if query.target is not None else int(logits[row].argmax())
            close(answer.values, by_the_authors(name, query.method, image, target, query.contrast))


@pytest.mark.parametrize("name", vits.NAMES)
def test_rows_that_ask_for_no_attention_are_answered_as_without_those_that_do(name: str) -> None:
    images, net = vits.images(name, 3), vits.network(name)
    asked = [[Query("legrad", target=1)], [Query("gradient", target=2)], []]
    logits, answers = vits.explainer(name).run(images, asked)
    torch.testing.assert_close(logits, net(images), rtol=1e-5, atol=1e-5)
    wanted = Saliency(net).attribute(images[1:2].clone().requires_grad_(), target=2, abs=False)[0].detach()
    torch.testing.assert_close(answers[1][0].values, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", vits.NAMES)
def test_a_map_of_a_layer_is_the_same_in_a_pass_that_records_attention(name: str) -> None:
    images, explainer = vits.images(name, 2), vits.explainer(name)
    query = Query("gradcam", target=4)
    asked = [[query, Query("legrad", target=2)], [Query("attention_relevance", target=1), query]]
    [[first, _], [_, second]] = explainer.run(images, asked)[1]
    for row, found in enumerate((first, second)):
        wanted = explainer.run(images[row : row + 1], [[query]])[1][0][0].values
        torch.testing.assert_close(found.values, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", vits.NAMES)
def test_prefix_grid_and_the_tokens_that_are_read_are_those_of_the_architecture(name: str) -> None:
    found = vits.explainer(name).network.transformer
    prefix, grid, read = vits.EXPECTED[name]
    assert not isinstance(found, str)
    assert (found.prefix, found.grid) == (prefix, grid)
    assert found.blocks is not None
    # DINOv2's classifier reads the class token and the mean of the places.
    assert list(found.readers) == ([*range(16)] if read is None else readers(name))


@pytest.mark.parametrize("name", ["timm", "beit"])
def test_attention_times_its_gradient_is_captums_gradient_times_activation(name: str, probed: None) -> None:
    images, net = vits.images(name, 2), vits.network(name)
    for block in net.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = False
    asked = [[Query(f"probed_{part}", target=4) for part in ("attention", "gradient")]] * 2
    [[_, _], [attention, gradient]] = Explainer(vits.network(name), images, optimize=False).run(images, asked)[1]
    layer = net.blocks[1].attn.attn_drop  # type: ignore[index, union-attr]
    wanted = LayerGradientXActivation(net, layer).attribute(images[1:].clone().requires_grad_(), target=4)
    product = attention.values * gradient.values
    torch.testing.assert_close(product, wanted[0].detach(), rtol=1e-4, atol=1e-5 * float(wanted.detach().abs().max()))


def test_the_gradient_in_one_weight_is_the_finite_difference(probed: None) -> None:
    images, net = vits.images("timm", 2).double(), vits.network("timm").double()
    asked = [[], [Query("probed_gradient", target=3)]]
    found = Explainer(vits.network("timm").double(), images, optimize=False).run(images, asked)[1][1][0].values
    step, place = 1e-5, (2, 0, 6)
    attention = net.blocks[1].attn  # type: ignore[index, union-attr]
    attention.fused_attn = False
    scores = []
    for sign in (1, -1):

        def moved(_module: nn.Module, _inputs: Any, weights: Tensor, by: float = sign * step) -> Tensor:
            weights = weights.clone()
            weights[(0, *place)] += by
            return weights

        handle = attention.attn_drop.register_forward_hook(moved)
        scores.append(net(images[1:])[0, 3])
        handle.remove()
    assert float(found[place]) == pytest.approx(float(scores[0] - scores[1]) / (2 * step), rel=1e-6)
    assert abs(float(found[place])) > 1e-4


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_both_ways_to_compute_attention_give_the_same_maps(attention: str) -> None:
    name = f"huggingface_{attention}"
    image = vits.images(name, 1)
    for method in METHODS_OF_ATTENTION:
        answer = vits.explainer(name).run(image, [[Query(method, target=1)]])[1][0][0]
        close(answer.values, by_the_authors("huggingface_eager", method, image, 1))


def test_a_classifier_that_answers_with_a_model_output_gives_the_same_maps() -> None:
    classifier: Any = vits.network("huggingface_sdpa").classifier
    image = vits.images("huggingface_sdpa", 1)
    explainer = Explainer(classifier, image, optimize=False)
    for method in METHODS_OF_ATTENTION:
        answer = explainer.run(image, [[Query(method, target=1)]])[1][0][0]
        close(answer.values, by_the_authors("huggingface_sdpa", method, image, 1))
    explainer.close()


def test_no_attention_is_recorded_where_no_query_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = vits.explainer("timm")

    def fail(*_: object) -> None:
        raise AssertionError("recorded")

    monkeypatch.setattr("heatserve.engine.recorded_attention.Attentions", fail)
    explainer.run(vits.images("timm", 2), [[Query("gradient")], []])
    with pytest.raises(AssertionError, match="recorded"):
        explainer.run(vits.images("timm", 1), [[Query("attention_rollout")]])


def test_rollout_records_no_graph_and_takes_no_backward_pass() -> None:
    steps = vits.explainer("timm").steps(vits.images("timm", 1), [[Query("attention_rollout")]])
    with pytest.raises(StopIteration):
        next(steps)


def test_all_blocks_own_scores_take_one_backward_step() -> None:
    steps = vits.explainer("timm").steps(vits.images("timm", 1), [[Query("legrad"), Query("attention_rollout")]])
    next(steps)
    with pytest.raises(StopIteration):
        next(steps)


def test_a_smoothed_map_is_the_mean_of_the_draws_maps() -> None:
    explainer, image = vits.explainer("timm"), vits.images("timm", 1)[0]
    *_, smoothing = explainer.smooth(image, Query("legrad", target=2, samples=3, seed=4))
    draws = Noise(image, 0.15, 4).draw(0, 3)
    wanted = np.mean([by_the_authors("timm", "legrad", draw[None], 2) for draw in draws], axis=0)
    close(smoothing.estimate().values, wanted)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["timm", "huggingface_sdpa", "beit"])
def test_maps_of_draws_in_fewer_bits_are_float32_and_near(name: str, precision: str) -> None:
    explainer = Explainer(vits.network(name), vits.images(name, 2), precision=precision, optimize=False)
    image = vits.images(name, 1)
    for method in METHODS_OF_ATTENTION:
        found = finish(explainer.steps(image, [[Query(method, target=1)]], precision))[1][0][0].values
        wanted = torch.from_numpy(by_the_authors(name, method, image, 1)).float()
        assert found.dtype == torch.float32
        assert (found - wanted).norm() < (0.15 if precision == "bfloat16" else 0.03) * wanted.norm()


def test_legrad_is_torchcams_over_all_blocks() -> None:
    images, net, targets = vits.images("torchvision", 3), vits.network("torchvision"), [3, 1, 5]
    with LeGrad(net, [*net.encoder.layers]) as theirs:
        expected = theirs(targets, net(images), normalized=False)[0]
    _, answers = vits.explainer("torchvision").run(images, [[Query("legrad", target=target)] for target in targets])
    for (answer,), one in zip(answers, expected):
        close(answer.values, one.numpy())
