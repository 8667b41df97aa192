"""Model + image tensors + targets -> attribution maps. torch alone: knows neither HTTP nor pictures."""

from .errors import OutOfMemory, UnsuitableModel, is_device_lost, is_out_of_memory
from .explainer import Explainer
from .methods import METHODS, Method
from .query import Attribution, Query
from .recorded import PRECISIONS
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
]
