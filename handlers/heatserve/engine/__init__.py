"""Model + image tensors + targets -> attribution maps. torch alone: knows neither HTTP nor pictures."""

from .errors import OutOfMemory, UnsuitableModel, is_device_lost, is_out_of_memory
from .explainer import Explainer
from .methods import METHODS, Method
from .precision import PRECISIONS
from .query import Attribution, Query
from .ranking import ranking
from .smoothing import Smoothing

__all__ = [
    "METHODS",
    "PRECISIONS",
    "Attribution",
    "Explainer",
    "Method",
    "OutOfMemory",
    "Query",
    "Smoothing",
    "UnsuitableModel",
    "is_device_lost",
    "is_out_of_memory",
    "ranking",
]
