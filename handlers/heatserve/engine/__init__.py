"""The engine: a model, image tensors and targets become attribution maps. It needs torch alone.

It knows neither HTTP nor pictures.
"""

from .activation import ACTIVATIONS, probabilities
from .candidates import Candidate, try_candidates
from .captum_bridge import CAPTUM, register_captum
from .errors import OutOfMemory, UnsuitableModel, is_device_lost, is_out_of_memory
from .explainer import Explainer
from .layout import Layout
from .method import AttentionSignal, InputSignal, LayerSignal, Method, ScoreSignal
from .optimize import OPTIMIZE, Optimize
from .precision import PRECISIONS
from .presence import explained_class
from .price import FORWARD, WITH_BACKWARD
from .query import Attribution, Query
from .ranking import nearest, ranking
from .registry import METHODS, ExtensionError, load_installed, load_modules, register
from .sampling import Draws, Sampling, sample_seed
from .sharing import alike, price_of, work_of
from .smoothdiff import Explanation, begun, derivative_bytes
from .smoothing import Smoothing
from .taps import activations
from .transfer import on_host
from .trial import try_added
from .warm import warm

__all__ = [
    "ACTIVATIONS",
    "CAPTUM",
    "FORWARD",
    "METHODS",
    "OPTIMIZE",
    "PRECISIONS",
    "WITH_BACKWARD",
    "AttentionSignal",
    "Attribution",
    "Candidate",
    "Draws",
    "Explainer",
    "Explanation",
    "ExtensionError",
    "InputSignal",
    "LayerSignal",
    "Layout",
    "Method",
    "Optimize",
    "OutOfMemory",
    "Query",
    "Sampling",
    "ScoreSignal",
    "Smoothing",
    "UnsuitableModel",
    "activations",
    "alike",
    "begun",
    "derivative_bytes",
    "explained_class",
    "is_device_lost",
    "is_out_of_memory",
    "load_installed",
    "load_modules",
    "nearest",
    "on_host",
    "price_of",
    "probabilities",
    "ranking",
    "register",
    "register_captum",
    "sample_seed",
    "try_added",
    "try_candidates",
    "warm",
    "work_of",
]
