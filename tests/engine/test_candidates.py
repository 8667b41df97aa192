"""The trial of layers that a user could name: against the explainer that names each, and against PyTorch's hooks."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from heatserve.engine import Candidate, Explainer, UnsuitableModel, try_candidates


class Scattered(nn.Module):
    """Its middle layers are one that no score depends on, and one whose rows are all alike."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.idle = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.alike, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 3, padding=1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.first(x)
        self.idle(found)
        rows = self.alike(found.mean(2, keepdim=True).expand_as(found))
        return self.fc(self.last(found.relu() + rows).relu().mean((2, 3)))


def resnet() -> nn.Module:
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)


def transformer() -> nn.Module:
    model = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # torchvision starts it at 0, which lets no gradient through
    return model


LAYERS = {
    resnet: ["layer4", "layer3.0.conv2", "layer1", "conv1"],
    transformer: ["encoder.layers.encoder_layer_2.ln_1", "encoder.layers.encoder_layer_1", "encoder", "encoder.ln"],
    Scattered: ["first", "idle", "alike", "last"],
}


def made(make: type) -> tuple[nn.Module, Tensor, list[Candidate]]:
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    size = 64 if make is resnet else 32
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return model, example, try_candidates(model, example, LAYERS[make])


@pytest.mark.parametrize("make", LAYERS)
def test_a_layer_is_refused_where_the_explainer_refuses_it_by_name(make: type) -> None:
    model, example, candidates = made(make)
    for candidate in candidates:
        try:
            explainer = Explainer(model, example, [candidate.name], chunk=1)
        except UnsuitableModel as error:
            assert candidate.refused.split("(")[0] == str(error).split("(")[0]
        else:
            assert candidate.refused == "" and candidate.layout == explainer.layout_of(candidate.name)
            explainer.close()
    assert [one.name for one in candidates] == LAYERS[make]


@pytest.mark.parametrize("make", LAYERS)
def test_the_shape_and_the_gradient_are_those_that_hooks_of_pytorch_see(make: type) -> None:
    model, example, candidates = made(make)
    for candidate in candidates:
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(output.detach().requires_grad_())
            return seen[0]

        handle = model.get_submodule(candidate.name).register_forward_hook(keep)
        scores = model(example[:1])
        handle.remove()
        assert candidate.shape == tuple(seen[0].shape[1:])
        if candidate.layout is None or candidate.refused:
            assert not candidate.reached
            continue
        (gradient,) = torch.autograd.grad((scores * torch.tensor([1.0, 2, 4, 8, 16])[: scores.shape[1]]).sum(), seen)
        places = gradient[:, candidate.layout.prefix :] if candidate.layout.kind == "tokens" else gradient
        assert candidate.reached == bool(places.abs().max() > 0)


def test_the_end_of_a_vision_transformer_has_places_that_no_gradient_reaches() -> None:
    _, _, candidates = made(transformer)
    reached = {one.name: one.reached for one in candidates}
    assert not reached["encoder"] and not reached["encoder.ln"]
    assert reached["encoder.layers.encoder_layer_2.ln_1"]


def test_one_layer_that_cannot_be_recorded_does_not_hide_the_others() -> None:
    model, example, _ = made(Scattered)
    found = try_candidates(model, example, ["first", "nowhere", "last"])
    assert "no module 'nowhere'" in found[1].refused and found[1].shape == ()
    assert [one.layout is not None for one in found] == [True, False, True]
