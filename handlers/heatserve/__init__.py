"""heatserve serves image classifiers and shows which parts of a picture raised the score of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import (
        METHODS,
        Attribution,
        Explainer,
        InputSignal,
        LayerSignal,
        Method,
        Query,
        Sampling,
        ScoreSignal,
        UnsuitableModel,
        register,
        sample_seed,
    )

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "Attribution",
    "Explainer",
    "InputSignal",
    "LayerSignal",
    "Method",
    "Query",
    "Sampling",
    "ScoreSignal",
    "UnsuitableModel",
    "__version__",
    "register",
    "sample_seed",
]


def __getattr__(name: str) -> Any:
    """A name of the engine, imported when it is first asked for: `heatserve.client` runs where there is no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import engine

    return getattr(engine, name)
