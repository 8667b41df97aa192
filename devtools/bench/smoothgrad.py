"""SmoothGrad beside Captum's, on any device: the same work of each, Captum's at its best chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from devtools.bench.stopwatch import Action, Stopwatch
from heatserve import Explainer, Query
from heatserve.engine import Attribution, is_out_of_memory

TARGET = 0
CHUNKS = (1, 2, 5, 10, 25, 50)


@dataclass(frozen=True)
class Smooths:
    """A contestant. of: an action with so many samples, which gives its attribution. chunk: copies in one pass.

    explainer: None for Captum's.
    """

    of: Callable[[int], Callable[[], object]]
    samples: int
    chunk: int
    precision: str = "float32"
    explainer: Explainer | None = None

    @property
    def action(self) -> Action:
        return self.of(self.samples)


def contestants(
    model: nn.Module, inputs: Tensor, samples: int, precisions: Sequence[str], watch: Stopwatch
) -> dict[str, Smooths]:
    """Ours in each precision, and Captum's; by name. inputs: (1, C, H, W). The first precision is what the others are
    compared with."""
    found = {}
    for precision in precisions:
        explainer = Explainer(deepcopy(model), inputs, optimize=True, precision=precision)
        found[f"SmoothGrad n = {samples}, {precision}"] = Smooths(
            _ours(explainer, inputs), samples, min(explainer.chunk, samples), precision, explainer
        )
    model = model.requires_grad_(False)  # the graph of the peer keeps nothing for the weights either
    chunk = best_chunk(lambda size: _captum(model, inputs, size)(samples), samples, watch)
    found[f"Captum NoiseTunnel n = {samples}"] = Smooths(_captum(model, inputs, chunk), samples, chunk)
    return found


def best_chunk(of: Callable[[int], Action], samples: int, watch: Stopwatch) -> int:
    """The fastest of some numbers of copies at a time, the better of two tries; those that do not fit are left out."""
    seconds: dict[int, float] = {}
    for size in [size for size in CHUNKS if size <= samples]:
        measure = watch.timed(of(size))
        try:
            measure()  # kernels are chosen and loaded at the first
            seconds[size] = min(measure(), measure())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
    return min(seconds, key=lambda size: seconds[size])


def fidelity(one: Smooths, among: Mapping[str, Smooths]) -> dict[str, float]:
    """How far a precision's attribution is from the first one's with the same noise, beside its Monte-Carlo error.

    relative_l2: of the difference; rank_correlation: Spearman's, of the maps' pixels.
    """
    exact, found = (_attribution(smooths) for smooths in (next(iter(among.values())), one))
    error = torch.linalg.vector_norm(found.values - exact.values) / torch.linalg.vector_norm(exact.values)
    ranks = torch.stack([of.map.flatten().argsort().argsort().double() for of in (exact, found)])
    assert found.relative_error is not None
    return {
        "relative_l2": float(error),
        "rank_correlation": float(torch.corrcoef(ranks)[0, 1]),
        "monte_carlo_error": float(found.relative_error),
    }


def _attribution(smooths: Smooths) -> Attribution:
    found = smooths.action()
    assert isinstance(found, Attribution)
    return found


def _ours(explainer: Explainer, inputs: Tensor) -> Callable[[int], Callable[[], Attribution]]:
    def of(samples: int) -> Callable[[], Attribution]:
        query = Query("smoothgrad", target=TARGET, samples=samples)

        def run() -> Attribution:
            *_, smoothing = explainer.smooth(inputs[0], query)
            return smoothing.estimate()

        return run

    return of


def _captum(model: nn.Module, inputs: Tensor, chunk: int) -> Callable[[int], Action]:
    from captum.attr import NoiseTunnel, Saliency

    method = NoiseTunnel(Saliency(model))
    # As ours: a share of the image's range.
    spread = 0.15 * float(inputs.amax() - inputs.amin())

    def of(samples: int) -> Action:
        return lambda: method.attribute(
            inputs,
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=chunk,
            stdevs=spread,
            target=TARGET,
            abs=False,
        )

    return of
