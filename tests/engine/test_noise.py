"""Normal noise: each sample's numbers depend on its seed alone, by torch's generators and by keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from heatserve.engine import METHODS, Query, sample_seed
from heatserve.engine import noise as noises
from heatserve.engine.noise import BY_KEY, DEVICE, HOST, by_key, keys_work, noise_generator, normal
from heatserve.engine.sampling import Noise

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPE = (3, 16, 20)
SEEDS = [sample_seed(7, number) for number in range(40)]

keys = pytest.mark.skipif(not keys_work(CPU), reason="this torch does not draw by keys")


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise by keys on the CPU, as on CUDA."""
    monkeypatch.setattr(noises, "noise_generator", lambda device: BY_KEY)


def test_on_a_cpu_each_sample_has_the_numbers_of_a_generator_with_its_seed() -> None:
    found = normal(SEEDS, SHAPE, torch.empty(0))
    for seed, one in zip(SEEDS, found):
        assert torch.equal(one, torch.empty(SHAPE).normal_(generator=torch.Generator().manual_seed(seed)))


@keys
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_by_keys_a_sample_has_the_same_numbers_in_any_chunk(keyed: None, dtype: torch.dtype) -> None:
    image = torch.rand(SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(1))
    whole = Noise(image, 0.15, 6).draw(0, 40)
    assert whole.dtype == dtype
    for first, count in ((0, 1), (3, 7), (39, 1), (8, 32)):
        assert torch.equal(Noise(image, 0.15, 6).draw(first, count), whole[first : first + count])


@keys
def test_by_keys_the_numbers_are_normal_and_independent(keyed: None) -> None:
    found = normal(SEEDS, SHAPE, torch.empty(0)).flatten(1).double().numpy()
    assert stats.kstest(found.ravel(), "norm").pvalue > 1e-3
    between = np.corrcoef(found)[np.triu_indices(len(SEEDS), 1)]
    # 780 correlations of 960 numbers each.
    assert np.abs(between).max() < 4.5 / found.shape[1] ** 0.5
    assert len(np.unique(found)) > 0.99 * found.size


@keys
def test_by_keys_all_samples_are_drawn_by_one_operation(keyed: None) -> None:
    with torch.profiler.profile() as profile:
        normal(SEEDS, SHAPE, torch.empty(0))
    drawn = [event for event in profile.events() if "normal_" in event.name]
    assert len(drawn) == 1


@pytest.mark.fast_path
def test_a_torch_without_keys_or_with_keys_that_do_not_hold_uses_its_own_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def other(seeds: list[int], shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Numbers that depend on what else is drawn."""
        return torch.randn((len(seeds), *shape), generator=torch.Generator().manual_seed(len(seeds)))

    def missing(*_: object) -> Tensor:
        raise AttributeError("no such operator")

    for broken in (other, missing):
        keys_work.cache_clear()
        monkeypatch.setattr(noises, "by_key", broken)
        assert not keys_work(CPU)
    monkeypatch.undo()
    keys_work.cache_clear()


def test_generators_have_names_by_device_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    assert noise_generator(CPU) == HOST
    for works, name in ((True, BY_KEY), (False, DEVICE)):
        monkeypatch.setattr(noises, "keys_work", lambda device, works=works: works)
        assert Query("smoothgrad").generator(CUDA) == name
        assert Query("gradcam", samples=3).generator(CUDA) == name
    assert Query("expected_gradients").generator(CUDA) == DEVICE
    assert Query("rise").generator(CUDA) == HOST == Query("rise").generator(CPU)
    assert Query("gradcam").generator(CUDA) is None


def test_every_random_method_of_heatserve_names_its_generator() -> None:
    for name, method in METHODS.items():
        if method.drawn.random and method.samples > 1 and "seed" in method.drawn.parameters:
            assert Query(name).generator(CPU) == HOST


@keys
def test_by_key_takes_the_largest_seed() -> None:
    assert by_key([2**63 - 1], SHAPE, torch.empty(0)).isfinite().all()
