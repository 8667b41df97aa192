"""The growth of costs with the batch, the samples, the targets, the photograph's size and the number of clients.

Each series has a sentence on its slope and the points of a plot (`plots.scaling`) in the details of its first result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from devtools.bench.clients import over_clients
from devtools.bench.library import FORWARD, forward
from devtools.bench.megapixels import over_megapixels
from devtools.bench.networks import NETWORKS, images
from devtools.bench.results import Result
from devtools.bench.rounds import Progress, Ratio, interleave, timed
from devtools.bench.series import SENTENCE, Line, Series
from heatserve import Explainer, Query

NETWORK = "lite0"
#: A layer well before the end: its gradient has no closed form, so each target takes a backward pass from there on.
INNER = "_blocks.10"
PASSES = "cost in forward passes of one image"
CLASS = 281


def sentences(results: Sequence[Result]) -> list[str]:
    """A sentence on each slope among the results."""
    return [result.detail[SENTENCE] for result in results if SENTENCE in result.detail]


def over_batches(
    seconds: float,
    rounds: int,
    progress: Progress,
    build: Callable[[], nn.Module] = NETWORKS[NETWORK].build,
    inputs: Callable[[int], Tensor] = images,
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32),
) -> list[Result]:
    """Grad-CAM of every row, and the plain forward pass beside it, against a plain forward pass of one row."""
    model, explainer = build(), Explainer(build(), inputs(1), optimize=True)
    batches = {size: inputs(size) for size in sizes}
    plain = {f"{FORWARD} {size}": timed(forward(model, batch)) for size, batch in batches.items()}
    ours = {
        f"Grad-CAM {size}": timed(lambda b=batch: explainer.run(b, [[Query("gradcam")]] * len(b)))
        for size, batch in batches.items()
    }
    found = interleave({**plain, **ours}, seconds, warm_up=1, least=rounds, progress=progress)
    base = f"{FORWARD} {sizes[0]}"
    gradcam = Line.of("Grad-CAM", sizes, found, [*ours], base)
    series = Series(
        f"Grad-CAM against the batch's size ({NETWORK})",
        "images in the batch",
        PASSES,
        (gradcam, Line.of("plain forward pass", sizes, found, [*plain], base)),
        reference=1.0,
    )
    sentence = (
        f"Grad-CAM's cost grows with the batch's size as N^{gradcam.exponent.median:.2f}: in a batch of {sizes[-1]} an "
        f"image costs {gradcam.each.median:.2f} × what it costs alone."
    )
    what = f"Grad-CAM: an image in a batch of {sizes[-1]}, against alone ({NETWORK})"
    return [Result.of(what, gradcam.each, **series.detail(sentence))]


def over_samples(
    seconds: float,
    rounds: int,
    progress: Progress,
    build: Callable[[], nn.Module] = NETWORKS[NETWORK].build,
    inputs: Callable[[int], Tensor] = images,
    counts: Sequence[int] = (1, 4, 16, 50, 100, 400),
) -> list[Result]:
    """SmoothGrad of one image with n samples, against a plain forward pass."""
    image = inputs(1)
    explainer = Explainer(build(), image, optimize=True)
    target = min(CLASS, explainer.classes - 1)

    def smooth(count: int) -> None:
        *_, last = explainer.smooth(image[0], Query("smoothgrad", target=target, samples=count))
        last.estimate()

    ours = {f"SmoothGrad {count}": timed(lambda n=count: smooth(n)) for count in counts}
    plain = {FORWARD: timed(forward(build(), image))}
    found = interleave({**plain, **ours}, seconds, warm_up=1, least=rounds, progress=progress)
    line = Line.of("SmoothGrad", counts, found, [*ours], FORWARD)
    series = Series(
        f"SmoothGrad against its samples ({NETWORK}, one image)", "samples n", PASSES, (line,), reference=1.0
    )
    sentence = (
        f"SmoothGrad's cost grows with its samples as n^{line.exponent.median:.2f}: each further sample costs "
        f"{line.marginal.median:.2f} forward passes."
    )
    what = f"SmoothGrad: a further sample, against a plain forward pass ({NETWORK})"
    return [Result.of(what, line.marginal, **series.detail(sentence, chunk=explainer.chunk))]


def over_targets(
    seconds: float,
    rounds: int,
    progress: Progress,
    build: Callable[[], nn.Module] = NETWORKS[NETWORK].build,
    inputs: Callable[[int], Tensor] = images,
    counts: Sequence[int] = (1, 2, 3, 5, 10),
    inner: str = INNER,
) -> list[Result]:
    """Grad-CAM of one image for the N likeliest classes: at the pooled layer, and at one that needs backward passes."""
    image = inputs(1)
    pooled = Explainer(build(), image).layer
    explainer = Explainer(build(), image, (pooled, inner), optimize=True)

    def ask(layer: str, count: int) -> None:
        explainer.run(image, [[Query("gradcam", rank=rank, layer=layer) for rank in range(count)]])

    places = {"at the pooled layer (closed form)": pooled, f"at {inner} (backward passes)": inner}
    ours = {
        name: {f"{layer} {count}": timed(lambda at=layer, n=count: ask(at, n)) for count in counts}
        for name, layer in places.items()
    }
    plain = {FORWARD: timed(forward(build(), image))}
    contestants = {key: measure for group in (plain, *ours.values()) for key, measure in group.items()}
    found = interleave(contestants, seconds, least=rounds, progress=progress)
    closed, backward = (Line.of(name, counts, found, [*group], FORWARD) for name, group in ours.items())
    series = Series(
        f"Grad-CAM against the number of targets ({NETWORK}, one image)",
        "targets",
        PASSES,
        (closed, backward),
        logarithmic=False,
    )
    sentence = (
        f"Each further target costs {_share(closed.marginal)} where the gradient is known in closed form, and "
        f"{_share(backward.marginal)} at {inner}, where it takes a backward pass."
    )
    what = f"Grad-CAM: a further target {{}}, against a plain forward pass ({NETWORK})"
    return [
        Result.of(what.format(closed.name), closed.marginal, **series.detail(sentence)),
        Result.of(what.format(backward.name), backward.marginal),
    ]


def _share(cost: Ratio) -> str:
    """A cost in words, as a share of a forward pass. A cost whose interval holds 0 is not given as a figure."""
    if cost.low > 0:
        return f"{100 * cost.median:.2g} % of a forward pass"
    return f"no more than {100 * cost.high:.2g} % of a forward pass" if cost.high > 0 else "nothing that can be told"


#: A step of `scripts/bench scaling` for each series, so that one that fails does not lose the others.
STEPS: Mapping[str, Callable[[float, int, Progress], list[Result]]] = {
    "batch's size": over_batches,
    "samples": over_samples,
    "targets": over_targets,
    "megapixels": over_megapixels,
    "clients": over_clients,
}
