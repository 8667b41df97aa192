"""The same answers on a CUDA device, without waiting for it more than a chunk needs."""

import warnings

import pytest
import torch

from heatserve.engine import Explainer, Query
from tests.engine.networks import (
    LAYERS,
    LINEAR_HEADS,
    NAMES,
    captum_gradcam,
    captum_gradient,
    distance,
    network,
    oracle,
    pictures,
)

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def full_precision():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def on_device(name, **options):
    return Explainer(network(name).cuda(), pictures(2, seed=5).cuda(), layers=LAYERS[name], **options)


@pytest.mark.parametrize("name", NAMES)
def test_maps_on_the_device_equal_the_librarys_on_the_cpu(name):
    images = pictures(3)
    one = on_device(name)
    cam = "cam" if name in LINEAR_HEADS else "gradcam"
    queries = [[Query("gradient", target=1)], [Query(target=2), Query(target=3, layer=LAYERS[name][1])], [Query(cam)]]
    logits, answers = one.run(images.cuda(), queries)
    with torch.no_grad():
        assert distance(logits.cpu(), oracle(name)(images)) < 1e-3
    assert answers[0][0].values.is_cuda
    assert distance(answers[0][0].values.cpu(), captum_gradient(oracle(name), images[:1], 1)[0]) < 1e-3
    assert distance(answers[1][0].values.cpu(), captum_gradcam(name, images[1:2], 2)[0]) < 1e-3
    earlier = captum_gradcam(name, images[1:2], 3, layer=LAYERS[name][1])[0]
    assert distance(answers[1][1].values.cpu(), earlier) < 1e-3


def test_the_same_copies_give_the_same_mean():
    from heatserve.engine.smoothing import Noise

    image = pictures(1)
    copies = Noise(image[0].cuda(), 0.15, 3).draw(0, 12).cpu()
    (answer,) = on_device("resnet18").explain(image.cuda(), Query("smoothgrad", target=1, samples=12, seed=3))
    assert distance(answer.values.cpu(), captum_gradient(oracle("resnet18"), copies, 1).mean(0)) < 1e-3


def waits(one, samples, chunk):
    """How often the host waited for the device in one smoothing."""
    image = pictures(1)[0].cuda()
    one.chunk = chunk
    steps = one.smooth(image, Query("smoothgrad", target=1, samples=samples))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in steps:
                pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)


def test_the_host_waits_no_more_for_a_large_chunk_than_for_a_small_one():
    one = on_device("in_place")
    waits(one, 8, 4)  # the first run may wait for libraries to load
    few, many = waits(one, 2, 2), waits(one, 32, 32)
    assert many == few
    # Targets and rows are small tables that go to the device; nothing comes back.
    assert many <= 4


def test_a_chunk_is_sized_to_the_device_and_a_smoothings_memory_does_not_grow_with_its_samples():
    one = on_device("resnet18")
    assert 1 <= one.chunk <= 64
    peaks = []
    one.chunk = 4
    for samples in (8, 8, 64):
        torch.cuda.reset_peak_memory_stats()
        one.explain(pictures(1).cuda(), Query("smoothgrad", target=1, samples=samples))
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] <= peaks[1] * 1.01
