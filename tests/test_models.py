"""A short slice of `python -m devtools.models`: small networks of three libraries, against pytorch-grad-cam."""

import json

import pytest
import torch

from devtools.models.__main__ import KEPT, PAGE
from devtools.models.page import page
from devtools.models.subjects import CLASSES, Subject, transformers_subjects
from devtools.models.trial import Outcome, grad_cam, pictures, try_subject

TIMM = {
    "test_vit": ("blocks.5.norm1", "tokens:1:10x10"),
    "test_byobnet": ("final_conv", "nchw"),
    "test_resnet": ("layer4", "nchw"),
}
TRANSFORMERS = {
    "ViT": ("net.vit.layers.2.layernorm_before", "tokens:1:8x8"),
    "DeiT": ("net.deit.layers.2.layernorm_before", "tokens:2:8x8"),
    "Swin": ("net.swin.layernorm", "tokens:0:8x8"),
    "ConvNeXt": ("net.convnext.encoder.stages.3", "nchw"),
    "ResNet": ("net.resnet.encoder.stages.3", "nchw"),
    "BEiT": ("net.beit.layers.2.layernorm_before", "tokens:1:8x8"),
    "DINOv2": ("net.dinov2.encoder.layer.2.norm1", "tokens:1:8x8"),
    "MobileViT": ("net.mobilevit.conv_1x1_exp", "nchw"),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", TIMM)
def test_small_networks_of_timm_are_served_by_themselves(name):
    timm = pytest.importorskip("timm")
    build = lambda: timm.create_model(name, num_classes=CLASSES)  # noqa: E731
    size = timm.models.get_pretrained_cfg(name).input_size[1:]
    outcome = try_subject(Subject("timm", "test", name, tuple(size), build))
    assert outcome.sentence == "" and (outcome.layer, outcome.layout) == TIMM[name]


def test_a_network_whose_last_norms_have_a_gradient_at_the_class_token_alone_takes_an_earlier_norm():
    """CoaT of timm: its parallel blocks end in three norms each, of which the class tokens are read."""
    coat = pytest.importorskip("timm.models.coat")
    widths = {"embed_dims": (32,) * 4, "serial_depths": (1,) * 4, "mlp_ratios": (2,) * 4, "num_heads": 8}
    build = lambda: coat.CoaT(64, 4, parallel_depth=1, num_classes=CLASSES, **widths)  # noqa: E731
    outcome = try_subject(Subject("timm", "coat", "small", (64, 64), build))
    assert outcome.sentence == "" and (outcome.layer, outcome.layout) == ("parallel_blocks.0.norm14", "tokens:1:2x2")


def test_small_networks_of_transformers_are_served_by_themselves():
    pytest.importorskip("transformers")
    outcomes = {subject.family: try_subject(subject) for subject in transformers_subjects()}
    assert {name: outcome.sentence for name, outcome in outcomes.items()} == dict.fromkeys(TRANSFORMERS, "")
    assert {name: (outcome.layer, outcome.layout) for name, outcome in outcomes.items()} == TRANSFORMERS


def test_the_comparison_sees_a_prefix_that_is_off_by_one_and_swapped_rows_and_columns():
    pytest.importorskip("transformers")
    vit = next(transformers_subjects())
    net, images = vit.build().eval(), pictures(1, (64, 48))
    for part in net.modules():
        if hasattr(part, "image_size"):
            part.image_size = (64, 48)
    net.net.vit.embeddings.position_embeddings.data = net.net.vit.embeddings.position_embeddings.data[:, :49]
    layer = "net.vit.layers.2.layernorm_before"
    right = grad_cam(net, layer, "tokens:1:8x6", images, [1])
    assert right.max() > 0
    swapped = grad_cam(net, layer, "tokens:1:6x8", images, [1])
    assert swapped.shape != right.shape and not torch.allclose(swapped.transpose(1, 2), right)
    with pytest.raises(RuntimeError):
        grad_cam(net, layer, "tokens:0:8x6", images, [1])


def test_the_page_gives_the_layer_of_a_network_or_the_sentence_that_was_printed():
    text = page(
        [
            Outcome("timm", "vit", "tiny", "blocks.1.norm1", "tokens:1:2x2", True, 1e-7),
            Outcome("timm", "odd", "odd_1", sentence="no layer"),
        ]
    )
    assert "1 of 2 networks" in text
    assert "| vit | `tiny` | `blocks.1.norm1` | `tokens:1:2x2` | 1e-07 |" in text
    assert "| odd | `odd_1` | no layer | | |" in text


def test_the_page_is_written_from_the_outcomes_that_are_kept():
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    outcomes = [Outcome(**outcome) for _, outcome in sorted(kept["outcomes"].items())]
    assert PAGE.read_text(encoding="utf-8") == page(outcomes)
