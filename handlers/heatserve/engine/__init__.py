"""Model + image tensors + targets -> attribution maps. torch alone: knows neither HTTP nor pictures."""

from .errors import OutOfMemory, UnsuitableModel
from .explainer import Attribution, Explainer, Query, summary
from .methods import METHODS, Method
from .smoothing import Statistic

__all__ = [
    "METHODS",
    "Attribution",
    "Explainer",
    "Method",
    "OutOfMemory",
    "Query",
    "Statistic",
    "UnsuitableModel",
    "summary",
]
