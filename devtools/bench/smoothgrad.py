"""SmoothGrad beside Captum's, on any device: the same work of each, Captum's at its best chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from devtools.bench import stopwatch
from devtools.bench.networks import NETWORKS, photograph
from devtools.bench.results import Result
from devtools.bench.rounds import Ratio, Seen, interleave, ratio
from devtools.bench.stopwatch import Action, Stopwatch
from heatserve import Explainer, Query
from heatserve.engine import Attribution, is_out_of_memory
from heatserve.engine.smoothing import Noise

TARGET = 0
SAMPLES = 50
CHUNKS = (1, 2, 5, 10, 25, 50)
#: On a CPU: float16 has no convolutions there that are faster.
PRECISIONS = ("float32", "bfloat16")
#: Asked, against Captum: of the exact one, of the fastest, and to the same total error.
EXACT, FASTEST, SAME_ERROR = 0.72, 0.5, 0.6


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


def measure(name: str, seconds: float, rounds: int, seen: Seen) -> list[Result]:
    """Ours against Captum's, each smoothing one photograph; in every precision, and to the same total error."""
    watch, samples = stopwatch.host(), SAMPLES
    model, inputs = NETWORKS[name].build(), photograph()
    among = contestants(model, inputs, samples, PRECISIONS, watch)
    captum = next(what for what, smooths in among.items() if smooths.explainer is None)
    found = interleave(
        {what: watch.timed(smooths.action) for what, smooths in among.items()},
        seconds,
        warm_up=1,
        least=rounds,
        seen=seen,
    )
    results, cheapest = [], None
    for what, smooths in among.items():
        if smooths.explainer is None:
            continue
        exact = smooths.precision == "float32"
        times = ratio(found[what], found[captum])
        faithful = fidelity(smooths, among)
        detail: dict[str, Any] = {**faithful, "chunk": smooths.chunk, "captum_chunk": among[captum].chunk}
        if exact:
            detail["distance_to_captum_at_the_same_noise"] = _distance_to_captum(model, inputs, smooths)
        limit = EXACT if exact else FASTEST
        results.append(Result.of(f"{what}: {name}, against Captum NoiseTunnel", times, limit, **detail))
        share = samples_for_same_error(faithful["monte_carlo_error"], faithful["relative_l2"])
        if share is not None and (cheapest is None or times.median * share < cheapest[0].median):
            cheapest = Ratio(times.median * share, times.low * share, times.high * share, times.rounds), what, share
    assert cheapest is not None
    times, what, share = cheapest
    said = f"SmoothGrad to the total error of Captum's n = {samples}: {name}, against Captum NoiseTunnel"
    return [*results, Result.of(said, times, SAME_ERROR, by=what, samples=round(samples * share, 1))]


def samples_for_same_error(monte_carlo: float, bias: float) -> float | None:
    """By what share the samples have to grow where each comes with a bias, in relative L2 norms; None: none suffice.

    The total error of n samples is `sqrt(monte_carlo^2 * (N / n) + bias^2)`, `monte_carlo` being that of N of them
    without bias.
    """
    room = monte_carlo**2 - bias**2
    return monte_carlo**2 / room if room > 0 else None


def _distance_to_captum(model: nn.Module, inputs: Tensor, smooths: Smooths) -> float:
    """Relative L2 to the mean of Captum's gradients at our noisy copies."""
    from captum.attr import Saliency

    found = _attribution(smooths)
    noise, total = Noise(inputs[0], found.query.noise_level, found.query.seed), torch.zeros_like(inputs[0]).double()
    for index in range(smooths.samples):
        copy = noise.draw(index, 1).requires_grad_()
        total += Saliency(model).attribute(copy, target=TARGET, abs=False)[0].double()
    theirs = total / smooths.samples
    return float((found.values - theirs).norm() / theirs.norm())


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
