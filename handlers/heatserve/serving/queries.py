"""A request's options as queries for the engine: one for each map."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ..engine import METHODS, Method, Query
from .errors import Refusal
from .options import MAX_TARGETS, OPTIONS
from .vocabulary import Vocabulary

_THRESHOLD = OPTIONS["threshold"].default


def queries(
    options: Mapping[str, Any],
    named: Collection[str],
    defaults: Mapping[str, Any],
    max_samples: int,
    vocabulary: Vocabulary,
    view: tuple[int, int],
) -> tuple[Query, ...]:
    """The queries of a request, in the order of its targets. Raises Refusal (400, 413).

    options: all of them by name, checked.
    named: the names of those that the client gave.
    defaults: the options that the archive changes. A default that has no meaning for this method is left out.
    view: (height, width) of the model's view.
    """
    method = METHODS[options["method"]]
    asked = _asked(options["target"], vocabulary)
    samples = _samples(method, options, len(asked), max_samples)
    layer = _layer(method, options["layer"], "layer" in named)
    _refuse_without_meaning(method, layer, options, defaults)
    contrast = options["contrast"]
    if isinstance(contrast, int) and contrast == options["target"]:
        raise Refusal(400, "contrast is the target itself, which leaves a score of 0: name another class")
    query = Query(
        method=method.name,
        least=options["threshold"] if options["target"] == "present" else None,
        contrast=contrast if isinstance(contrast, int) else None,
        nearest=int(contrast.removeprefix("nearest")) if isinstance(contrast, str) else None,
        layer=layer,
        samples=samples,
        noise_level=options["noise_level"],
        seed=options["seed"],
        standard_error=_standard_error(method, options, samples, defaults.get("standard_error")),
        resolution=_resolution(method, options, samples, defaults.get("resolution", 1), vocabulary, view),
    )
    if len(asked) * samples > max_samples:
        present = f"; target present counts as {len(asked)} targets" if query.least is not None else ""
        raise Refusal(413, f"targets x samples: at most {max_samples} are allowed here{present}")
    return tuple(replace(query, target=target, rank=rank) for target, rank in asked)


def _asked(target: int | str, vocabulary: Vocabulary) -> list[tuple[int | None, int]]:
    """The target and the rank of each map. One of them decides: the rank where the target is None."""
    if isinstance(target, int):
        return [(target, 0)]
    if target == "present" and vocabulary.single:
        return [(1, 0)]  # the absence of the label is no label
    most = min(MAX_TARGETS, vocabulary.classes)
    count = {"predicted": 1, "present": most}.get(target) or int(target.removeprefix("top"))
    return [(None, rank) for rank in range(count)]


def _layer(method: Method, layer: str | None, named: bool) -> str | None:
    """The layer that is asked for. The archive's own is left out where the method has none, or one of its own."""
    suits = method.signal == "layer" and not method.needs_linear_head
    return layer if named or suits else None


def _samples(method: Method, options: Mapping[str, Any], maps: int, most: int) -> int:
    """The samples of each map. If a standard error ends them, their number is the most that the archive allows."""
    samples: int | None = options["samples"]
    if samples is None:
        until = options["standard_error"] is not None and method.samples > 1 and method.drawn.random
        until = until and method.statistic != "derivatives"  # whose samples no error ends
        samples = most // maps if until else method.samples
        # Nobody named a number: it may be what the archive allows.
        if method.draws is not None or options["target"] == "present":
            samples = max(method.min_samples, min(samples, most // maps))
    if samples > most:
        raise Refusal(413, f"samples: at most {most} are allowed here")
    try:
        method.check_samples(samples)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    return samples


def _refuse_without_meaning(
    method: Method, layer: str | None, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Raises Refusal 400 for an option that has no meaning for the method.

    A method without draws of its own may be smoothed by noise, and ignores `noise_level` and `seed` where it is not.
    """
    if layer is not None and not method.of_layer:
        raise Refusal(400, f"layer has no meaning for {method.name}, which is a method of the {method.signal}")
    if layer is not None and "+" in layer and method.prepare is not None:
        raise Refusal(400, f"layer: {method.name} takes one layer, not several; gradcam fuses several")
    if layer is not None and method.needs_linear_head:
        raise Refusal(400, f"layer has no meaning for {method.name}, which takes the layer that the network pools")
    if options["target"] != "present" and options["threshold"] != defaults.get("threshold", _THRESHOLD):
        raise Refusal(400, "threshold has no meaning without target present")
    for name in ("noise_level", "seed"):
        changed = options[name] != defaults.get(name, OPTIONS[name].default)
        if changed and method.draws is not None and name not in method.draws.parameters:
            raise Refusal(400, f"{name} has no meaning for {method.name}, whose samples do not depend on it")
    noisy = "noise_level" in method.drawn.parameters
    if method.statistic == "variance" and noisy and options["noise_level"] == 0:
        raise Refusal(400, f"noise_level must be above 0 for {method.name}: equal copies have no variance")


def _standard_error(method: Method, options: Mapping[str, Any], samples: int, default: float | None) -> float | None:
    """The standard error that ends the samples of a map; None for a map that has none and a client that asks for none.

    default: the archive's.
    """
    error: float | None = options["standard_error"]
    if method.statistic == "derivatives" and error == default:
        return None  # it costs more passes than the map itself, so that the client must ask for it
    if error is None or (samples > 1 and method.drawn.random):
        return error
    if error == default:
        return None
    if samples == 1:
        raise Refusal(400, "standard_error belongs to smoothed maps: ask for samples too, as the most to take")
    raise Refusal(400, f"standard_error belongs to random samples, which {method.name} does not take")


def _resolution(
    method: Method,
    options: Mapping[str, Any],
    samples: int,
    default: int,
    vocabulary: Vocabulary,
    view: tuple[int, int],
) -> int:
    """The side of a map's blocks; 1 for a map that has none and a client that asks for none.

    default: the archive's.
    """
    side: int = options["resolution"]
    if side > min(view):
        raise Refusal(400, f"resolution must be at most {min(view)}, the shorter side of the model's view")
    if side == 1 or (samples > 1 and method.takes_blocks):
        return side
    if side == default:
        return 1
    if method.takes_blocks:
        raise Refusal(400, "resolution belongs to smoothed maps: ask for samples too")
    able = ", ".join(name for name in vocabulary.methods if METHODS[name].takes_blocks)
    raise Refusal(400, f"resolution has no meaning for {method.name}; it belongs to: {able or 'none with this model'}")
