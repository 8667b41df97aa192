"""Smoothing: which copies are drawn, what is made of them, and how large the Monte-Carlo error is."""

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn
from zennit.attribution import SmoothGrad

from heatserve.engine import Explainer, Query, Smoothing
from heatserve.engine.sampling import Noise, sample_seed
from heatserve.engine.smoothing import FEWEST
from tests.engine.networks import (
    LAYERS,
    LINEAR_HEADS,
    NAMES,
    captum_gradcam,
    captum_gradient,
    distance,
    explainer,
    oracle,
    pictures,
    small,
    weights_times_activations,
)
from tests.engine.test_statistics import squared_errors_of_variance

IMAGE = pictures(1, (24, 36), seed=8)
LEVEL = 0.15
SIGMA = LEVEL * float(np.ptp(IMAGE.numpy()))


@cache
def small_explainer():
    return Explainer(small(), IMAGE, chunk=50)


def answer(method="smoothgrad", one=None, image=IMAGE, **query):
    (given,) = (one or small_explainer()).explain(image, Query(method, **{"target": 2, **query}))
    return given


def relative(value, error):
    """The relative error without the noise that the value's own size holds."""
    return np.linalg.norm(error) / max(np.sum(value**2) - np.sum(error**2), 0) ** 0.5


def copies(image, samples, seed, level=LEVEL):
    return Noise(image[0], level, seed).draw(0, samples)


# What is computed of the copies


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "densenet121", "mobilenet_v3_small", "in_place"])
def test_smoothgrad_is_the_mean_of_captums_gradients_at_the_same_copies(name):
    # In float64: six samples show it where rounding moves a pre-activation across a kink.
    image = pictures(1).double()
    theirs = captum_gradient(oracle(name, torch.float64), copies(image, 6, seed=3), 1).mean(0)
    ours = answer(one=explainer(name, torch.float64), image=image, target=1, samples=6, seed=3)
    assert distance(ours.values.double(), theirs) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_smoothed_gradcam_is_the_mean_of_captums_maps_at_the_same_copies(name):
    image = pictures(1).double()
    noisy, filled = copies(image, 5, seed=3), 0
    for target, layer in ((1, LAYERS[name][0]), (6, LAYERS[name][1])):
        theirs = captum_gradcam(name, noisy, target, layer=layer)
        filled += int((theirs.amax((1, 2)) > 0).sum())
        one = explainer(name, torch.float64)
        ours = answer("gradcam", one, image, target=target, layer=layer, samples=5, seed=3)
        assert distance(ours.values.double(), theirs.mean(0)) < 1e-6
    assert filled > 0


@pytest.mark.parametrize("name", LINEAR_HEADS)
def test_smoothed_cam_is_the_mean_of_weights_times_activations(name):
    image = pictures(1)
    theirs = weights_times_activations(name, copies(image, 5, seed=3), 4, 0).mean(0)
    ours = answer("cam", explainer(name), image, target=4, contrast=0, samples=5, seed=3)
    assert distance(ours.values, theirs) < 2e-4


@pytest.mark.parametrize("contrast", [None, 4])
def test_the_statistics_are_numpys_over_captums_gradients(contrast):
    samples = 23
    theirs = captum_gradient(small(), copies(IMAGE, samples, seed=7), 2, contrast).double().numpy()
    expected = {
        "smoothgrad": (theirs.mean(0), theirs.std(0, ddof=1) / samples**0.5),
        "smoothgrad_squared": ((theirs**2).mean(0), (theirs**2).std(0, ddof=1) / samples**0.5),
        "vargrad": (theirs.var(0), squared_errors_of_variance(theirs) ** 0.5),
    }
    for method, (value, error) in expected.items():
        ours = answer(method, contrast=contrast, samples=samples, seed=7)
        assert distance(ours.values, torch.tensor(value).float()) < 1e-4, method
        assert distance(ours.standard_error, torch.tensor(error).float()) < 1e-4, method
        np.testing.assert_allclose(ours.relative_error, relative(value, error), rtol=1e-4)
        np.testing.assert_allclose(ours.map, np.abs(value).max(0), atol=1e-4 * np.abs(value).max())


@pytest.mark.parametrize(
    ("method", "kind"), [("smoothgrad", "smoothgrad"), ("smoothgrad_squared", "smoothgrad_sq"), ("vargrad", "vargrad")]
)
def test_with_noise_of_its_own_captums_noise_tunnel_agrees_within_the_standard_errors(method, kind):
    """Two independent estimates: z = difference / (error * sqrt 2) has a mean square near 1 (pixels are correlated)."""
    samples = 400
    net = small()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = NoiseTunnel(Saliency(net)).attribute(
            IMAGE, nt_type=kind, nt_samples=samples, stdevs=SIGMA, target=2, abs=False, nt_samples_batch_size=50
        )[0].detach()  # fmt: skip
    ours = answer(method, samples=samples, seed=1)
    z = (ours.values - theirs) / (ours.standard_error * 2**0.5)
    z = z[ours.standard_error > 1e-3 * ours.standard_error.max()]
    assert z.abs().max() < 6
    assert 0.5 < z.square().mean() < 2


def test_zennits_smoothgrad_agrees_within_the_standard_errors():
    samples = 400
    with torch.random.fork_rng(), SmoothGrad(model=small(), noise_level=LEVEL, n_iter=samples) as attributor:
        torch.manual_seed(2)
        _, theirs = attributor(IMAGE.clone(), torch.eye(6)[[2]])
    ours = answer(samples=samples, seed=2)
    z = (ours.values - theirs[0]) / (ours.standard_error * 2**0.5)
    assert z.abs().max() < 6
    assert 0.5 < z.square().mean() < 2


# Identities


@pytest.mark.parametrize("method", ["gradient", "gradcam", "cam"])
def test_without_noise_or_with_one_sample_smoothing_is_the_method_itself(method):
    for name in ("resnet18", "in_place"):
        one, image = explainer(name), pictures(1)
        itself = answer(method, one, image).values
        silent = answer(method, one, image, samples=10, noise_level=0.0)
        assert distance(silent.values, itself) < 1e-4  # another batch size: Grad-CAM sums terms that cancel
        assert silent.standard_error.max() <= 1e-5 * itself.abs().max()
        assert answer(method, one, image, samples=1).standard_error is None
    assert torch.equal(answer("smoothgrad", samples=1).values, answer("gradient").values)


def test_the_target_is_the_class_of_the_clean_image_for_all_samples():
    one, image = small_explainer(), 0.05 * IMAGE
    predicted = int(small()(image).argmax())
    noisy = copies(image, 40, seed=0, level=3.0)
    assert len(set(small()(noisy).argmax(1).tolist())) > 1, "some copies must look like another class"
    (given,) = one.explain(image, Query("smoothgrad", samples=40, noise_level=3.0))
    assert given.query.target == predicted
    assert distance(given.values, captum_gradient(small(), noisy, predicted).mean(0)) < 1e-4


def test_the_answers_of_several_images_are_those_of_each_alone():
    images = pictures(3, (24, 36), seed=9)
    together = small_explainer().explain(images, Query("smoothgrad", samples=7))
    for image, given in zip(images, together):
        (alone,) = small_explainer().explain(image[None], Query("smoothgrad", samples=7))
        assert given.query == alone.query
        assert distance(given.values, alone.values) < 1e-5


# The Monte-Carlo error


def test_the_standard_error_shrinks_with_the_root_of_the_samples():
    errors = {n: answer(samples=n, seed=1).standard_error.norm().item() for n in (25, 100, 400)}
    assert errors[25] / errors[100] == pytest.approx(2, rel=0.15)
    assert errors[100] / errors[400] == pytest.approx(2, rel=0.15)


def test_of_50_samples_two_standard_errors_cover_the_mean_of_600_others_at_95_percent_of_the_pixels():
    """Averaged over 8 seeds; the reference's own error is added. 95 % by the normal law, 92 to 97 % accepted."""
    reference = answer(samples=600, seed=1000)
    covered = []
    for seed in range(8):
        few = answer(samples=50, seed=seed)
        error = (few.standard_error**2 + reference.standard_error**2).sqrt()
        z = ((few.values - reference.values) / error).abs()
        covered.append((z < 1.96).float().mean().item())
        assert z.mean() < 2
    assert 0.92 < np.mean(covered) < 0.97


@pytest.mark.parametrize("method", ["smoothgrad", "smoothgrad_squared", "vargrad"])
def test_the_standard_error_is_the_spread_over_seeds(method):
    """60 seeds of 50 samples: mean square of the errors against the variance of the values, over the pixels."""
    given = [answer(method, samples=50, seed=seed) for seed in range(60)]
    spread = torch.stack([one.values for one in given]).var(0).mean()
    stated = torch.stack([one.standard_error for one in given]).square().mean()
    assert (stated / spread).sqrt().item() == pytest.approx(1, abs=0.1)


def test_below_two_samples_no_error_is_stated():
    first = next(explainer_of_chunk(1).smooth(IMAGE[0], Query("smoothgrad", target=2, samples=5)))
    assert first.samples == 1
    assert first.estimate().standard_error.isnan().all()


def test_each_step_is_the_answer_for_the_samples_so_far():
    one = explainer_of_chunk(4)
    steps = one.smooth(IMAGE[0], Query("smoothgrad", target=2, samples=10, seed=5))
    counts = []
    for step in steps:
        counts.append(step.samples)
        whole = answer(samples=step.samples, seed=5)
        assert distance(step.estimate().values, whole.values) < 1e-5
        assert distance(step.estimate().standard_error, whole.standard_error) < 1e-4
    assert counts == [4, 8, 10]


def test_several_explanations_that_share_their_steps_get_the_answers_of_each_alone():
    one, images = small_explainer(), pictures(2, (24, 36), seed=3)
    asked = [
        (images[0], Query("smoothgrad", target=1, samples=9, seed=1)),
        (images[1], Query("vargrad", target=4, contrast=0, samples=12, seed=2, noise_level=0.3)),
        (images[0], Query("gradcam", target=3, samples=7)),
        (images[1], Query("cam", target=0, samples=9, seed=1)),
    ]
    together = [Smoothing(image, query) for image, query in asked]
    while any(smoothing.left for smoothing in together):
        list(one.advance([(s, min(3 + k, s.left)) for k, s in enumerate(together) if s.left]))
    for (image, query), smoothing in zip(asked, together):
        alone, shared = one.explain(image[None], query)[0], smoothing.estimate()
        assert (shared.query, shared.samples_used) == (query, query.samples)
        assert distance(shared.values, alone.values) < 1e-5
        assert distance(shared.standard_error, alone.standard_error) < 1e-5


# Independence


def explainer_of_chunk(chunk):
    return Explainer(small(), IMAGE, chunk=chunk)


@pytest.mark.parametrize("method", ["smoothgrad", "smoothgrad_squared", "vargrad", "gradcam", "cam"])
def test_the_chunk_changes_nothing_but_rounding(method):
    whole = answer(method, explainer_of_chunk(50), samples=50, seed=4)
    for chunk in (1, 3, 4, 7):
        part = answer(method, explainer_of_chunk(chunk), samples=50, seed=4)
        assert distance(part.values, whole.values) < 1e-5
        assert distance(part.standard_error, whole.standard_error) < 1e-5


def test_the_same_seed_gives_the_same_map_to_the_bit_and_others_give_others():
    maps = [answer(samples=8, seed=seed).values for seed in (3, 3, 4, 2**40, -1)]
    assert torch.equal(maps[0], maps[1])
    for other in maps[2:]:
        assert distance(maps[0], other) > 1e-2


def test_a_sample_depends_on_seed_and_index_alone():
    noise = Noise(IMAGE[0], LEVEL, 6)
    whole = noise.draw(0, 20)
    for first, count in ((19, 1), (3, 7), (0, 1), (10, 10)):
        assert torch.equal(noise.draw(first, count), whole[first : first + count])
        assert torch.equal(Noise(IMAGE[0], LEVEL, 6).draw(first, count), whole[first : first + count])


def test_neighbouring_seeds_share_no_sample():
    # A generator on a CPU starts from the lower 32 bits alone: these must differ too.
    seeds = [sample_seed(seed, index) & 0xFFFFFFFF for seed in range(50) for index in range(50)]
    assert len(set(seeds)) == len(seeds)
    whole = [sample_seed(seed, index) for seed in range(-100, 100) for index in range(600)]
    assert len(set(whole)) == len(whole)
    assert all(0 <= seed < 2**63 for seed in whole)
    drawn = torch.cat([copies(IMAGE, 30, seed) - IMAGE for seed in range(5)]).flatten(1)
    correlation = torch.corrcoef(drawn) - torch.eye(len(drawn))
    assert correlation.abs().max() < 6 / drawn.shape[1] ** 0.5


@pytest.mark.parametrize("level", [0.05, 0.15, 0.5])
def test_the_noise_is_normal_with_the_stated_spread(level):
    """Of N numbers: mean and spread within 5 standard errors, shares within 1, 2 and 3 sigma as the normal law has."""
    image = 3 * IMAGE + 10
    noise = (copies(image, 100, seed=9, level=level) - image).double().numpy() / (level * np.ptp(image.numpy()))
    count = noise.size
    assert abs(noise.mean()) < 5 / count**0.5
    assert abs(noise.std() - 1) < 5 / (2 * count) ** 0.5 + 1e-4
    for width, share in ((1, 0.68269), (2, 0.95450), (3, 0.99730)):
        assert abs((np.abs(noise) < width).mean() - share) < 5 * (share * (1 - share) / count) ** 0.5
    per_sample = noise.mean((1, 2, 3)) * np.sqrt(noise[0].size)
    assert np.abs(per_sample).max() < 5


def test_the_range_of_the_noise_is_each_images_own():
    images = torch.cat([IMAGE, 20 * IMAGE])
    for image in images:
        spread = (Noise(image, 0.2, 0).draw(0, 50) - image).std().item()
        assert spread == pytest.approx(0.2 * float(np.ptp(image.numpy())), rel=0.02)


def test_no_global_generator_is_touched():
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    for method in ("smoothgrad", "vargrad", "gradcam"):
        answer(method, samples=6)
    Explainer(small_like(), IMAGE)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert all(np.array_equal(one, other) for one, other in zip(np.random.get_state(), numpy_state))


def small_like():
    """A network with dropout, which is off in evaluation."""
    net = small()
    return nn.Sequential(net.trunk, net.pool, nn.Flatten(), nn.Dropout(0.5), net.linear)


def test_dropout_is_off_and_the_global_seed_changes_nothing():
    one = Explainer(small_like(), IMAGE)
    given = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            given.append(answer(one=one, samples=4).values)
    assert torch.equal(*given)


def test_a_fixed_target_is_kept_and_the_query_comes_back_with_it():
    query = Query("smoothgrad", target=5, samples=3, seed=12, noise_level=0.1)
    assert small_explainer().explain(IMAGE, query)[0].query == query
    assert small_explainer().explain(IMAGE, replace(query, target=None))[0].query.target is not None


# Ending by a standard error


def test_the_samples_end_at_the_first_decision_at_which_the_error_is_as_small_as_asked():
    theirs = captum_gradient(small(), copies(IMAGE, 60, seed=1), 2).double().numpy()

    def error(n):
        return relative(theirs[:n].mean(0), theirs[:n].std(0, ddof=1) / n**0.5)

    decisions = [10, 12, 15, 18, 22, 27, 33, 40, 48, 58]
    for asked in (error(22) * 1.001, error(40) * 1.001):
        ends = next(n for n in decisions if error(n) <= asked)
        for chunk in (1, 4, 64):
            (found,) = explainer_of_chunk(chunk).explain(
                IMAGE, Query("smoothgrad", target=2, samples=60, seed=1, standard_error=asked)
            )
            assert (found.samples_used, found.reached) == (ends, True)
            assert float(found.relative_error) <= asked
            assert distance(found.values.double(), torch.from_numpy(theirs[:ends].mean(0))) < 1e-5


@pytest.mark.parametrize("method", ["smoothgrad", "vargrad", "gradcam"])
def test_neither_the_chunk_nor_company_changes_where_a_request_ends(method):
    """In float64, where rounding by batch shape moves nothing across a kink."""
    image, one = IMAGE.double(), Explainer(small().double(), IMAGE.double())
    queries = [Query(method, target=2, samples=120, seed=seed, standard_error=0.25) for seed in range(3)]
    ends = set()
    for chunk in (1, 3, 4, 10, 64):
        together = [Smoothing(image[0], query) for query in queries]
        while any(smoothing.left for smoothing in together):
            list(one.advance([(s, min(chunk + k, s.left)) for k, s in enumerate(together) if s.left]))
        ends.add(tuple(smoothing.estimate().samples_used for smoothing in together))
    assert len(ends) == 1
    assert all(10 <= end < 120 for end in ends.pop())


def test_a_deadline_may_end_between_two_decisions_and_says_that_nothing_was_reached():
    smoothing = Smoothing(IMAGE[0], Query("smoothgrad", target=2, samples=60, standard_error=1e-6))
    list(small_explainer().advance([(smoothing, 13)]))
    assert (smoothing.estimate().samples_used, smoothing.estimate().reached) == (13, False)


def test_where_the_standard_error_is_not_reached_all_samples_are_taken_and_it_says_so():
    found = answer(samples=20, standard_error=1e-6)
    assert (found.samples_used, found.reached) == (20, False)


def test_a_few_samples_end_nothing_however_large_an_error_is_allowed():
    (found,) = Explainer(small(), IMAGE, chunk=1).explain(
        IMAGE, Query("smoothgrad", target=2, samples=30, standard_error=9.0)
    )
    assert (found.samples_used, found.reached) == (FEWEST, True)


@pytest.mark.parametrize("query", [{"method": "gradient"}, {"samples": 1}, {"standard_error": 0.0}])
def test_a_standard_error_without_samples_or_of_nothing_is_refused(query):
    with pytest.raises(ValueError, match="standard_error"):
        Query(**{"method": "gradcam", "standard_error": 0.5, **query})


@pytest.mark.parametrize("scale", [0.0, 1e-14])
def test_a_map_of_nothing_or_of_next_to_nothing_has_an_error_that_can_be_reached(scale):
    net = small()
    net.linear.weight.data *= scale
    (found,) = Explainer(net, IMAGE, chunk=10).explain(
        IMAGE, Query("smoothgrad", target=2, samples=60, standard_error=9.0)
    )
    assert (found.samples_used, found.reached) == (10, True)
    assert 0 <= float(found.relative_error) < 9
