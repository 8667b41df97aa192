"""The layouts of activations: found by changed pictures, refused where they are not shown, declared by an operator."""

import pytest
import torch
import torchvision
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from heatserve.engine import Explainer, Query, UnsuitableModel
from heatserve.engine.layout import Layout
from tests.engine.networks import distance, pictures, seeded
from tests.engine.transformers import CLASSES, PATCH, ViT, size_of

GRID = (4, 6)
IMAGES = pictures(2, size_of(GRID))


def vit(grid=GRID, seed=0, **options):
    return seeded(lambda: ViT(grid, **options), seed).eval()


def swin(size=24):
    build = torchvision.models.swin_transformer.SwinTransformer
    return seeded(lambda: build([4, 4], size, [2, 2], [2, 4], [4, 4], num_classes=CLASSES)).eval()


def grad_cam(net, layer, images, target, reshape):
    """pytorch-grad-cam's maps before it scales them."""
    module, chosen = net.get_submodule(layer), [ClassifierOutputTarget(target)] * len(images)
    with GradCAM(net, [module], reshape_transform=reshape) as method:
        method(images.clone().requires_grad_(), chosen)
        seen = method.activations_and_grads
        raw = method.get_cam_image(images, module, chosen, seen.activations[0].numpy(), seen.gradients[0].numpy())
    return torch.as_tensor(raw).relu()


def tokens_to_places(prefix, grid):
    return lambda x: x[:, prefix:].reshape(len(x), *grid, -1).permute(0, 3, 1, 2)


def maps(one, images, **query):
    return torch.stack([answer.values for answer in one.explain(images, Query(**query))])


# Written and read


@pytest.mark.parametrize("text", ["nchw", "nhwc", "tokens:0:7x7", "tokens:5:16x9"])
def test_a_layout_is_written_as_it_is_read_and_what_is_read_is_not_proved(text):
    layout = Layout.parse(text)
    assert str(layout) == text and not layout.proved


@pytest.mark.parametrize("text", ["", "NCHW", "windows", "tokens", "tokens:1:14", "tokens:-1:2x2", "tokens:0:0x3"])
def test_a_text_that_names_no_layout_is_refused(text):
    with pytest.raises(UnsuitableModel, match="tokens:PREFIX:HxW"):
        Layout.parse(text)


def test_maps_have_each_position_at_its_place():
    numbers = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    assert torch.equal(Layout("nchw").maps(numbers), numbers)
    assert torch.equal(Layout("nhwc").maps(numbers.permute(0, 2, 3, 1)), numbers)
    tokens = torch.cat([torch.full((2, 2, 3), -1.0), numbers.flatten(2).transpose(1, 2)], 1)
    assert torch.equal(Layout("tokens", 2, (4, 5)).maps(tokens), numbers)
    for wrong in (Layout("tokens", 1, (4, 5)), Layout("nchw")):
        with pytest.raises(ValueError, match=r"shape|axes"):
            wrong.maps(tokens)


# Channels last


def test_swins_channels_last_normalisation_gives_the_map_of_pytorch_grad_cam():
    images = pictures(2, (64, 96))
    one = Explainer(swin(), images, layers=("norm",))
    assert one.layout_of("norm") == Layout("nhwc")
    theirs = grad_cam(swin(), "norm", images, 3, lambda x: x.permute(0, 3, 1, 2))
    assert theirs.shape == (2, 8, 12) and theirs.max() > 0
    assert distance(maps(one, images, target=3), theirs) < 1e-4


def test_swin_t_as_it_is_gives_a_map_of_places(optimize):
    if optimize:
        return  # the layout is decided before a network is made faster
    one = Explainer(seeded(lambda: torchvision.models.swin_t(num_classes=CLASSES)), pictures(1, (224, 224)), ("norm",))
    assert str(one.layout_of("norm")) == "nhwc"
    assert maps(one, pictures(1, (224, 224)), target=1).shape == (1, 7, 7)


# Tokens


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (2, 2), (3, 5), (8, 8), (32, 32)])
def test_tokens_of_every_grid_and_prefix_are_found(grid, prefix):
    pool = "token" if prefix else "places"
    one = Explainer(vit(grid, prefix=prefix, pool=pool), pictures(2, size_of(grid)), layers=("blocks.2.norm1",))
    assert one.layout_of("blocks.2.norm1") == Layout("tokens", prefix, grid)


@pytest.mark.parametrize("sharpness", [0.3, 1, 3, 6])
@pytest.mark.parametrize("seed", [0, 1])
def test_tokens_are_found_however_sharp_attention_is(sharpness, seed):
    one = Explainer(vit((7, 9), seed, prefix=2, sharpness=sharpness), pictures(1, size_of((7, 9)), seed=seed))
    assert one.layer == "blocks.2.norm1" and str(one.layout_of(one.layer)) == "tokens:2:7x9"


def test_the_map_of_tokens_is_that_of_pytorch_grad_cam():
    one = Explainer(vit(prefix=3), IMAGES)
    theirs = grad_cam(vit(prefix=3), "blocks.2.norm1", IMAGES, 2, tokens_to_places(3, GRID))
    assert theirs.max() > 0 and distance(maps(one, IMAGES, target=2), theirs) < 1e-4


def test_a_change_in_one_patch_changes_the_map_most_at_its_place():
    """The planted block: no layout is assumed of it."""
    net, layer = vit(prefix=2), "blocks.2.norm1"
    one = Explainer(net, IMAGES, layers=(layer,))
    seen = []
    net.get_submodule(layer).register_forward_hook(lambda _m, _i, output: seen.append(output))
    for row, column in ((0, 0), (0, 5), (2, 1), (3, 4)):
        changed = IMAGES.clone()
        changed[:, :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] += 3
        seen.clear()
        with torch.no_grad():
            net(IMAGES), net(changed)
        answers = (one.layout_of(layer).maps(seen[1] - seen[0])).norm(dim=1)
        assert [divmod(int(place), GRID[1]) for place in answers.flatten(1).argmax(1)] == [(row, column)] * 2


SQUARE = (6, 6)
WRONG = {
    "reversed": lambda tokens: tokens.flip(1),
    "columns first": lambda tokens: tokens.unflatten(1, SQUARE).transpose(1, 2).flatten(1, 2),
    "rows upside down": lambda tokens: tokens.unflatten(1, SQUARE).flip(1).flatten(1, 2),
    "columns from the right": lambda tokens: tokens.unflatten(1, SQUARE).flip(2).flatten(1, 2),
    "one further": lambda tokens: tokens.roll(1, 1),
    "one row in two reversed": lambda tokens: torch.cat([tokens[:, :18], tokens[:, 18:].flip(1)], 1),
    "at random": lambda tokens: tokens[:, torch.randperm(36, generator=torch.Generator().manual_seed(3))],
    "in windows": lambda tokens: tokens.unflatten(1, (2, 3, 2, 3)).transpose(2, 3).flatten(1, 4),
}


@pytest.mark.parametrize("order", WRONG)
def test_tokens_in_another_order_than_the_pictures_are_refused(order):
    images = pictures(2, size_of(SQUARE))
    Explainer(vit(SQUARE), images, layers=("blocks.2.norm1",))
    with pytest.raises(UnsuitableModel, match=r"'blocks.2.norm1'.*is not shown to be \(tokens, K\) row by row"):
        Explainer(vit(SQUARE, order=WRONG[order]), images, layers=("blocks.2.norm1",))
    # Without a name no layer is taken, and methods of the input are answered.
    one = Explainer(vit(SQUARE, order=WRONG[order]), images)
    assert one.layers == () and one.explain(images, Query("gradient"))[0].map.shape == size_of(SQUARE)
    with pytest.raises(UnsuitableModel, match=r"name one with `layer` \(candidates: .*blocks.2.norm1"):
        one.check("gradcam")


@pytest.mark.parametrize("prefix", [1, 4])
def test_learned_tokens_behind_the_patches_are_not_taken_for_a_prefix(prefix):
    with pytest.raises(UnsuitableModel, match="is not shown"):
        Explainer(vit(SQUARE, prefix=prefix, behind=True), pictures(2, size_of(SQUARE)), layers=("blocks.2.norm1",))


def test_a_layer_of_a_class_token_alone_is_not_chosen():
    """The last block's output answers to the score at its class token alone."""
    one = Explainer(vit(), IMAGES)
    assert one.layer == "blocks.2.norm1"
    last = Explainer(vit(), IMAGES, layers=("blocks.2",))
    assert maps(last, IMAGES).abs().max() == 0


# A mean over tokens


@pytest.mark.parametrize(("pool", "prefix"), [("places", 0), ("places", 2), ("all", 2)])
def test_a_mean_over_tokens_and_one_linear_layer_have_a_closed_form(pool, prefix):
    one = Explainer(vit(prefix=prefix, pool=pool), IMAGES)
    assert one.layer == "norm" and one.head is not None
    assert one.head.prefix == (prefix if pool == "all" else 0)
    net = vit(prefix=prefix, pool=pool)
    theirs = grad_cam(net, "norm", IMAGES, 4, tokens_to_places(prefix, GRID))
    assert theirs.max() > 0 and distance(maps(one, IMAGES, target=4), theirs) < 1e-4
    seen = []
    net.norm.register_forward_hook(lambda _m, _i, output: seen.append(output))
    with torch.no_grad():
        net(IMAGES)
        expected = (seen[0] @ net.head.weight[4])[:, prefix:].view(2, *GRID)
    assert distance(maps(one, IMAGES, method="cam", target=4), expected) < 1e-4


# Declared


def test_a_declared_layout_is_used_and_is_not_proved():
    images = pictures(2, size_of(SQUARE))
    net = vit(SQUARE, order=WRONG["at random"])
    one = Explainer(net, images, layers=("blocks.2.norm1",), layout="tokens:1:6x6")
    assert one.layout_of("blocks.2.norm1") == Layout("tokens", 1, SQUARE, proved=False)
    assert maps(one, images, target=1).shape == (2, 6, 6)


@pytest.mark.parametrize("text", ["tokens:0:6x6", "tokens:1:6x5", "nchw", "nhwc"])
def test_a_declared_layout_of_another_shape_is_refused(text):
    with pytest.raises(UnsuitableModel, match="the declared layout does not fit"):
        Explainer(vit(SQUARE), pictures(1, size_of(SQUARE)), layers=("blocks.2.norm1",), layout=text)


def test_a_layout_that_is_declared_of_no_layer_is_refused():
    with pytest.raises(UnsuitableModel, match="declared of no layer"):
        Explainer(vit(SQUARE), pictures(1, size_of(SQUARE)), layout="tokens:1:6x6")


# Found without a name


class ConvolutionalHead(nn.Module):
    """A head that is a convolution instead of a linear layer, before or behind the pooling."""

    def __init__(self, before):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Conv2d(8, 12, 3, 2), nn.ReLU())
        self.pool, self.classifier, self.before = nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, CLASSES, 1), before

    def forward(self, x):
        x = self.features(x)
        x = self.pool(self.classifier(x)) if self.before else self.classifier(self.pool(x))
        return x.flatten(1)


@pytest.mark.parametrize("before", [True, False])
def test_a_map_of_class_scores_is_not_chosen_but_the_features_before_it(before):
    one = Explainer(seeded(lambda: ConvolutionalHead(before)), pictures(2))
    assert one.layer == "features" and str(one.layout_of("features")) == "nchw"
