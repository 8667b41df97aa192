"""The transformer in a network is found by changed pictures, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heatserve.engine import Explainer, Query, UnsuitableModel
from heatserve.engine.attention import Attentions
from heatserve.engine.transformer import find_transformer
from tests.engine import vits
from tests.engine.networks import pictures, seeded, small

pytestmark = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])
IMAGES = pictures(2, (64, 64))


class Block(nn.Module):
    """Attention and an MLP, each with a residual; torch's own attention gives its weights or keeps them."""

    def __init__(self, weights: bool = False, then: nn.Module | None = None, in_place: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2))
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32))
        self.then = then or nn.Identity()
        self.weights, self.in_place = weights, in_place
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        found, weights = self.attention(y, y, y, need_weights=self.weights, average_attn_weights=False)
        if self.weights:
            self.seen.append(weights)
        x = x.add_(found) if self.in_place else x + found
        mixed: Tensor = self.then(x + self.mlp(self.norms[1](x)))
        return mixed


class Small(nn.Module):
    """Patches in some order, a class token, two blocks, a norm and a classifier."""

    def __init__(
        self, block: Callable[[], nn.Module] = Block, order: Callable[[Tensor], Tensor] = lambda maps: maps.flatten(2)
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.positions = nn.Parameter(torch.randn(1, 17, 32))
        self.blocks = nn.ModuleList(block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 6)
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.order(self.patches(x)).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(self.norm(x)[:, 0])
        return scores


class ConvolvesTokens(nn.Module):
    """A depthwise convolution over the grid, as some transformers have in their blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(32, 32, 3, 1, 1, groups=32)

    def forward(self, x: Tensor) -> Tensor:
        maps = x[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        return torch.cat([x[:, :1], x[:, 1:] + self.convolution(maps).flatten(2).transpose(1, 2)], 1)


def built(**options: Any) -> nn.Module:
    net: nn.Module = seeded(lambda: Small(**options))
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("weights", [False, True], ids=["fused", "need_weights"])
def test_torchs_own_attention_is_recorded_as_the_weights_that_it_gives(weights: bool) -> None:
    net = built(block=lambda: Block(weights))
    with torch.no_grad(), Attentions(graph=False) as attentions:
        scores = net(IMAGES)
    torch.testing.assert_close(scores, net(IMAGES))
    gives = built(block=lambda: Block(True))
    gives(IMAGES)
    for block, found in zip(gives.blocks, attentions.matrices):  # type: ignore[arg-type]
        torch.testing.assert_close(found, block.seen[0])


def test_torchs_own_encoder_which_fuses_whole_layers_is_recorded_too() -> None:
    net = built(block=lambda: nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, norm_first=True))
    found = find_transformer(net, IMAGES)
    assert (found.count, found.prefix, found.grid, found.readers) == (2, 1, (4, 4), (0,))


@pytest.mark.parametrize("masked", [None, "bool", "added", "causal"])
@pytest.mark.parametrize("keys", [4, 2], ids=["heads", "grouped"])
def test_attention_step_by_step_equals_the_fused_one(masked: str | None, keys: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn((2, heads, 5, 8), generator=generator) for heads in (4, keys, keys))
    mask = torch.randn((2, 1, 5, 5), generator=generator)
    options: dict[str, Any] = {
        "attn_mask": {"bool": (mask > 0) | torch.eye(5, dtype=torch.bool), "added": mask}.get(masked or ""),
        "is_causal": masked == "causal",
        "scale": 0.3,
        "enable_gqa": keys != 4,
    }
    wanted = F.scaled_dot_product_attention(query, key, value, **options)
    with Attentions(graph=False) as attentions:
        found = F.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(attentions.matrices[0].sum(-1), torch.ones(2, 4, 5))


def test_a_softmax_that_multiplies_no_values_is_no_attention() -> None:
    with Attentions(graph=False) as attentions:
        (torch.randn(2, 4, 5, 5).softmax(-1) * 2).sum()
    assert attentions.matrices == ()


def test_a_block_that_works_in_place_on_its_tokens_changes_no_map() -> None:
    query = [[Query("legrad", target=1)]]
    plain, other = (
        Explainer(built(block=lambda at=at: Block(in_place=at)), IMAGES).run(IMAGES[:1], query)[1][0][0].values
        for at in (False, True)
    )
    torch.testing.assert_close(plain, other)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (lambda: built(order=lambda maps: maps.flatten(2).flip(2)), "no place of the picture"),
        (lambda: built(order=lambda maps: maps.transpose(2, 3).flatten(2)), "no place of the picture"),
        (lambda: built(block=lambda: Block(then=ConvolvesTokens())), "mix tokens in another way"),
        (lambda: small(), "no attention that was seen"),
        (
            lambda: timm.models.swin_transformer.SwinTransformer(
                64, 4, depths=(1, 1), num_heads=(2, 2), embed_dim=8, window_size=4, num_classes=6
            ),
            "not between the same tokens",
        ),
    ],
    ids=["reversed", "column by column", "convolution in a block", "no transformer", "windows"],
)
def test_attention_that_cannot_be_placed_is_refused_with_the_reason(net: Callable[[], nn.Module], reason: str) -> None:
    explainer = Explainer(net().eval(), IMAGES)
    for method in ("legrad", "attention_relevance", "attention_rollout"):
        assert method not in explainer.methods()
        with pytest.raises(UnsuitableModel, match=f"{method} is not possible: .*{reason}.*; use gradient"):
            explainer.check(method)


@pytest.mark.parametrize("name", ["timm", "huggingface_eager"])
def test_nothing_of_the_search_stays_on_the_network(name: str) -> None:
    net = vits.network(name)
    find_transformer(net, vits.images(name, 1))
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)


def test_a_layer_whose_declared_layout_has_other_places_than_the_attention_rules_attention_out() -> None:
    explainer = Explainer(built(), IMAGES, ["norm"], layout="tokens:1:2x8")
    with pytest.raises(
        UnsuitableModel, match=r"1 tokens before a grid .4, 4., and the layout of a layer is tokens:1:2x8"
    ):
        explainer.check("legrad")


def test_a_scripted_network_has_no_attention_that_can_be_seen() -> None:
    explainer = Explainer(torch.jit.script(small()), IMAGES)
    with pytest.raises(UnsuitableModel, match="attention_rollout is not possible: the network comes from TorchScript"):
        explainer.check("attention_rollout")
