"""An archive's settings, from its model-config.yaml. An operator may tighten the limits by environment variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..engine import FORWARD, PRECISIONS, WITH_BACKWARD
from ..imaging import MAX_DECODE_MS, Preprocess
from . import typos
from .options import OPTIONS
from .values import SettingsError as SettingsError
from .values import whole
from .view import read_view

ENVIRONMENT_PREFIX = "HEATSERVE_"


@dataclass(frozen=True)
class Limits:
    """The limits on the cost of requests.

    Pixels are counted before and after resizing. Work is counted in forward passes. Decoding is counted in milliseconds
    of one processor, by `imaging.cost`'s table.

    max_image_bytes: of one encoded picture.
    max_pixels, max_decode_ms: of all pictures of a request together.
    max_batch_decode_ms: of all pictures that wait to be decoded.
    max_explanations, max_batch_work: of the explanations under way that take further passes.
    max_waiting_bytes: of the pictures of those explanations, and a quarter of the bytes of pictures that wait long to
    be decoded.
    """

    max_samples: int = 200
    max_image_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_resized_pixels: int = 4_000_000
    max_decode_ms: int = int(MAX_DECODE_MS)
    max_batch_decode_ms: int = 5_000
    max_explanations: int = 32
    max_batch_work: int = 1_250
    max_waiting_bytes: int = 16_000_000
    max_response_bytes: int = 6_000_000
    max_side: int = 1_024


@dataclass(frozen=True)
class Settings:
    """The settings of one archive.

    defaults: of options, by name, where the archive changes them.
    layers: those to tap, the default one first; empty for the automatic choice.
    extensions: modules of the archive that are imported at start, and may register methods.
    chunk: draws in one forward pass; None for automatic.
    optimize: whether the network is made faster at load.
    precision: of the passes of draws.
    continuous: whether new rows come in between two steps (TorchServe's `continuousBatching`).
    grpc_stream: whether a gRPC row that asks for `stream` gets parts. It is for trusted clients alone: a unary call
    that asks for a stream blocks the model until the server is started again.
    """

    limits: Limits = field(default_factory=Limits)
    preprocess: Preprocess = field(default_factory=Preprocess)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    layers: Sequence[str] = ()
    extensions: Sequence[str] = ()
    chunk: int | None = None
    optimize: bool = True
    precision: str = "float32"
    continuous: bool = False
    grpc_stream: bool = False

    @property
    def view(self) -> tuple[int, int]:
        """Height and width of the model's view."""
        view = self.preprocess.view
        assert view is not None  # `read_settings` allows nothing else
        return view

    @property
    def channels(self) -> int:
        """The channels of the model's view."""
        return self.preprocess.channels


def read_settings(config: Mapping[str, Any] | None, environment: Mapping[str, str]) -> Settings:
    """The settings in `explain:`, in `preprocess:`, and in those keys of TorchServe's that concern the handler.

    Raises SettingsError.
    """
    if not isinstance(config or {}, dict):
        raise SettingsError(f"model-config.yaml is a {type(config).__name__}, not a mapping of settings")
    config = config or {}
    limit_names = [f.name for f in fields(Limits)]
    typos.refuse(config, environment, [ENVIRONMENT_PREFIX + name.upper() for name in limit_names])
    _refuse_unsupported(config, environment)
    explain = _section(config, "explain")
    default_names = [name for name, option in OPTIONS.items() if option.set_by_archive]
    allowed = [*default_names, "layer", "extensions", "chunk", "optimize", "precision", "grpc_stream", *limit_names]
    for key in explain:
        if key not in allowed:
            raise SettingsError(f"explain.{key} is not a setting; allowed: {', '.join(allowed)}")
    limits = {name: whole(f"explain.{name}", explain[name]) for name in limit_names if name in explain}
    for name in limit_names:
        text = environment.get(ENVIRONMENT_PREFIX + name.upper())
        if text is not None:
            value = whole(ENVIRONMENT_PREFIX + name.upper(), text)
            limits[name] = min(value, limits.get(name, getattr(Limits(), name)))
    consistent = _consistent(Limits(**limits))
    return Settings(
        limits=consistent,
        preprocess=read_view(_section(config, "preprocess"), consistent.max_resized_pixels),
        defaults={name: explain[name] for name in default_names if name in explain},
        layers=_names("explain.layer", explain.get("layer")),
        extensions=_modules("explain.extensions", explain.get("extensions")),
        chunk=whole("explain.chunk", explain["chunk"]) if "chunk" in explain else None,
        optimize=_flag(explain, "optimize", Settings.optimize),
        precision=_precision(explain.get("precision", Settings.precision)),
        continuous=bool(config.get("continuousBatching")),
        grpc_stream=_grpc_stream(explain, bool(config.get("continuousBatching"))),
    )


def _grpc_stream(explain: Mapping[str, Any], continuous: bool) -> bool:
    value = _flag(explain, "grpc_stream", Settings.grpc_stream)
    if value and continuous:
        raise SettingsError(
            "explain.grpc_stream: true does not go with continuousBatching: true, in which TorchServe takes a part of "
            "a gRPC stream for its end; remove one of them (streams over HTTP work in both modes)"
        )
    return value


def _flag(explain: Mapping[str, Any], name: str, default: bool) -> bool:
    value = explain.get(name, default)
    if not isinstance(value, bool):
        raise SettingsError(f"explain.{name} is {value!r}; true or false is allowed")
    return value


def _precision(value: Any) -> str:
    if not isinstance(value, str) or value not in PRECISIONS:
        raise SettingsError(f"explain.precision is {value!r}; allowed: {', '.join(PRECISIONS)}")
    return value


def _refuse_unsupported(config: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    pt2 = config.get("pt2")
    compiles = pt2.get("compile", pt2) if isinstance(pt2, dict) else pt2
    enabled = compiles.get("enable", True) if isinstance(compiles, dict) and compiles else bool(compiles)
    if enabled or (isinstance(pt2, dict) and "export" in pt2):
        raise SettingsError("pt2 is not supported: a compiled or exported model has no layers to explain; remove it")
    if environment.get("TS_IPEX_ENABLE", "false").lower() == "true":
        raise SettingsError("TS_IPEX_ENABLE=true is not supported: IPEX replaces the layers to explain; unset it")
    for key in ("continuousBatching", "asyncCommunication"):
        # TorchServe takes a text for false, where Python would take it for true.
        if not isinstance(config.get(key), (bool, type(None))):
            raise SettingsError(f"{key} is {config[key]!r}; true or false is allowed")
    if config.get("asyncCommunication"):
        raise SettingsError(
            "asyncCommunication: true is not supported (one worker death takes the model down); remove it"
        )
    if _section(config, "handler").get("profile"):
        raise SettingsError(
            "handler.profile: true is not supported: heatserve_stage_seconds times every stage already; remove it"
        )
    if config.get("continuousBatching"):
        _refuse_unsupported_in_continuous_batching(config)


def _refuse_unsupported_in_continuous_batching(config: Mapping[str, Any]) -> None:
    for key in ("minWorkers", "maxWorkers"):
        if key in config and whole(key, config[key]) > 1:
            raise SettingsError(
                f"{key} is {config[key]}; with continuousBatching: true one worker is allowed (two take turns to hold "
                "the queue, and requests stall); for more capacity serve the archive under more names"
            )
    for key in ("sequenceBatching", "sequenceMaxIdleMSec"):
        if config.get(key):
            raise SettingsError(f"{key} is not supported with continuousBatching: true; remove it")


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise SettingsError(f"{name} must be a block of keys, not {type(section).__name__}")
    return section


def _names(name: str, value: Any) -> tuple[str, ...]:
    if value is None or value == "auto":
        return ()
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) and item for item in names):
        raise SettingsError(f"{name} is {value!r}; the name of a layer or a list of names is allowed")
    return tuple(names)


def _modules(name: str, value: Any) -> tuple[str, ...]:
    modules = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) and all(part.isidentifier() for part in item.split(".")) for item in modules):
        raise SettingsError(f"{name} is {value!r}; a list of modules, as an import statement names them, is allowed")
    return tuple(modules)


def _consistent(limits: Limits) -> Limits:
    largest = WITH_BACKWARD * limits.max_samples + FORWARD
    if limits.max_batch_work < largest:
        raise SettingsError(
            f"explain.max_batch_work is {limits.max_batch_work}; at least {WITH_BACKWARD} x max_samples + {FORWARD} = "
            f"{largest} is allowed, or the largest request could never be served"
        )
    if limits.max_batch_decode_ms < limits.max_decode_ms:
        raise SettingsError(
            f"explain.max_batch_decode_ms is {limits.max_batch_decode_ms}; at least max_decode_ms = "
            f"{limits.max_decode_ms} is allowed, or the largest picture could never be served"
        )
    return limits
