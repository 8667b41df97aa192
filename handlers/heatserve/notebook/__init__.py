"""Explanations in a notebook: pictures go in, answers with probabilities, maps and overlays come out.

from heatserve.notebook import Classifier, layers_of

layers_of(model)
with Classifier(model, labels={0: "cat", 1: "dog"}) as classifier:
    answer = classifier.explain("photo.jpg", target="dog")
    answer.overlay()
"""

from .answer import Answer
from .classifier import Classifier
from .layers import Layer, layers_of

__all__ = ["Answer", "Classifier", "Layer", "layers_of"]
