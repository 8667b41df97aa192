"""An archive's settings, from its model-config.yaml. An operator may tighten the limits by environment variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..engine import ACTIVATIONS, CAPTUM, FORWARD, OPTIMIZE, PRECISIONS, WITH_BACKWARD, Optimize
from ..imaging import MAX_DECODE_MS, Preprocess
from . import typos
from .options import OPTIONS
from .pool import read_threads
from .unsupported import refuse_unsupported
from .values import SettingsError as SettingsError
from .values import one_of, section, whole
from .view import read_view

ENVIRONMENT_PREFIX = "HEATSERVE_"
#: The settings that say how the network is read.
_OF_NETWORK = ("layer", "activation", "head", "layout")
#: The settings of the way in which a worker works.
_OF_WORKER = ("extensions", "captum", "chunk", "optimize", "precision", "picture_threads", "grpc_stream")


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
    layers: those to tap, the default ones first; empty for the automatic choice.
    extensions: modules of the archive that are imported at start, and may register methods.
    captum: attributions of Captum that become methods, names in CAPTUM.
    chunk: draws in one forward pass; None for automatic.
    optimize: how the network is made faster at load: a member of OPTIMIZE (`engine.optimize`).
    precision: of the passes of draws.
    activation: the function that makes answers of the network's scores.
    head: the output that has the scores, where the network gives several; None where it need not be named.
    layout: of the layers' activations, declared in place of a proof; None where it is proved.
    continuous: whether new rows come in between two steps (TorchServe's `continuousBatching`).
    picture_threads: that decode pictures and draw answers beside the network; None for automatic.
    grpc_stream: whether a gRPC row that asks for `stream` gets parts. It is for trusted clients alone: a unary call
    that asks for a stream blocks the model until the server is started again.
    """

    limits: Limits = field(default_factory=Limits)
    preprocess: Preprocess = field(default_factory=Preprocess)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    layers: Sequence[str] = ()
    extensions: Sequence[str] = ()
    captum: Sequence[str] = ()
    chunk: int | None = None
    optimize: Optimize = True
    precision: str = "float32"
    activation: str = "softmax"
    head: str | None = None
    layout: str | None = None
    continuous: bool = False
    picture_threads: int | None = None
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
    refuse_unsupported(config, environment)
    explain = section(config, "explain")
    default_names = [name for name, option in OPTIONS.items() if option.set_by_archive]
    allowed = [
        *default_names,
        *_OF_NETWORK,
        *_OF_WORKER,
        *limit_names,
    ]
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
        preprocess=read_view(section(config, "preprocess"), consistent.max_resized_pixels),
        defaults=_defaults(explain, default_names),
        layers=_layers(explain),
        extensions=_modules("explain.extensions", explain.get("extensions")),
        captum=_captum(explain.get("captum")),
        chunk=whole("explain.chunk", explain["chunk"]) if "chunk" in explain else None,
        optimize=_optimize(explain),
        precision=one_of(explain, "precision", PRECISIONS, Settings.precision),
        activation=one_of(explain, "activation", ACTIVATIONS, Settings.activation),
        head=_head(explain.get("head")),
        layout=_layout(explain),
        continuous=bool(config.get("continuousBatching")),
        picture_threads=read_threads(explain, environment),
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


def _optimize(explain: Mapping[str, Any]) -> Optimize:
    value = explain.get("optimize", Settings.optimize)
    if isinstance(value, (bool, str)) and value in OPTIMIZE:
        return value
    raise SettingsError(f"explain.optimize is {value!r}; true, packed, folded or false is allowed")


def _head(value: Any) -> str | None:
    """The name or the number of one of the network's outputs, as text."""
    if value is None or (isinstance(value, str) and value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    raise SettingsError(
        f"explain.head is {value!r}; the name of one of the network's outputs, or its number, is allowed"
    )


def _layout(explain: Mapping[str, Any]) -> str | None:
    """A declared layout. It is of the layers that the archive names."""
    value = explain.get("layout")
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise SettingsError(f"explain.layout is {value!r}; nchw, nhwc or tokens:PREFIX:HxW is allowed")
    if not _layers(explain):
        raise SettingsError("explain.layout is the layout of the layers that explain.layer names; name one there too")
    return value


def _defaults(explain: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The options that the archive changes. A layer is one of them where it is several that are fused."""
    first = _names("explain.layer", explain.get("layer"))[:1]
    fused = {"layer": first[0]} if first and "+" in first[0] else {}
    return {**{name: explain[name] for name in names if name in explain}, **fused}


def _layers(explain: Mapping[str, Any]) -> tuple[str, ...]:
    """The layers to tap, each once."""
    names = _names("explain.layer", explain.get("layer"))
    return tuple(dict.fromkeys(part for name in names for part in name.split("+")))


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


def _captum(value: Any) -> tuple[str, ...]:
    names = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name in CAPTUM for name in names):
        raise SettingsError(f"explain.captum is {value!r}; a list is allowed, of: {', '.join(CAPTUM)}")
    return tuple(dict.fromkeys(names))


def _consistent(limits: Limits) -> Limits:
    largest = WITH_BACKWARD * limits.max_samples + FORWARD
    if limits.max_batch_work < largest:
        raise SettingsError(
            f"explain.max_batch_work is {limits.max_batch_work}; at least {WITH_BACKWARD} x max_samples + {FORWARD} = "
            f"{largest} is allowed, or a gradient of max_samples could never be served"
        )
    if limits.max_batch_decode_ms < limits.max_decode_ms:
        raise SettingsError(
            f"explain.max_batch_decode_ms is {limits.max_batch_decode_ms}; at least max_decode_ms = "
            f"{limits.max_decode_ms} is allowed, or the largest picture could never be served"
        )
    return limits
