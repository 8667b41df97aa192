"""The signal and the noise of a SmoothGrad's pixels and blocks of pixels, from the same samples. Nothing is timed."""

from __future__ import annotations

from devtools.bench.networks import NETWORKS, photograph
from devtools.bench.results import Result
from devtools.bench.rounds import Progress
from devtools.bench.smoothgrad import SAMPLES, TARGET
from heatserve import Explainer, Query
from heatserve.engine.sampling import Noise
from heatserve.engine.smoothing import next_decision
from heatserve.engine.statistic import Statistic

SIDES = (1, 4, 16)
#: The standard error that a map is ended by, and the most samples that it may take.
ERROR, MOST = 0.5, 500


def measure(name: str, progress: Progress, most: int = MOST) -> list[Result]:
    """The signal to noise at `SAMPLES` samples, and the samples until the standard error is `ERROR`, for each side.

    The signal is the size (L2) of the true map, the noise that of its error: their ratio is 1 / standard error.
    """
    image = photograph()
    explainer = Explainer(NETWORKS[name].build(), image, optimize=True)
    query = Query("gradient", target=TARGET)
    noise = Noise(image[0], query.noise_level, query.seed)
    maps = {side: Statistic("mean", side) for side in SIDES}
    shares: dict[int, float] = {}
    ended: dict[int, int] = {}
    done = 0
    while done < most and (len(ended) < len(SIDES) or done < SAMPLES):
        upto = min(next_decision(done), SAMPLES if done < SAMPLES else most, most, done + explainer.chunk)
        _, found = explainer.run(noise.draw(done, upto - done), [[query]] * (upto - done))
        decision, done = upto == next_decision(done), upto
        for side, statistic in maps.items():
            for row in found:
                statistic.update(row[0].values[None])
            error = float(statistic.relative_error())
            if done == SAMPLES:
                shares[side] = 1 / error
            if decision and error <= ERROR:
                ended.setdefault(side, done)
        progress(min(1.0, done / most))
    what = {1: "a pixel", **{side: f"a block of {side} × {side}" for side in SIDES if side > 1}}
    return [
        *(Result(f"SmoothGrad, signal to noise of {what[s]} at n = {SAMPLES}: {name}", shares[s], "") for s in shares),
        *(
            Result(f"SmoothGrad, samples until a standard error of {ERROR} of {what[s]}: {name}", ended[s], "")
            for s in sorted(ended)
        ),
    ]
