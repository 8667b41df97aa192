"""Small vision transformers with random weights, and the attention that their own libraries give."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

from heatserve.engine import Explainer
from heatserve.engine.blocks import tokens_of

from .networks import pictures, seeded

CLASSES = 7
#: Prefix tokens, grid and the tokens that the classifier reads, as the architectures are documented.
EXPECTED = {
    "torchvision": (1, (3, 3), "class"),
    "timm": (1, (3, 5), "class"),
    "distilled": (2, (3, 5), "both"),
    "registers": (5, (3, 5), "class"),
    "beit": (1, (3, 5), "places"),
    "eva": (1, (3, 5), "places"),
    "huggingface_eager": (1, (3, 5), "class"),
    "huggingface_sdpa": (1, (3, 5), "class"),
    "dinov2": (1, (3, 5), None),
}
NAMES = tuple(EXPECTED)
_SMALL: dict[str, Any] = {"patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": CLASSES}
_WIDE = (48, 80)


class Logits(nn.Module):
    """A Hugging Face classifier that gives its scores alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(x).logits
        return scores


def size(name: str) -> tuple[int, int]:
    """The height and width of the network's pictures."""
    return (48, 48) if name == "torchvision" else _WIDE


def images(name: str, count: int, seed: int = 0) -> Tensor:
    return pictures(count, size(name), seed)


def _huggingface(attention: str) -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, image_size=_WIDE,
        patch_size=16, num_labels=CLASSES, attn_implementation=attention,
    )  # fmt: skip
    return Logits(transformers.ViTForImageClassification(config))


def _dinov2() -> nn.Module:
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=_WIDE[0], patch_size=16,
        num_labels=CLASSES,
    )  # fmt: skip
    return Logits(transformers.Dinov2ForImageClassification(config))


def _build(name: str) -> nn.Module:
    vit = timm.models.vision_transformer
    builders: dict[str, Any] = {
        "torchvision": lambda: torchvision.models.VisionTransformer(48, 16, 3, 4, 32, 64, num_classes=CLASSES),
        "timm": lambda: vit.VisionTransformer(_WIDE, **_SMALL),
        "distilled": lambda: timm.models.deit.VisionTransformerDistilled(img_size=_WIDE, **_SMALL),
        "registers": lambda: vit.VisionTransformer(_WIDE, reg_tokens=4, **_SMALL),
        "beit": lambda: timm.models.beit.Beit(_WIDE, use_rel_pos_bias=True, init_values=1.0, **_SMALL),
        "eva": lambda: timm.models.eva.Eva(_WIDE, use_rot_pos_emb=True, **_SMALL),
        "huggingface_eager": lambda: _huggingface("eager"),
        "huggingface_sdpa": lambda: _huggingface("sdpa"),
        "dinov2": _dinov2,
    }
    net: nn.Module = builders[name]()
    # Fresh transformers attend evenly, and some have classifiers of zeros: larger weights make every row its own.
    for weight in net.parameters():
        weight.data += (2.0 / weight.shape[-1] ** 0.5 if weight.ndim == 2 else 0.1) * torch.randn_like(weight)
    return net.eval().requires_grad_(False)


@cache
def _prototype(name: str) -> nn.Module:
    net: nn.Module = seeded(lambda: _build(name))
    return net


def network(name: str) -> nn.Module:
    """A fresh copy."""
    return copy.deepcopy(_prototype(name))


@cache
def explainer(name: str) -> Explainer:
    """Shared by tests, which leave it as they found it."""
    return Explainer(network(name), images(name, 2, seed=5), optimize=False)


def _as_timm(net: Any) -> nn.Module:
    """timm's transformer with the weights of torchvision's, which gives nobody its attention."""
    own = timm.models.vision_transformer.VisionTransformer(48, mlp_ratio=2, **_SMALL)
    renamed = {"class_token": "cls_token", "encoder.pos_embedding": "pos_embed"}
    parts = (
        ("conv_proj", "patch_embed.proj"), ("encoder.layers.encoder_layer_", "blocks."), ("ln_1", "norm1"),
        ("ln_2", "norm2"), ("self_attention.in_proj_", "attn.qkv."), ("self_attention.out_proj", "attn.proj"),
        ("mlp.0", "mlp.fc1"), ("mlp.3", "mlp.fc2"), ("encoder.ln", "norm"), ("heads.head", "head"),
    )  # fmt: skip
    state = {}
    for name, weight in net.state_dict().items():
        new = renamed.get(name, name)
        for one, other in parts:
            new = new.replace(one, other)
        state[new] = weight
    own.load_state_dict(state)
    return own.eval().requires_grad_(False)


def captured(name: str, image: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The attention of each block, each block's own scores, and the scores, in a graph that no engine touched.

    image: (1, C, H, W).

    Hugging Face gives attention and hidden states itself; timm's are taken by hooks with its fused attention off. A
    block's own scores are the library's norm and classifier on the mean of the tokens behind it.
    """
    net: Any = network(name)
    image = image.clone().requires_grad_()
    if isinstance(net, Logits):
        whole: Any = net.classifier
        whole.set_attn_implementation("eager")
        behind = []
        for layer in whole.vit.layers if hasattr(whole.vit, "layers") else whole.vit.encoder.layer:
            layer.register_forward_hook(lambda _m, _i, output: behind.append(tokens_of(output)))
        found = whole(image, output_attentions=True)
        own = [whole.classifier(whole.vit.layernorm(tokens.mean(1))) for tokens in behind]
        return list(found.attentions), own, found.logits
    net = _as_timm(net) if name == "torchvision" else net
    attentions: list[Tensor] = []
    behind: list[Tensor] = []
    for block in net.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, output: attentions.append(output))
        block.register_forward_hook(lambda _m, _i, output: behind.append(output))
    scores = net(image)
    return attentions, [_head(net, tokens.mean(1, keepdim=True)) for tokens in behind], scores


def _head(net: Any, token: Tensor) -> Tensor:
    """The scores of timm's last norm and classifiers for one token, (N, 1, K)."""
    if hasattr(net, "head_dist"):
        return (net.head(net.norm(token)) + net.head_dist(net.norm(token)))[:, 0] / 2
    return net.head((net.fc_norm if _normed_last(net) else net.norm)(token))[:, 0]


def _normed_last(net: Any) -> bool:
    """Whether timm's network has its last norm behind the pooling."""
    return isinstance(getattr(net, "norm", None), nn.Identity)
