"""How far libraries differ from heatserve where they choose otherwise.

`python -m devtools.differences` prints the table of docs/methods.md. The network is EfficientNet-Lite0 with its
ImageNet weights, the picture is the demo's cat, and the class is the predicted one.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
from captum.attr import GuidedBackprop, IntegratedGradients, LayerAttribution
from torch import Tensor

from devtools.bench.networks import NETWORKS, photograph
from heatserve.engine import Attribution, Explainer, Query


def differences() -> Iterator[tuple[str, str]]:
    """Each choice with the relative L2 distance of the other choice's map."""
    image, net = photograph(), NETWORKS["lite0"].build().eval().requires_grad_(False)
    one = Explainer(NETWORKS["lite0"].build(), image)
    logits, _ = one.run(image, [[]])
    target = int(logits.argmax())

    def ours(method: str, samples: int | None = None) -> Attribution:
        return one.explain(image, Query(method, target=target, samples=samples))[0]

    path, method = ours("integrated_gradients"), IntegratedGradients(net)
    legendre = method.attribute(image, target=target, n_steps=50, internal_batch_size=1)
    yield (
        "integrated gradients, 50 points: Captum's default rule, gausslegendre",
        _far(legendre[0].detach(), path.values),
    )
    trapezoid = method.attribute(image, target=target, n_steps=50, method="riemann_trapezoid", internal_batch_size=1)
    yield "integrated gradients, 50 points: Captum's riemann_trapezoid", _far(trapezoid[0].detach(), path.values)
    many = ours("integrated_gradients", 200)
    yield "integrated gradients: 50 points in place of 200", _far(path.values, many.values)
    errors = " and ".join(f"{found.facts['completeness_error']:.3f}" for found in (path, many))
    yield "`completeness_error` at 50 and at 200 points", errors
    guided = ours("guided_backpropagation")
    plain = GuidedBackprop(net).attribute(image.clone().requires_grad_(), target=target)[0].detach()
    yield "guided backpropagation: Captum's, which leaves a ReLU6 as it is", _far(plain, guided.values)
    yield "guided backpropagation: the ordinary gradient in its place", _far(ours("gradient").values, guided.values)
    cam = ours("gradcam").values[None, None]
    nearest = guided.values * LayerAttribution.interpolate(cam, image.shape[2:], "nearest")[0]
    yield "guided Grad-CAM: Captum's default enlargement, nearest", _far(nearest, ours("guided_gradcam").values)


def _far(found: Tensor, known: Tensor) -> str:
    return f"{float((found - known).norm() / known.norm()):.3f}"


@click.command()
def main() -> None:
    """Print how far libraries differ from heatserve where they choose otherwise."""
    print("| choice | relative distance |\n|---|---|")
    for choice, distance in differences():
        print(f"| {choice} | {distance} |")


if __name__ == "__main__":
    main()
