"""Start-up: an unpacked archive becomes a service, or a sentence that says why it cannot."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engine import METHODS, Explainer, UnsuitableModel, is_out_of_memory
from . import describe, integrity
from .archive import load_labels, load_model, said
from .errors import Refusal
from .integrity import ArchiveError, Integrity
from .lock import only_worker
from .loop import Loop
from .model_info import ModelInfo, model_info
from .options import OPTIONS
from .report import Report
from .requests import RequestParser
from .responder import Responder
from .scheduling import PREDICTIONS_PER_STEP, Policy
from .settings import Settings, SettingsError
from .vocabulary import Vocabulary, parse

logger = logging.getLogger(__name__)

#: What ends a start-up with one line in the log.
START_ERRORS = (ArchiveError, SettingsError, UnsuitableModel)


@dataclass(frozen=True)
class Service:
    """One model, ready to answer."""

    explainer: Explainer
    loop: Loop
    responder: Responder
    info: ModelInfo
    integrity: Integrity
    settings: Settings

    def summary(self) -> str:
        """One line for the log."""
        engine = self.explainer
        return (
            f"layer={engine.layers[0] if engine.layers else None} methods={','.join(engine.methods())} "
            f"device={engine.device} chunk={engine.chunk} precision={engine.precision} "
            f"folded={engine.optimized.folded} padded={engine.optimized.padded} "
            f"layout={str(engine.optimized.layout).rpartition('.')[2]} verified={str(self.integrity.verified).lower()}"
        )


def device(gpu_id: Any) -> torch.device:
    """The device that TorchServe assigned to this worker, chosen as its own BaseHandler does."""
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device(f"cuda:{gpu_id}")
    if gpu_id is not None and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def service(model_dir: Path, manifest: Mapping[str, Any], settings: Settings, on: torch.device) -> Service:
    """Loads and proves everything once. Raises one of START_ERRORS."""
    # Pillow's logger may print what it found in a client's file; the worker's output is read for metrics.
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    checked = _checked(model_dir, manifest)
    model = load_model(model_dir, manifest, on)
    labels = load_labels(model_dir)
    explainer = _explainer(model, settings, on)
    classes = explainer.classes
    if labels and set(labels) != set(range(classes)):
        raise ArchiveError(f"index_to_name.json must name the model's classes 0 to {classes - 1}, and no others")
    vocabulary = Vocabulary(classes, labels, explainer.layers, explainer.methods())
    defaults = _defaults(settings, explainer, vocabulary)
    reader = RequestParser(vocabulary, defaults, settings.limits, _view(settings))
    info = model_info(manifest)
    description = describe.description(info, checked, explainer, vocabulary, defaults, settings)
    return Service(
        explainer,
        Loop(explainer, reader, settings.preprocess, settings.limits, _policy(settings), settings.grpc_stream),
        Responder(Report(explainer, vocabulary, info), settings.limits, description),
        info,
        checked,
        settings,
    )


def _checked(model_dir: Path, manifest: Mapping[str, Any]) -> Integrity:
    """The archive's files are what was packaged, or the log says that nobody knows. Raises ArchiveError."""
    checked = integrity.check(model_dir, manifest)
    if not checked.verified:
        logger.warning(
            "heatserve: this archive is not verified: its manifest has no hashes of its members, as scripts/package "
            "writes them; its weights have sha256 %s",
            checked.weights_sha256,
        )
    return checked


def _explainer(model: nn.Module, settings: Settings, on: torch.device) -> Explainer:
    """The network, read and proved on pictures of noise. Raises UnsuitableModel, or ArchiveError where it fails."""
    height, width = _view(settings)
    try:
        return Explainer(
            model,
            _example(settings, on),
            settings.layers,
            settings.chunk,
            optimize=settings.optimize,
            precision=settings.precision,
        )
    except BaseException as error:  # a network may even call sys.exit(), which would end the worker without a word
        if isinstance(error, UnsuitableModel) or is_out_of_memory(error):
            raise
        raise ArchiveError(
            f"the network fails on a view of {height} x {width} pixels (preprocess.crop): {said(error)}"
        ) from error


def check_mode(settings: Settings, name: str, manifest: Mapping[str, Any], envelope: Any) -> None:
    """The rows must come as TorchServe has them, and in continuous batching to the model's only worker.

    name: under which the server knows the model. Raises ArchiveError.
    """
    if envelope:
        raise ArchiveError(
            "a service envelope hides all rows of a batch but the first; remove it (service_envelope): the handler "
            "reads raw, form, JSON and KServe bodies by itself"
        )
    if not settings.continuous:
        return
    only_worker(name, str(manifest.get("model", {}).get("modelVersion", "")))


def _policy(settings: Settings) -> Policy:
    """Where a batch is done from start to end nobody comes in between, and a long step makes nobody wait."""
    return Policy(PREDICTIONS_PER_STEP if settings.continuous else math.inf)


def _example(settings: Settings, on: torch.device) -> torch.Tensor:
    """Two rows of repeatable noise in the shape of the model's view: what the network's structure is read from."""
    return torch.rand((2, 3, *_view(settings)), generator=torch.Generator().manual_seed(0)).to(on)


def _view(settings: Settings) -> tuple[int, int]:
    """Height and width of what the model sees."""
    crop = settings.preprocess.crop
    assert isinstance(crop, int)  # the settings allow nothing else
    return crop, crop


def _defaults(settings: Settings, explainer: Explainer, vocabulary: Vocabulary) -> dict[str, Any]:
    """The archive's defaults, checked as a request's options are: what a request may not ask for is no default."""
    method = settings.defaults.get("method", OPTIONS["method"].default)
    if isinstance(method, str) and method in METHODS:
        explainer.check(method)
    defaults = {}
    for name, value in settings.defaults.items():
        try:
            defaults[name] = parse(name, value, vocabulary)
        except Refusal as refusal:
            raise SettingsError(f"explain.{name} is {value!r}: {refusal.message}") from None
    if defaults.get("samples") is not None and defaults["samples"] > settings.limits.max_samples:
        raise SettingsError(
            f"explain.samples is {defaults['samples']}; at most max_samples = {settings.limits.max_samples}"
        )
    return defaults
