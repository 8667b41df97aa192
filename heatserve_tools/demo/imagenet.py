"""The thousand classes of ImageNet, as torchvision names them."""

from __future__ import annotations


def labels() -> list[str]:
    """The class names in the order of a model's outputs."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return list(_IMAGENET_CATEGORIES)
