"""Explanations in a notebook: pictures go in, answers with probabilities, maps and overlays come out.

    from heatserve.notebook import Classifier, layers_of

    layers_of(model)
    with Classifier(model, labels={0: "cat", 1: "dog"}) as classifier:
        answer = classifier.explain("photo.jpg", target="dog")
        answer.overlay()
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from .engine import Attribution, Explainer, Query, UnsuitableModel, activations, ranking
from .imaging import Geometry, Picture, Preprocess, decode
from .serving.drawing import View, boxes, draw, view
from .serving.errors import Refusal
from .serving.vocabulary import Vocabulary

#: A picture: its file, its bytes, or Pillow's image.
Source = Union[str, Path, bytes, Image.Image]
#: The largest picture that is decoded, in pixels.
_MAX_PIXELS = 200_000_000
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Layer:
    """A layer that maps may come from.

    shape: of its activation for one picture, without the batch.
    default: whether maps come from it where no layer is named.
    """

    name: str
    shape: tuple[int, ...]
    default: bool


def layers_of(model: nn.Module, size: int | tuple[int, int] = 224, channels: int = 3) -> list[Layer]:
    """The layers of a network that maps may come from, the default first; the network is left as it was.

    size: height and width of the pictures that the network takes.

    Raises UnsuitableModel for a model that is no image classifier.
    """
    height, width = (size, size) if isinstance(size, int) else size
    explainer = Explainer(model, _noise((channels, height, width), _device(model)), chunk=1)
    try:
        names = list(dict.fromkeys([*explainer.layers, *explainer.structure.candidates]))
        example = _noise((channels, height, width), explainer.device)[:1]
        found = activations(explainer.model, example, names)[1]
        return [Layer(name, tuple(found[name].shape[1:]), name in explainer.layers[:1]) for name in names]
    finally:
        explainer.close()


@dataclass(frozen=True, eq=False)
class Answer:
    """A prediction with one map.

    predictions: (label, probability) of the likeliest classes, the likeliest first.
    label, probability: of the explained class.
    attribution: the engine's own answer, with its standard error where samples were taken.
    """

    predictions: Sequence[tuple[str, float]]
    label: str
    probability: float
    attribution: Attribution
    _view: View
    _geometry: Geometry
    _photograph: Image.Image

    @property
    def map(self) -> NDArray[np.float32]:
        """The map on the model's view, float32 (H, W)."""
        return self._view.values

    def overlay(
        self, image: Image.Image | None = None, *, colormap: str = "jet", opacity: float = 0.6, side: int = 1024
    ) -> Image.Image:
        """The map in colours over the photograph, RGB.

        image: another upright picture of the same photograph, in place of the one that was explained.
        side: the longest side of the result, in pixels.
        """
        return draw(image or self._photograph, self._geometry, self._view, side).overlay(colormap, opacity)

    def boxes(self, threshold: float = 0.2) -> list[dict[str, Any]]:
        """The box around the largest region that reaches `threshold` of the maximum, in the photograph's pixels."""
        return boxes(self._geometry, self._view, threshold)

    def _repr_png_(self) -> bytes:
        """The overlay, for a notebook that shows this answer."""
        image: Any = self.overlay(side=512)
        return bytes(image._repr_png_())


class Classifier:
    """A model that answers pictures with probabilities and maps.

    The model is frozen and put into evaluation mode, and hooks stay on it, until `close()` is called. `close()` gives
    each parameter its `requires_grad` and each module its mode again. It cannot undo `optimize=True`.

    labels: the class names, by index or as a list; without them classes have numbers.
    preprocess: the steps from a picture to the model's view.
    activation: "softmax", "sigmoid" or "none".
    layers: the layers to tap; empty for the automatic choice.
    settings: further arguments of `Explainer`.

    Raises UnsuitableModel for a model that cannot be explained, and ValueError for labels that do not fit it.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Mapping[int, str] | Sequence[str] | None = None,
        preprocess: Preprocess | None = None,
        activation: str = "softmax",
        layers: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self.preprocess = preprocess or Preprocess()
        shape = _shape(self.preprocess)
        if model.training or any(parameter.requires_grad for parameter in model.parameters()):
            warnings.warn("the model is frozen and in evaluation mode until close() is called", stacklevel=2)
        self.explainer = Explainer(
            model, _noise(shape, _device(model)), layers, activation=activation, **settings
        )
        names = dict(labels) if isinstance(labels, Mapping) else dict(enumerate(labels or ()))
        if names and set(names) != set(range(self.explainer.classes)):
            self.close()
            raise ValueError(f"labels must name the classes 0 to {self.explainer.classes - 1}, and no others")
        self.vocabulary = Vocabulary(
            self.explainer.classes, names, self.explainer.layers, self.explainer.methods()
        )

    def __repr__(self) -> str:
        model = type(self.explainer.model).__name__
        methods = ", ".join(self.vocabulary.methods)
        return f"Classifier({model}, frozen until close(), {self.vocabulary.classes} classes; methods: {methods})"

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the hooks off the model, and undoes the freezing and the evaluation mode."""
        self.explainer.close()

    def query(self, method: str = "gradcam", target: int | str | None = None, **options: Any) -> Query:
        """A query whose target and contrast may be labels. Raises ValueError for a label that no class has."""
        try:
            if target is not None:
                options["target"] = self.vocabulary.class_index("target", target)
            if options.get("contrast") is not None:
                options["contrast"] = self.vocabulary.class_index("contrast", options["contrast"])
        except Refusal as refusal:
            raise ValueError(refusal.message) from None
        self.explainer.check(method)
        return Query(method, **options)

    def explain(self, picture: Source, method: str = "gradcam", target: int | str | None = None, **options: Any) -> Answer:
        """The answer for one picture.

        target: a class index or a label; None for the class that is predicted.
        options: further fields of `Query`, for example samples=50.
        """
        (answer,) = self.explain_all([picture], [self.query(method, target, **options)])
        return answer

    def explain_all(self, pictures: Sequence[Source], queries: Sequence[Query] | Query | None = None) -> list[Answer]:
        """The answers for several pictures, from as few passes as possible.

        queries: one for each picture, or one for all. They are made by `query`.
        """
        asked = [queries or Query()] * len(pictures) if not isinstance(queries, Sequence) else list(queries)
        if len(asked) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures need as many queries, not {len(asked)}")
        decoded = [_picture(picture) for picture in pictures]
        views = [self.preprocess.tensor(picture, _MAX_PIXELS) for picture in decoded]
        answers: list[Answer] = []
        for start in range(0, len(views), self.explainer.rows):
            part = slice(start, start + self.explainer.rows)
            answers += self._answers(decoded[part], views[part], asked[part])
        return answers

    def explain_files(
        self,
        folder: str | Path | Iterable[str | Path],
        method: str = "gradcam",
        target: int | str | None = None,
        *,
        progress: bool = True,
        **options: Any,
    ) -> Iterator[tuple[Path, Answer | Exception]]:
        """Yields each picture's file with its answer, or with the error of a file that is no picture.

        folder: a folder, which is searched below as well, or files.
        progress: whether a line on stderr counts the files.
        """
        query = self.query(method, target, **options)
        files = _files(folder)
        started = time.monotonic()
        for number, path in enumerate(files, 1):
            try:
                answer: Answer | Exception = self.explain_all([path], query)[0]
            except (OSError, ValueError) as error:
                answer = error
            if progress:
                rate = number / max(1e-9, time.monotonic() - started)
                end = "\n" if number == len(files) else ""
                sys.stderr.write(f"\r{number} of {len(files)} pictures, {rate:.1f} a second{end}")
                sys.stderr.flush()
            yield path, answer

    def _answers(
        self,
        pictures: Sequence[Picture],
        views: Sequence[tuple[torch.Tensor, Geometry]],
        queries: Sequence[Query],
    ) -> list[Answer]:
        images = torch.stack([tensor for tensor, _ in views]).to(self.explainer.device)
        logits, found = self.explainer.run(
            images.clone(), [[] if query.smoothed else [query] for query in queries]
        )
        answers = []
        for row, query in enumerate(queries):
            if query.smoothed:
                fixed = query.at(int(ranking(logits[row])[query.rank]))
                *_, smoothing = self.explainer.smooth(images[row], fixed)
                attribution = smoothing.estimate()
            else:
                attribution = found[row][0]
            answers.append(self._answer(pictures[row], views[row][1], logits[row], attribution))
        return answers

    def _answer(self, picture: Picture, geometry: Geometry, logits: torch.Tensor, attribution: Attribution) -> Answer:
        probabilities = self.explainer.probabilities(logits[None])[0].tolist()
        label, target = self.vocabulary.label, attribution.query.target
        assert target is not None  # an attribution's query has its target fixed
        best = ranking(logits)[:5].tolist()
        return Answer(
            [(label(index), probabilities[index]) for index in best],
            label(target),
            probabilities[target],
            attribution,
            view(geometry, attribution),
            geometry,
            picture.upright(),
        )


def _picture(source: Source) -> Picture:
    """The decoded picture. Raises OSError or ValueError."""
    if isinstance(source, Image.Image):
        return Picture(source.convert("RGB"))
    return decode(source if isinstance(source, bytes) else Path(source).read_bytes(), _MAX_PIXELS)


def _files(folder: str | Path | Iterable[str | Path]) -> list[Path]:
    if not isinstance(folder, (str, Path)):
        return [Path(path) for path in folder]
    root = Path(folder)
    if not root.is_dir():
        return [root]
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)


def _noise(shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    return torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)).to(device)


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _shape(preprocess: Preprocess) -> tuple[int, int, int]:
    """(C, H, W) of the model's view. Raises UnsuitableModel where pictures would have views of several sizes."""
    crop = preprocess.crop
    if crop is None:
        raise UnsuitableModel("preprocess.crop is None: pictures of one size are needed")
    height, width = (crop, crop) if isinstance(crop, int) else crop
    return len(preprocess.mean), height, width
