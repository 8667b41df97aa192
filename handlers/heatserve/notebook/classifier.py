"""A classifier for notebooks: a frozen model that answers pictures with probabilities and maps."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engine import Attribution, Explainer, Query, UnsuitableModel, ranking
from ..imaging import Geometry, Picture, Preprocess
from ..serving.drawing import view
from ..serving.errors import Refusal
from ..serving.vocabulary import Vocabulary
from ..serving.wording import with_absence
from .answer import Answer
from .layers import device_of, noise
from .pictures import MAX_PIXELS, Source, files_in, picture_of


class Classifier:
    """A model that answers pictures with probabilities and maps.

    The model is frozen and put into evaluation mode, and hooks stay on it, until `close()` is called. Until then the
    model itself answers with the scores that are explained. `close()` gives it its own answer, each parameter its
    `requires_grad` and each module its mode again. It cannot undo the folds of `optimize=True`.

    labels: the class names, by index or as a list; without them classes have numbers. A model of one score with a
        sigmoid needs the name of its label alone.
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
        self.explainer = Explainer(model, noise(shape, device_of(model)), layers, activation=activation, **settings)
        self._closed = False
        names = dict(labels) if isinstance(labels, Mapping) else dict(enumerate(labels or ()))
        names = with_absence(names) if self.explainer.single else names
        if names and set(names) != set(range(self.explainer.classes)):
            self.close()
            raise ValueError(f"labels must name the classes 0 to {self.explainer.classes - 1}, and no others")
        self.vocabulary = Vocabulary(self.explainer.classes, names, self.explainer.layers, self.explainer.methods())

    def __repr__(self) -> str:
        model = type(self.explainer.model).__name__
        methods = ", ".join(self.methods)
        return f"Classifier({model}, frozen until close(), {self.vocabulary.classes} classes; methods: {methods})"

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the hooks off the model, and undoes the freezing and the evaluation mode. It may be called twice."""
        if not self._closed:
            self._closed = True
            self.explainer.close()

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods that fit the model."""
        return self.explainer.methods()

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that a query may name, the default first."""
        return self.explainer.layers

    def query(self, method: str = "gradcam", target: int | str | None = None, **options: Any) -> Query:
        """A query whose target and contrast may be labels. Raises ValueError for a label that no class has."""
        try:
            if target is not None:
                options["target"] = self.vocabulary.class_index("target", target)
            if options.get("contrast") is not None:
                options["contrast"] = self.vocabulary.class_index("contrast", options["contrast"])
        except Refusal as refusal:
            raise ValueError(refusal.message) from None
        if options.get("least") is not None:
            raise ValueError("least may leave a picture without an answer, which has to have one here")
        self.explainer.check(method)
        return Query(method, **options)

    def explain(
        self, picture: Source, method: str = "gradcam", target: int | str | None = None, **options: Any
    ) -> Answer:
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
        if self._closed:
            raise ValueError("this classifier is closed; make a new one")
        asked = [queries or Query()] * len(pictures) if not isinstance(queries, Sequence) else list(queries)
        if len(asked) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures need as many queries, not {len(asked)}")
        decoded = [picture_of(picture) for picture in pictures]
        views = [self.preprocess.tensor(picture, MAX_PIXELS) for picture in decoded]
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
        """Gives each picture's file with its answer, or with the error of a file that is no picture, one by one.

        folder: a folder, which is searched below as well, or files.
        progress: whether a line on stderr counts the files.
        """
        if self._closed:
            raise ValueError("this classifier is closed; make a new one")
        return self._explain_files(files_in(folder), self.query(method, target, **options), progress)

    def _explain_files(
        self, files: Sequence[Path], query: Query, progress: bool
    ) -> Iterator[tuple[Path, Answer | Exception]]:
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
        logits, found = self.explainer.run(images.clone(), [[] if query.smoothed else [query] for query in queries])
        answers = []
        for row, query in enumerate(queries):
            if query.smoothed:
                fixed = query.at(int(ranking(logits[row])[query.rank]), logits[row])
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


def _shape(preprocess: Preprocess) -> tuple[int, int, int]:
    """(C, H, W) of the model's view. Raises UnsuitableModel where pictures would have views of several sizes."""
    crop = preprocess.crop
    if crop is None:
        raise UnsuitableModel("preprocess.crop is None: pictures of one size are needed")
    height, width = (crop, crop) if isinstance(crop, int) else crop
    return len(preprocess.mean), height, width
