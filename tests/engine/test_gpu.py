"""The same answers on a CUDA device, without waiting for it more than a chunk needs."""

import warnings

import pytest
import torch

from heatserve.engine import Explainer, Query, on_host, warm
from heatserve.engine import noise as noises
from heatserve.engine.precision import tensor_float
from heatserve.engine.sizes import SIZES
from heatserve.engine.steps import finish
from tests.engine.networks import (
    LAYERS,
    LINEAR_HEADS,
    NAMES,
    captum_gradcam,
    captum_gradient,
    distance,
    explainer,
    network,
    oracle,
    pictures,
)

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def full_precision():
    with tensor_float(False):
        yield


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
    from heatserve.engine.sampling import Noise

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
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in steps:
                pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


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


def test_every_method_on_the_device_equals_itself_on_the_cpu():
    here, there = explainer("resnet18"), on_device("resnet18")
    images = pictures(4, seed=7)
    queries = [[Query(method, rank=rank) for method in ("gradcam", "cam", "gradient")] for rank in range(4)]
    (logits, expected), (found_logits, found) = here.run(images, queries), there.run(images.cuda(), queries)
    assert distance(found_logits.cpu(), logits) < 1e-3
    for row, other in zip(expected, found):
        for answer, again in zip(row, other):
            assert again.query == answer.query
            assert distance(again.values.cpu(), answer.values) < 1e-3


@pytest.mark.parametrize(("precision", "far"), [("tf32", 0.25), ("bfloat16", 0.6), ("float16", 0.25)])
def test_a_lower_precision_changes_a_smoothed_map_little(precision, far):
    image, query = pictures(1).cuda(), Query("smoothgrad", target=1, samples=12, seed=3)
    (exact,) = on_device("resnet18").explain(image, query)
    (found,) = on_device("resnet18", precision=precision).explain(image, query)
    assert found.values.dtype == torch.float32
    assert (found.values - exact.values).norm() < far * exact.values.norm()


def test_predictions_keep_the_mode_of_the_process_and_name_it():
    one = on_device("resnet18", precision="tf32")
    assert (one.precision, one.prediction_precision) == ("tf32", "float32")
    with tensor_float(True):
        assert one.prediction_precision == "tf32"


def test_a_run_with_given_targets_never_waits_for_the_device():
    one, images = on_device("resnet18"), pictures(4).cuda()
    queries = [
        [Query(target=1), Query("cam", target=2, contrast=5)],
        [],
        [Query("gradient", target=3)],
        [Query(target=4, layer=LAYERS["resnet18"][1])],
    ]
    one.run(images, queries)  # the first run may wait for libraries to load
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        one.run(images, queries)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_chunk_grows_with_the_free_memory_within_bounds(monkeypatch):
    chunks = []
    for free in (1, 10**12):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _=None, free=free: (free, free))
        chunks.append(on_device("in_place").chunk)
    assert chunks[0] == 1 < chunks[1] <= 64


def test_a_batch_that_the_device_cannot_hold_is_halved_and_its_answers_are_the_same():
    one, images = on_device("resnet18"), pictures(64, size=(224, 224)).cuda()

    def explained(rows):
        """The maps of so many rows on the host, and the bytes that the allocator took for them."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _, answers = one.run(images[:rows], [[Query("gradient", target=1)]] * rows)
        return torch.stack([row[0].values.cpu() for row in answers]), torch.cuda.max_memory_reserved()

    explained(8)  # what libraries keep for themselves is taken at the first run
    (_, few), (expected, many) = explained(8), explained(64)
    assert one.fallbacks == 0
    total = torch.cuda.get_device_properties(one.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((few + many) / 2 / total)
    try:
        found, _ = explained(64)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert one.fallbacks >= 1
    assert distance(found, expected) < 1e-3


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_captured_passes_are_proved_and_give_the_eager_mean(name, precision):
    image, query = pictures(2, seed=5)[:1].cuda(), Query("smoothgrad", target=1, samples=13, seed=3)
    eager, captured = (on_device(name, precision=precision, chunk=8) for _ in range(2))
    assert warm(eager, image, capture=False) == warm(captured, image) == [1, 2, 4, 8]
    assert captured.captured.sizes == (1, 2, 4, 8), captured.captured.reason
    (known,), (found,) = eager.explain(image, query), captured.explain(image, query)
    assert distance(found.values, known.values) < 1e-4
    other = pictures(1, seed=9).cuda()
    (known,), (found,) = eager.explain(other, query), captured.explain(other, query)
    assert distance(found.values, known.values) < 1e-4


def test_captured_passes_keep_the_rows_of_several_pictures_apart():
    images = pictures(3).cuda()
    one = on_device("resnet18", chunk=16)
    warm(one, images[:1])
    queries = [Query("smoothgrad", target=t, samples=n, seed=t) for t, n in ((1, 2), (4, 5), (3, 4))]
    smoothings = [one.begin(image, query) for image, query in zip(images, queries)]
    finish(one.advance([(each, each.left) for each in smoothings]))
    from heatserve.engine.sampling import Noise

    for image, query, smoothing in zip(images, queries, smoothings):
        copies = Noise(image, 0.15, query.seed).draw(0, query.count).cpu()
        mean = captum_gradient(oracle("resnet18"), copies, query.target).mean(0)
        assert distance(smoothing.estimate().values.cpu(), mean) < 1e-3


def test_a_captured_chunk_never_waits_for_the_device():
    one, images = on_device("resnet18", chunk=8), pictures(2).cuda()
    warm(one, images[:1])
    smoothings = [one.begin(image, Query("smoothgrad", target=1, samples=30)) for image in images]
    finish(one.advance([(each, 3) for each in smoothings]))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        finish(one.advance([(each, 3) for each in smoothings]))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_passes_of_draws_have_fixed_sizes():
    one, rows = on_device("resnet18", chunk=50), []
    assert one.sizes == SIZES and one.chunk == 32
    handle = one.model.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    one.explain(pictures(1).cuda(), Query("smoothgrad", target=1, samples=45))
    handle.remove()
    assert rows[-2:] == [32, 16]


def test_a_prediction_in_the_urgent_stream_is_the_same_and_its_memory_is_used_in_order():
    one, images = on_device("resnet18"), pictures(8).cuda()
    known = one.run(images, [[Query(target=1)]] * 8)
    for _ in range(20):
        with one.launches.urgent():
            found = one.run(images.clone(), [[Query(target=1)]] * 8)
        moved, (scores,) = on_host([row[0] for row in found[1]], found[0])
        torch.empty_like(images).fill_(torch.nan)
        assert distance(scores, known[0].cpu()) < 1e-5
        assert distance(moved[7].values, known[1][7][0].values.cpu()) < 1e-5


@pytest.mark.skipif(not hasattr(torch.ops.aten, "_philox_normal_"), reason="this torch does not draw by keys")
def test_noise_by_keys_is_normal_and_the_same_in_any_chunk():
    device = torch.device("cuda", 0)
    assert noises.noise_generator(device) == noises.BY_KEY
    like, seeds = torch.empty(0, device=device), [*range(10, 60)]
    whole = noises.normal(seeds, (3, 224, 224), like)
    assert torch.equal(noises.normal(seeds[7:9], (3, 224, 224), like), whole[7:9])
    assert abs(float(whole.mean())) < 1e-3 and abs(float(whole.std()) - 1) < 1e-3
