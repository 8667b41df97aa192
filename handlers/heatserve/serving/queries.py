"""A request's options as queries for the engine: one for each map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..engine import METHODS, Method, Query
from .errors import Refusal
from .options import OPTIONS


def queries(options: Mapping[str, Any], defaults: Mapping[str, Any], max_samples: int) -> tuple[Query, ...]:
    """The queries of a request, in the order of its targets. Raises Refusal (400, 413).

    options: all of them by name, checked.
    defaults: the options that the archive changes. A default that has no meaning for this method is left out.
    """
    method = METHODS[options["method"]]
    target = options["target"]
    ranks = range(int(target[3:])) if str(target).startswith("top") else range(1)
    samples = _samples(method, options, len(ranks), max_samples)
    _refuse_without_meaning(method, options, defaults)
    query = Query(
        method=method.name,
        target=target if isinstance(target, int) else None,
        contrast=options["contrast"],
        layer=options["layer"],
        samples=samples,
        noise_level=options["noise_level"],
        seed=options["seed"],
        standard_error=_standard_error(method, options, samples, defaults.get("standard_error")),
    )
    if len(ranks) * samples > max_samples:
        raise Refusal(413, f"targets x samples: at most {max_samples} are allowed here")
    return tuple(replace(query, rank=rank) for rank in ranks)


def _samples(method: Method, options: Mapping[str, Any], maps: int, most: int) -> int:
    """The samples of each map. If a standard error ends them, their number is the most that the archive allows."""
    samples: int | None = options["samples"]
    if samples is None:
        until = options["standard_error"] is not None and method.samples > 1 and method.drawn.random
        samples = most // maps if until else method.samples
        if method.draws is not None:  # nobody named a number: it may be what the archive allows
            samples = max(method.min_samples, min(samples, most // maps))
    if samples > most:
        raise Refusal(413, f"samples: at most {most} are allowed here")
    try:
        method.check_samples(samples)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    return samples


def _refuse_without_meaning(method: Method, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises Refusal 400 for an option that has no meaning for the method.

    A method without draws of its own may be smoothed by noise, and ignores `noise_level` and `seed` where it is not.
    """
    if options["layer"] is not None and not method.of_layer:
        raise Refusal(400, f"layer has no meaning for {method.name}, which is a method of the {method.signal}")
    if options["layer"] is not None and method.needs_linear_head:
        raise Refusal(400, f"layer has no meaning for {method.name}, which takes the layer that the network pools")
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
    if error is None or (samples > 1 and method.drawn.random):
        return error
    if error == default:
        return None
    if samples == 1:
        raise Refusal(400, "standard_error belongs to smoothed maps: ask for samples too, as the most to take")
    raise Refusal(400, f"standard_error belongs to random samples, which {method.name} does not take")
