"""heatserve: ask any prediction where it looked, at about the price of the prediction itself."""

from .engine import METHODS, Attribution, Explainer, Query, UnsuitableModel

__version__ = "0.1.0"
__all__ = ["METHODS", "Attribution", "Explainer", "Query", "UnsuitableModel", "__version__"]
