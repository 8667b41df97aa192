"""The registry: every method by its name. Installed packages and modules of an archive may add to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module, metadata
from types import MappingProxyType
from typing import Any

from .method import Method
from .methods import BUILT_IN
from .rules import RULES

#: The group of entry points by which an installed package names a module that registers methods.
GROUP = "heatserve.methods"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
#: The names of the bridge to Captum (`engine.captum_bridge`), whose methods have a signal of their own.
_BRIDGED = re.compile(r"captum:[A-Za-z]{1,40}")
#: The fields of a row that must be one of a few words.
_WORDS = {
    "signal": ("layer", "input", "score", "attention", "model"),
    "statistic": ("mean", "mean_square", "variance", "covariance", "combined", "derivatives"),
    "display": ("maximum", "percentile"),
    "rule": RULES,
}
#: The members that draws must have (`sampling.Draws`), and those that a statistic needs beside them.
_MEMBERS = ("of", "draw", "weigh", "random", "parameters")
_MEMBERS_FOR = {"covariance": ("masks", "mean_mask"), "combined": ("combine",)}
_methods: dict[str, Method] = {}

#: Every method by its name: read-only, and live.
METHODS: Mapping[str, Method] = MappingProxyType(_methods)


class ExtensionError(ValueError):
    """A module that should bring methods cannot be loaded, or a method of one fails; the message says which and why."""


def _answers_at_once(row: Method) -> bool:
    """Whether one pass of the image answers a method, so that it may be a factor of another."""
    return not row.factors and row.draws is None and row.samples == 1 and row.statistic == "mean"


def register(method: Method) -> Method:
    """Adds a method to the registry, and gives it back.

    Raises ValueError for a name that is taken, and for a row that no query could be answered by.
    """
    bridged = method.signal == "model"
    if not (_BRIDGED if bridged else _NAME).fullmatch(method.name):
        raise ValueError(
            f"a method cannot be named {method.name!r}: lower case letters, digits and underscores are allowed, "
            "50 at most, a letter first" + ("; the signal of the model is for the bridge to Captum" if bridged else "")
        )
    if method.name == "describe":
        raise ValueError(
            "a method cannot be named 'describe': a request with that word in its path asks for the description of the "
            "archive"
        )
    if method.name in _methods:
        raise ValueError(
            f"there is a method {method.name!r} already ({_methods[method.name].source}); choose a new name"
        )
    for field, words in _WORDS.items():
        if getattr(method, field) not in words:
            raise ValueError(f"method {method.name!r}: {field} must be one of: {', '.join(filter(None, words))}")
    if method.rule and method.signal != "input":
        raise ValueError(f"method {method.name!r}: a rule of the backward pass belongs to a method of the input")
    rows = [_methods.get(name) for name in method.factors]
    if not all(row and _answers_at_once(row) for row in rows) or (method.factors and method.draws is not None):
        raise ValueError(
            f"method {method.name!r}: factors are methods that are there, without factors, draws or samples"
        )
    if not 1 <= method.min_samples <= method.samples:
        raise ValueError(f"method {method.name!r}: samples must be at least min_samples, and that at least 1")
    if method.signal == "score" and method.draws is None:
        raise ValueError(f"method {method.name!r}: a score has no map; a method of the score needs draws that weigh it")
    members = (*_MEMBERS, *_MEMBERS_FOR.get(method.statistic, ()))
    missing = [member for member in members if method.draws is not None and not hasattr(method.draws, member)]
    if missing:
        raise ValueError(f"method {method.name!r}: its draws must have {', '.join(missing)}")
    if method.signal != "score" and (method.statistic in _MEMBERS_FOR or method.prepare is not None):
        raise ValueError(f"method {method.name!r}: {method.statistic} and prepare belong to a method of the score")
    if method.statistic == "derivatives" and (method.signal != "input" or method.draws is not None or method.rule):
        raise ValueError(f"method {method.name!r}: derivatives belong to a method of the input, by noisy copies alone")
    if method.layerwise and not (method.signal == "attention" and method.needs_backward):
        raise ValueError(f"method {method.name!r}: layerwise belongs to a method of attention with a backward pass")
    if not method.needs_backward and (method.signal not in ("layer", "attention") or method.needs_linear_head):
        raise ValueError(
            f"method {method.name!r}: needs_backward=False belongs to a method of activations or of attention"
        )
    if method.needs_linear_head and method.signal != "layer":
        raise ValueError(f"method {method.name!r}: needs_linear_head belongs to a method of a layer")
    _methods[method.name] = method
    return method


def load_modules(names: Sequence[str]) -> None:
    """Imports modules that call `register`, by their names; a module that was imported before is left alone.

    Raises ExtensionError for one that fails.
    """
    for name in names:
        _load(f"module {name!r}", partial(import_module, name))


def load_installed() -> None:
    """Loads every method that installed packages bring, by the entry points of the group `heatserve.methods`.

    An entry point names a module that calls `register`. Loading again changes nothing. Raises ExtensionError for one
    that fails.
    """
    for entry in _entry_points():
        _load(f"entry point {entry.name!r} of the group {GROUP}", entry.load)


def _entry_points() -> Sequence[Any]:
    found: Any = metadata.entry_points()
    # Python 3.9 has a dictionary of groups here.
    return tuple(found.select(group=GROUP) if hasattr(found, "select") else found.get(GROUP, ()))


def _load(source: str, load: Callable[[], object]) -> None:
    """Loads all methods of a source, or none."""
    before = dict(_methods)
    try:
        load()
    except BaseException as error:  # a module may do anything when it is imported, even call sys.exit()
        _methods.clear()
        _methods.update(before)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ExtensionError(f"{source} brings no methods: {type(error).__name__}: {error}") from error


for _row in BUILT_IN:
    register(_row)
