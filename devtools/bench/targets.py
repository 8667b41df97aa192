"""Several targets of one picture against the same targets one after the other: they see the same noise."""

from __future__ import annotations

from devtools.bench.networks import NETWORKS, photograph
from devtools.bench.results import Result
from devtools.bench.rounds import Progress, interleave, ratio, timed
from heatserve import Explainer, Query
from heatserve.engine import Attribution, Smoothing

TARGETS = 5
#: The time of both is in proportion to the samples.
SAMPLES = 12
LIMIT = 0.62


def measure(name: str, seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """SmoothGrad of five targets together, against five SmoothGrads of one target each."""
    image = photograph()[0]
    explainer = Explainer(NETWORKS[name].build(), image[None], optimize=True)
    queries = [Query("smoothgrad", target=target, samples=SAMPLES) for target in range(TARGETS)]

    def together() -> list[Attribution]:
        return _answers(explainer, [explainer.begin(image, query) for query in queries])

    def alone() -> list[Attribution]:
        return [found for query in queries for found in _answers(explainer, [explainer.begin(image, query)])]

    farthest = max(
        float((one.values - other.values).abs().max() / other.values.abs().max())
        for one, other in zip(together(), alone())
    )
    found = interleave(
        {"together": timed(together), "alone": timed(alone)}, seconds, warm_up=1, least=rounds, progress=progress
    )
    what = f"SmoothGrad of {TARGETS} targets: {name}, against {TARGETS} of one target"
    return [
        Result.of(
            what,
            ratio(found["together"], found["alone"]),
            LIMIT,
            samples=SAMPLES,
            chunk=explainer.chunk,
            farthest_from_alone=farthest,
        )
    ]


def _answers(explainer: Explainer, smoothings: list[Smoothing]) -> list[Attribution]:
    """The attributions of explanations that have equally many draws, which they take together."""
    while left := smoothings[0].left:
        for _ in explainer.advance([(smoothing, min(explainer.chunk, left)) for smoothing in smoothings]):
            pass
    return [smoothing.estimate() for smoothing in smoothings]
