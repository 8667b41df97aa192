"""The network and the picture of the examples, and maps of both by heatserve and by other libraries."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property

import captum.attr
import numpy as np
import pytorch_grad_cam
import torch
from torch import Tensor, nn
from torchcam import methods as torchcam

from devtools.bench.networks import NETWORKS, photograph
from heatserve.engine import Attribution, Explainer, Query
from heatserve.engine.sampling import Noise

#: The pooled layer, (1, 1280, 7, 7), and an earlier one behind a ReLU, (1, 672, 14, 14).
HEAD, MIDDLE = "_avg_pooling.0", "_blocks.10._project_conv.0"
#: A layer of 112 channels, for a method that takes a pass for each of them.
NARROW = "_blocks.10"
COPIES = 16
#: A function of one picture's scores, (classes), to a number.
Score = Callable[[Tensor], Tensor]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """`|ours - theirs| / |ours|` in the L2 norm, each map scaled to a maximum of 1."""
    one, other = (values.detach().double().squeeze() for values in (ours, theirs))
    one, other = one / one.amax(), other / other.amax()
    return float((one - other).norm() / one.norm())


def distance(ours: Tensor, theirs: Tensor) -> float:
    """`|ours - theirs| / |ours|` in the L2 norm, as they are: for attributions with both signs."""
    return float((ours - theirs).detach().norm() / ours.norm())


class Example:
    """EfficientNet-Lite0 with its trained weights, and the demonstration's cat."""

    def __init__(self) -> None:
        self.net = NETWORKS["lite0"].build().requires_grad_(False)
        for name in (HEAD, MIDDLE):  # a module of its own at each layer, which every library can hook
            parent, _, child = name.removesuffix(".0").rpartition(".")
            module = self.net.get_submodule(parent)
            setattr(module, child, nn.Sequential(nn.Identity(), getattr(module, child)))
        self.image = photograph()
        self.explainer = Explainer(self.net, self.image, layers=(HEAD, MIDDLE, NARROW))
        self.target = int(self.net(self.image).argmax())

    def ours(self, method: str, layer: str | None = HEAD, nearest: int | None = None) -> Tensor:
        """heatserve's map, (h, w)."""
        asked = Query(method, layer=layer, target=self.target, nearest=nearest)
        return self.explainer.run(self.image, [[asked]])[1][0][0].map

    def answer(self, method: str, layer: str | None = None, samples: int | None = None) -> Attribution:
        """heatserve's whole answer, with all of the method's samples where no number is given."""
        asked = Query(method, layer=layer, target=self.target, samples=samples)
        return self.explainer.explain(self.image, asked)[0]

    def path(self, points: int) -> Attribution:
        """heatserve's integrated gradients."""
        return self.answer("integrated_gradients", samples=points)

    def captum_path(self) -> Tensor:
        """Captum's integrated gradients of 50 points, (C, H, W)."""
        method = captum.attr.IntegratedGradients(self.net)
        found: Tensor = method.attribute(self.image, target=self.target, n_steps=50, internal_batch_size=1)
        return found[0].detach()

    def recorded(self, layer: str, score: Score | None = None) -> tuple[Tensor, Tensor]:
        """The activations of a layer, (1, K, h, w), and the gradients of a score in them.

        score: of one picture's scores, (classes); None for the target's.
        """
        taken: list[Tensor] = []
        handle = self.net.get_submodule(layer).register_forward_hook(lambda _module, _in, out: taken.append(out))
        scores = self.net(self.image.clone().requires_grad_())[0]
        handle.remove()
        [gradients] = torch.autograd.grad(score(scores) if score else scores[self.target], taken)
        return taken[0].detach(), gradients

    def pytorch_grad_cam(self, kind: str, layer: str, score: Score | None = None, factor: float = 1.0) -> Tensor:
        """The positive part of pytorch-grad-cam's map before its scaling, (1, h, w).

        score: one of its targets; None for the target's score.
        factor: it multiplies the activations.
        """
        activations, gradients = (values.numpy() for values in self.recorded(layer, score))
        module = self.net.get_submodule(layer)
        with getattr(pytorch_grad_cam, kind)(self.net, [module]) as one:
            found = one.get_cam_image(self.image, module, [self.target], activations * factor, gradients, False)
        return torch.from_numpy(np.asarray(found, np.float64)).relu()

    def nearest(self, count: int) -> list[int]:
        """The classes whose scores differ least from the target's."""
        scores = self.net(self.image)[0]
        return [*map(int, (scores - scores[self.target]).abs().argsort()[1 : count + 1])]

    def torch_cam(self, kind: str, layers: list[str], **told: float) -> list[Tensor]:
        """torch-cam's maps before their scaling, (1, h, w) for each layer."""
        with getattr(torchcam, kind)(self.net, layers, **told) as one:
            scores = self.net(self.image.clone().requires_grad_())
            found: list[Tensor] = one(self.target, scores, normalized=False)
        return found

    def torch_cam_fused(self, kind: str, layers: list[str]) -> Tensor:
        """torch-cam's maps of several layers, fused, (1, h, w)."""
        with getattr(torchcam, kind)(self.net, layers) as one:
            found: Tensor = one.fuse_cams(one(self.target, self.net(self.image.clone().requires_grad_())))
        return found

    def captum_gradcam(self, layer: str) -> Tensor:
        """Captum's LayerGradCam as it is without options, (1, 1, h, w)."""
        method = captum.attr.LayerGradCam(self.net, self.net.get_submodule(layer))
        found: Tensor = method.attribute(self.image, target=self.target)
        return found

    def gradients(self, images: Tensor) -> Tensor:
        """Captum's signed gradients of the target's score at each image, (N, C, H, W)."""
        saliency = captum.attr.Saliency(self.net)
        return torch.cat([saliency.attribute(x[None].requires_grad_(), target=self.target, abs=False) for x in images])

    @cached_property
    def copies(self) -> Tensor:
        """The gradients at heatserve's noisy copies, (COPIES, C, H, W)."""
        return self.gradients(Noise(self.image[0], 0.15, 0).draw(0, COPIES))

    def score_cam(self, align_corners: bool, probability: bool) -> Tensor:
        """Score-CAM by its formula, (h, w), at the narrow layer, with each mask scaled from 0 to 1."""
        taken = self.recorded(NARROW)[0][0]
        sized = nn.functional.interpolate(
            taken[:, None], self.image.shape[2:], mode="bilinear", align_corners=align_corners
        )
        low, high = sized.amin((2, 3), keepdim=True), sized.amax((2, 3), keepdim=True)
        masks = (sized - low) / (high - low).clamp_min(1e-12)
        with torch.no_grad():
            scores = torch.cat([self.net(self.image * some) for some in masks.chunk(7)])
        weights = (scores.softmax(1) if probability else scores)[:, self.target].softmax(0)
        return (weights[:, None, None] * taken).sum(0).relu()

    def guided(self) -> tuple[Tensor, Tensor]:
        """Captum's guided backpropagation, (1, C, H, W), and the same rule at every rectifier of the network."""
        image = self.image.clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Captum says that it sets hooks
            theirs: Tensor = captum.attr.GuidedBackprop(self.net).attribute(image, target=self.target)
        rectifiers = [module for module in self.net.modules() if isinstance(module, (nn.ReLU, nn.ReLU6))]
        hooks = [module.register_full_backward_hook(_positive) for module in rectifiers]
        [guided] = torch.autograd.grad(self.net(image)[0, self.target], image)
        for hook in hooks:
            hook.remove()
        return theirs, guided


def _positive(_module: nn.Module, to_input: tuple[Tensor, ...], _from_output: object) -> tuple[Tensor]:
    return (to_input[0].clamp_min(0),)
