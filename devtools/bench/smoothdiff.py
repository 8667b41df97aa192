"""SmoothDiff beside SmoothGrad: its time, and the distance of both to a SmoothGrad of many samples of another seed."""

from __future__ import annotations

import io
import time
from copy import deepcopy
from functools import partial

import numpy as np
import yaml
from PIL import Image
from torch import Tensor

from devtools.bench import stopwatch
from devtools.bench.networks import NETWORKS, photograph
from devtools.bench.results import Result
from devtools.bench.rounds import Action, Measure, Progress, interleave, ratio
from devtools.bench.smoothgrad import SAMPLES, TARGET, contestants
from heatserve import Explainer, Query
from heatserve.engine import ranking
from heatserve.imaging import decode
from heatserve.serving.settings import read_settings
from heatserve_tools.demo import lite0
from heatserve_tools.demo.photographs import photographs

#: The largest time against Captum's SmoothGrad, and the least share of the pictures whose map is nearer.
LIMIT, NEARER = 0.12, 0.9
#: The numbers of samples of SmoothDiff.
NUMBERS = (10, 50)
PICTURES, REFERENCE = 10, 2000
#: The seed of the reference is not the one of the maps.
SEED, OTHER_SEED = 0, 1


def seconds_of(name: str, seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """The time of a SmoothDiff against Captum's SmoothGrad with its best chunk, and against ours."""
    model, inputs = NETWORKS[name].build(), photograph()
    smoothers = contestants(deepcopy(model), inputs, SAMPLES, ("float32",), stopwatch.host())
    actions: dict[str, Action] = {label: smoother.action for label, smoother in smoothers.items()}
    (captum,) = [label for label, smoother in smoothers.items() if smoother.explainer is None]
    explainer = Explainer(model, inputs, optimize=True)
    for samples in NUMBERS:
        query = Query("smoothdiff", target=TARGET, samples=samples)
        actions[f"SmoothDiff n = {samples}"] = partial(_values, explainer, inputs[0], query)
    results = []
    for kind, timed in (("", stopwatch.host().timed), (", processor time", _processor)):
        measures = {label: timed(action) for label, action in actions.items()}
        found = interleave(measures, seconds, warm_up=1, least=rounds, progress=progress)
        for label in actions:
            limit = LIMIT if label == f"SmoothDiff n = {NUMBERS[0]}" else None
            if label != captum:
                what = f"{label}: {name}, against {captum}{kind}"
                results.append(Result.of(what, ratio(found[label], found[captum]), limit))
    return results


def distances(name: str, pictures: int, reference: int, progress: Progress) -> list[Result]:
    """The relative L2 distances to a SmoothGrad of many samples of another seed, and how many pictures are nearer.

    reference: the number of its samples. The class is the one that the network predicts.
    """
    views = photograph_views()[:pictures]
    explainer = Explainer(NETWORKS[name].build(), views[0][1][None].clone(), optimize=True)
    methods = {f"SmoothGrad n = {SAMPLES}": ("smoothgrad", SAMPLES)}
    methods |= {f"SmoothDiff n = {samples}": ("smoothdiff", samples) for samples in NUMBERS}
    found: dict[str, list[float]] = {label: [] for label in methods}
    for number, (_, image) in enumerate(views):
        target = int(ranking(explainer.run(image[None].clone(), [[]])[0])[0, 0])
        far = _values(explainer, image, Query("smoothgrad", target=target, samples=reference, seed=OTHER_SEED))
        for label, (method, samples) in methods.items():
            ours = _values(explainer, image, Query(method, target=target, samples=samples, seed=SEED))
            found[label].append(float((ours - far).norm() / far.norm()))
        progress((number + 1) / len(views))
    names = [title for title, _ in views]
    of = f"{name}, to a SmoothGrad of {reference} samples"
    results = [
        Result(f"distance of {label}: {of}, median", float(np.median(values)), "×", detail=dict(zip(names, values)))
        for label, values in found.items()
    ]
    smoothgrad, *others = found
    for label in others:
        nearer = sum(one < other for one, other in zip(found[label], found[smoothgrad]))
        least = NEARER * len(views) if label == others[0] else None
        what = f"pictures of {len(views)} where {label} is nearer than {smoothgrad}: {of}"
        results.append(Result(what, nearer, "pictures", least=least))
    return results


def photograph_views() -> list[tuple[str, Tensor]]:
    """Three photographs and their quarters, each as the demo's network sees it, (3, H, W), by name."""
    config = yaml.safe_load((lite0.EXAMPLE / "model-config.yaml").read_text(encoding="utf-8"))
    preprocess = read_settings(config, {}).preprocess
    whole, parts = [], []
    for name, body in photographs().items():
        picture = Image.open(io.BytesIO(body)).convert("RGB")
        width, height = picture.size
        whole.append((name, picture))
        for place, (left, top) in {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1)}.items():
            x, y = left * width // 2, top * height // 2
            parts.append((f"{name}, {place}", picture.crop((x, y, x + width // 2, y + height // 2))))
    return [(name, preprocess.tensor(decode(_png(picture), 10**7), 10**7)[0]) for name, picture in whole + parts]


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _values(explainer: Explainer, image: Tensor, query: Query) -> Tensor:
    *_, explanation = explainer.smooth(image, query)
    return explanation.estimate().values.double()


def _processor(action: Action) -> Measure:
    """A measure: the processor time of this process that an action takes, in seconds."""

    def measure() -> float:
        started = time.process_time()
        action()
        return time.process_time() - started

    return measure
