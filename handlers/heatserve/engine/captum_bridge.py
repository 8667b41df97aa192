"""The bridge to Captum: attributions of Captum as methods named `captum:<Attribution>`, where Captum is installed.

Captum is imported when the first one is registered, and nowhere else. An attribution that hooks modules gets a copy of
the modules, which shares the weights: the network that answers the other requests is never hooked by Captum.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .captum_checks import WAY_OUT, check_functions, check_rectifiers, refuse_sealed_modules
from .errors import UnsuitableModel, is_device_lost, is_out_of_memory
from .method import Method, ModelSignal
from .methods.gradients import strongest_channel, summed
from .registry import METHODS, ExtensionError, register
from .wave import subtracted

_PREFIX = "captum:"
_PATH_POINTS, _PATH_CHUNK = 50, 10


@dataclass(frozen=True)
class _Attribution:
    """An attribution of Captum.

    summary, source: as of a method.
    reduce: from one attribution to a map.
    passes: forward and backward passes that one takes, an upper bound.
    hooks: whether it hooks the network's modules.
    signed: whether the map's negative part has a meaning.
    options: of `attribute`.
    caveat: as of a method.
    """

    summary: str
    source: str
    reduce: Callable[[Tensor], Tensor] = strongest_channel
    passes: int = 1
    hooks: bool = False
    signed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    caveat: str = ""


_RANDOMISATION = "It fails the usual randomisation tests: it resembles the picture whatever the class is."
_PATH = {"n_steps": _PATH_POINTS, "internal_batch_size": _PATH_CHUNK}
_ATTRIBUTIONS: Mapping[str, _Attribution] = {
    "Saliency": _Attribution("absolute gradient", "Simonyan et al. 2013"),
    "InputXGradient": _Attribution("input times gradient, signed", "Shrikumar et al. 2016", summed, signed=True),
    "IntegratedGradients": _Attribution(
        "gradients along the path from 0, signed",
        "Sundararajan et al. 2017",
        summed,
        _PATH_POINTS,
        signed=True,
        options=_PATH,
    ),
    "DeepLift": _Attribution(
        "parts of the score's difference to that of 0, by the rescale rule, signed",
        "Shrikumar et al. 2017",
        summed,
        3,
        hooks=True,
        signed=True,
        caveat="With max pooling its parts may not add up to the score's difference: they did not for VGG-11.",
    ),
    "GuidedBackprop": _Attribution(
        "gradient whose negative part every ReLU module holds back",
        "Springenberg et al. 2015",
        hooks=True,
        caveat=_RANDOMISATION,
    ),
    "Deconvolution": _Attribution(
        "positive part of what comes back at every ReLU module",
        "Zeiler and Fergus 2014",
        hooks=True,
        caveat=_RANDOMISATION,
    ),
}

#: The names that `register_captum` and `explain.captum` allow.
CAPTUM = (*_ATTRIBUTIONS,)


def register_captum(name: str) -> Method:
    """Registers Captum's attribution `name` as the method `captum:<name>`, and gives the method back.

    Registering again changes nothing. Raises ValueError for a name that is not in CAPTUM, and ExtensionError where
    Captum cannot be imported.
    """
    if name not in _ATTRIBUTIONS:
        raise ValueError(f"{name!r} is not one of Captum's attributions that are allowed: {', '.join(CAPTUM)}")
    _captum()
    if _PREFIX + name in METHODS:
        return METHODS[_PREFIX + name]
    row = _ATTRIBUTIONS[name]
    return register(
        Method(
            name=_PREFIX + name,
            summary=f"{row.summary}, as Captum computes it",
            source=row.source,
            signal="model",
            attribute=partial(_attributions, name),
            reduce=row.reduce,
            signed=row.signed,
            passes=row.passes,
            definition=f"captum.attr.{name}",
            reference=f"Captum {name}",
            caveat=row.caveat,
        )
    )


def _captum() -> Any:
    """Captum's module of attributions. Raises ExtensionError where it cannot be imported."""
    try:
        import captum.attr
    except ImportError as error:
        raise ExtensionError(
            f"Captum cannot be imported here ({str(error).partition(chr(10))[0]}): run `pip install captum` on the "
            "server, in the environment of its Python"
        ) from error
    return captum.attr


class Explained(nn.Module):
    """A network whose answer is the explained score of each image, (N): the target's, less the contrasts' mean.

    contrasts: (m), -1 for none.
    """

    def __init__(self, network: nn.Module, target: int, contrasts: Tensor) -> None:
        super().__init__()
        self.network, self.target, self.contrasts = network, target, contrasts

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images.clone())  # it may work in place on its input
        others = self.contrasts.expand(len(scores), -1)
        return scores[:, self.target] - subtracted(scores[:, self.contrasts.clamp_min(0)], others)


def _attributions(name: str, signal: ModelSignal) -> Tensor:
    """Captum's attributions, (N, C, H, W), one image after the other. Raises UnsuitableModel where one fails."""
    try:
        model = _copied(signal.model, name) if _ATTRIBUTIONS[name].hooks else signal.model
        rows = zip(signal.inputs, signal.targets.tolist(), signal.contrasts.clone())
        found = [_attribution(name, Explained(model, target, others), image[None]) for image, target, others in rows]
    except Exception as error:
        if isinstance(error, UnsuitableModel) or is_out_of_memory(error) or is_device_lost(error):
            raise
        text = str(error).partition("\n")[0]
        raise UnsuitableModel(
            f"Captum's {name} fails on this network ({type(error).__name__}: {text}); {WAY_OUT}"
        ) from error
    return torch.cat(found)


def _attribution(name: str, explained: Explained, image: Tensor) -> Tensor:
    image = image.clone()  # an inference tensor becomes one that may have a gradient
    if name == "DeepLift":
        check_functions(explained.network, image)
    elif _ATTRIBUTIONS[name].hooks:
        check_rectifiers(name, explained.network, image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum announces its hooks each time
        found: Tensor = getattr(_captum(), name)(explained).attribute(image.clone(), **_ATTRIBUTIONS[name].options)
    return found.detach().float()


def _copied(model: nn.Module, name: str) -> nn.Module:
    """A copy of a model's modules that shares its weights. Raises UnsuitableModel for modules that take no hooks."""
    refuse_sealed_modules(model, name)
    return deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
