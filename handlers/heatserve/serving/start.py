"""Start-up: it builds a service from an unpacked archive, or raises a sentence that says why it cannot."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engine import METHODS, Explainer, ExtensionError, UnsuitableModel, is_out_of_memory, try_added, warm
from . import describe, integrity, wording
from .contract import CONTRACT
from .errors import Refusal, printable
from .integrity import ArchiveError, Integrity
from .loading import error_in_one_line, load_captum, load_extensions, load_labels, load_model, text_in_one_line
from .loop import Loop
from .model_info import model_info
from .options import OPTIONS
from .pool import Pool, automatic
from .report import Report
from .requests import RequestParser
from .responder import Responder
from .scheduling import PREDICTIONS_PER_STEP, Policy
from .service import Service
from .settings import Settings, SettingsError
from .vocabulary import Vocabulary, parse
from .writer import Writer

logger = logging.getLogger(__name__)

#: The errors that end a start-up with one line in the log.
START_ERRORS = (ArchiveError, SettingsError, UnsuitableModel)


def service(model_dir: Path, manifest: Mapping[str, Any], settings: Settings, on: torch.device) -> Service:
    """The service of an archive: everything is loaded and proved once. Raises one of START_ERRORS.

    model_dir: the folder of the unpacked archive, from which Python can import.
    on: the device of the network.
    """
    # Pillow's logger may print text from a client's file, and TorchServe reads the worker's output for metrics.
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    checked = _checked(model_dir, manifest)
    _check_contract(manifest)
    load_extensions(settings.extensions)
    load_captum(settings.captum)
    model = load_model(model_dir, manifest, on)
    labels = load_labels(model_dir)
    network = explainer(settings, model, on)
    _try_added(network, settings, on)
    warm(network, example(settings, on)[:1], capture=settings.optimize is not False)
    classes = network.classes
    labels = wording.with_absence(labels) if network.single else labels
    if labels and set(labels) != set(range(classes)):
        one = "the model's one label as 0, or " if network.single else ""
        raise ArchiveError(f"index_to_name.json must name {one}the model's classes 0 to {classes - 1}, and no others")
    vocabulary = Vocabulary(classes, labels, network.layers, network.methods(), network.activation, network.single)
    defaults = _defaults(settings, network, vocabulary)
    parser = RequestParser(vocabulary, defaults, settings.limits, settings.view, settings.channels)
    info = model_info(manifest, settings.activation)
    description = describe.description(info, checked, network, vocabulary, defaults, settings)
    pool = Pool(automatic() if settings.picture_threads is None else settings.picture_threads)
    policy = _policy(settings, network)
    loop = Loop(network, parser, settings.preprocess, settings.limits, policy, pool, settings.grpc_stream)
    responder = Responder(Report(network, vocabulary, info), settings.limits, loop.faults, description)
    return Service(
        network,
        loop,
        Writer(responder, pool, loop.faults),
        info,
        checked,
        settings,
    )


def _checked(model_dir: Path, manifest: Mapping[str, Any]) -> Integrity:
    """The result of comparing the archive's files with its manifest. Raises ArchiveError where they differ.

    A manifest without hashes is a warning in the log.
    """
    checked = integrity.check(model_dir, manifest)
    if not checked.verified:
        logger.warning(
            "heatserve: this archive is not verified: its manifest has no hashes of its members, as heatserve package "
            "writes them; its weights have sha256 %s",
            checked.weights_sha256,
        )
    return checked


def _check_contract(manifest: Mapping[str, Any]) -> None:
    """Refuses an archive whose host calls the core in a way that this core does not know. Raises ArchiveError."""
    wanted = (manifest.get("heatserve") or {}).get("contract", 1)
    if wanted != CONTRACT:
        raise ArchiveError(
            f"the archive was packaged for version {printable(str(wanted))} of the call between host and core "
            f"(heatserve.contract in its manifest), and this heatserve has version {CONTRACT}: install the heatserve "
            "that it was packaged with, or package it again with this one"
        )


def explainer(settings: Settings, model: nn.Module, on: torch.device) -> Explainer:
    """The explainer of the network, which is read and proved on pictures of noise.

    Raises UnsuitableModel, or ArchiveError where the network fails.
    """
    try:
        return Explainer(
            model,
            example(settings, on),
            settings.layers,
            settings.chunk,
            optimize=settings.optimize,
            precision=settings.precision,
            activation=settings.activation,
            head=settings.head,
            layout=settings.layout,
        )
    except BaseException as error:  # a network may even call sys.exit(), which would end the worker without a word
        if isinstance(error, UnsuitableModel) or is_out_of_memory(error):
            raise
        raise ArchiveError(f"the network fails on a view of {_view(settings)}: {error_in_one_line(error)}") from error


def _view(settings: Settings) -> str:
    """The size of the model's view in words, with the settings that it comes from."""
    height, width = settings.view
    key = "preprocess.resize" if settings.preprocess.crop is None else "preprocess.crop"
    if settings.channels == 3:
        return f"{height} x {width} pixels ({key})"
    return f"{height} x {width} pixels ({key}) with preprocess.channels = {settings.channels}"


def _try_added(network: Explainer, settings: Settings, on: torch.device) -> None:
    """Runs each added method once. Raises ArchiveError for one that fails."""
    try:
        try_added(network, example(settings, on))
    except ExtensionError as error:
        way_out = "correct the method, or do without the module or package that brings it"
        if settings.captum:
            way_out += ", or without the name in explain.captum"
        raise ArchiveError(f"{text_in_one_line(error, 600)}; {way_out}") from error


def _policy(settings: Settings, network: Explainer) -> Policy:
    """The scheduling policy. Outside continuous batching no row comes in between two steps, so steps may be long."""
    return Policy(PREDICTIONS_PER_STEP if settings.continuous else math.inf, sizes=network.sizes)


def example(settings: Settings, on: torch.device) -> torch.Tensor:
    """Two rows of repeatable noise in the shape of the model's view. The network's structure is read from them."""
    return torch.rand((2, settings.channels, *settings.view), generator=torch.Generator().manual_seed(0)).to(on)


def _defaults(settings: Settings, network: Explainer, vocabulary: Vocabulary) -> dict[str, Any]:
    """The archive's defaults, checked as a request's options are."""
    method = settings.defaults.get("method", OPTIONS["method"].default)
    if isinstance(method, str) and method in METHODS:
        network.check(method)
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
    if defaults.get("resolution", 1) > min(settings.view):
        raise SettingsError(
            f"explain.resolution is {defaults['resolution']}; at most {min(settings.view)}, the shorter side of the "
            "model's view"
        )
    return defaults
