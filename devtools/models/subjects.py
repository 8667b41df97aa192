"""The networks that are tried: every constructor of torchvision, one of each family of timm, eight of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 10
#: Constructors of torchvision that take no other size than their own, or see nothing at 224.
_TORCHVISION_SIZES = {"inception_v3": 299}
#: The vision parts of language models: a pass at their own size takes minutes. They are tried with fewer blocks and
#: smaller pictures, which changes nothing in the way in which they are built.
_TIMM_SHORTENED = {
    "deepseek_vit": ("deepseek_vit_412m", 224),
    "gemma4_vit": ("gemma4_vit_167m", 192),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", 224),
    "qwen3_vit": ("qwen3_vit_88m", 224),
}
_BLOCKS = 4


@dataclass(frozen=True)
class Subject:
    """A network to try.

    library: "torchvision", "timm" or "transformers".
    family: the module or architecture that it belongs to.
    constructor: its name in the library.
    size: (H, W) of its pictures.
    build: gives the network with random weights.
    """

    library: str
    family: str
    constructor: str
    size: tuple[int, int]
    build: Callable[[], nn.Module]

    @property
    def name(self) -> str:
        """The name by which it is chosen and kept."""
        return f"{self.library}/{self.family}/{self.constructor}"


class Logits(nn.Module):
    """A network of transformers whose answer is its logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """(N, classes)."""
        logits: Tensor = self.net(pixel_values=images).logits
        return logits


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """The network that `build` gives with a fixed seed, in evaluation mode.

    Weights that a new network has at 0, as those of many a head, are drawn too: a score must depend on the picture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build()
        for module in net.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and not module.weight.any():
                nn.init.normal_(module.weight, std=0.05)
        return net.eval()


def torchvision_subjects() -> Iterator[Subject]:
    """Every constructor of torchvision's classifiers."""
    import torchvision

    for name in torchvision.models.list_models(module=torchvision.models):
        side = _TORCHVISION_SIZES.get(name, 224)
        # Weights by torchvision's own initialisation of these take minutes.
        options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        family = torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]

        def build(name: str = name, options: dict[str, Any] = options) -> nn.Module:
            net: nn.Module = torchvision.models.get_model(name, num_classes=CLASSES, **options)
            return net

        yield Subject("torchvision", family, name, (side, side), build)


def timm_subjects(known: dict[str, str]) -> Iterator[Subject]:
    """The smallest constructor of each family of timm: by the size of its pictures, then by its parameters.

    known: constructors by family that an earlier run has found; new ones are added.
    """
    import timm

    for family in timm.list_modules():
        names = timm.list_models(module=family)
        if not names:
            continue
        options: dict[str, Any] = {}
        if family in _TIMM_SHORTENED:
            known[family], side = _TIMM_SHORTENED[family]
            size, options = (side, side), {"depth": _BLOCKS}
        elif known.get(family) not in names:
            known[family] = _smallest(names)
        name = known[family]
        if not options:
            size = tuple(timm.models.get_pretrained_cfg(name).input_size[1:])

        def build(name: str = name, options: dict[str, Any] = options) -> nn.Module:
            net: nn.Module = timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)
            return net

        yield Subject("timm", family, name, size, build)


def _smallest(names: list[str]) -> str:
    import timm

    sizes = {name: timm.models.get_pretrained_cfg(name) for name in names}
    pixels = {name: cfg.input_size[1] * cfg.input_size[2] for name, cfg in sizes.items() if cfg is not None}
    fewest = min(pixels.values())
    return min((name for name, count in pixels.items() if count == fewest), key=_parameters)


def _parameters(name: str) -> float:
    import timm

    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name, num_classes=CLASSES).parameters())
    except Exception:  # a network that computes on its weights while it is built needs real ones
        try:
            return sum(parameter.numel() for parameter in timm.create_model(name, num_classes=CLASSES).parameters())
        except Exception:
            return float("inf")


def transformers_subjects() -> Iterator[Subject]:
    """Eight architectures of transformers in small configurations."""
    import transformers as hf

    vit = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 64,
        "patch_size": 8,
        "num_labels": CLASSES,
    }
    stages: dict[str, Any] = {"num_labels": CLASSES, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
    swin: dict[str, Any] = {"image_size": 64, "patch_size": 4, "embed_dim": 24, "depths": [1, 2], "num_heads": [2, 4]}
    mobile: dict[str, Any] = {
        "image_size": 64,
        "num_labels": CLASSES,
        "hidden_sizes": [24, 32, 40],
        "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 96],
        "num_attention_heads": 2,
        "initializer_range": 0.2,  # with less its random weights let no gradient through
    }
    for family, config, model in (
        ("ViT", hf.ViTConfig(**vit), hf.ViTForImageClassification),
        ("DeiT", hf.DeiTConfig(**vit), hf.DeiTForImageClassification),
        ("Swin", hf.SwinConfig(**swin, window_size=4, num_labels=CLASSES), hf.SwinForImageClassification),
        ("ConvNeXt", hf.ConvNextConfig(**stages), hf.ConvNextForImageClassification),
        ("ResNet", hf.ResNetConfig(**stages, embedding_size=8), hf.ResNetForImageClassification),
        ("BEiT", hf.BeitConfig(**vit), hf.BeitForImageClassification),
        ("DINOv2", hf.Dinov2Config(**{**vit, "mlp_ratio": 2}), hf.Dinov2ForImageClassification),
        ("MobileViT", hf.MobileViTConfig(**mobile), hf.MobileViTForImageClassification),
    ):

        def build(model: Any = model, config: Any = config) -> nn.Module:
            return Logits(model(config))

        yield Subject("transformers", family, model.__name__, (64, 64), build)
