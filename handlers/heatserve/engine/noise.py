"""Normal noise of many samples: each sample's numbers are a function of its seed alone, whatever they are drawn with.

A generator that is seeded anew for each sample takes a launch a sample. On CUDA torch's generator by keys draws all
samples in one launch, where torch has it. The two draw different numbers, so answers name the one that was used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .upload import upload

#: The names of generators, as answers say them: torch's own on the host and on other devices, and the one by keys.
HOST, DEVICE, BY_KEY = "mt19937", "philox", "philox by key"


def normal(seeds: Sequence[int], shape: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal numbers, (n, *shape), of the type and on the device of `like`.

    seeds: of each sample, from 0 to 2^63 - 1.
    """
    draw = by_key if noise_generator(like.device) == BY_KEY else _seeded
    return draw(seeds, shape, like)


def noise_generator(device: torch.device) -> str:
    """The name of the generator of `normal` on a device. It never changes in a process."""
    return BY_KEY if device.type == "cuda" and keys_work(device) else seeded_generator(device)


def seeded_generator(device: torch.device) -> str:
    """The name of the `torch.Generator` of a device."""
    return HOST if device.type == "cpu" else DEVICE


def host_generator(_: torch.device) -> str:
    """The name of the host's generator, for draws that are the same on every device."""
    return HOST


@lru_cache(maxsize=16)
def keys_work(device: torch.device) -> bool:
    """Whether torch draws by keys on a device, each sample the same alone as beside others."""
    try:
        shape, like = (2, 3, 5), torch.empty(0, device=device)
        both, other = by_key((3, 2**63 - 1), shape, like), by_key((2**63 - 1,), shape, like)
        return torch.equal(both[1:], other) and not torch.equal(both[0], both[1]) and bool(both.isfinite().all())
    except (AttributeError, RuntimeError, TypeError):
        return False


def _seeded(seeds: Sequence[int], shape: Sequence[int], like: Tensor) -> Tensor:
    generator = torch.Generator(device=like.device)
    found = torch.empty((len(seeds), *shape), device=like.device, dtype=like.dtype)
    for one, seed in zip(found, seeds):
        generator.manual_seed(seed)
        one.normal_(generator=generator)
    return found


def by_key(seeds: Sequence[int], shape: Sequence[int], like: Tensor) -> Tensor:
    """`normal` in one launch. A key is a seed, and the place in its stream from which numbers are taken."""
    keys = torch.tensor([[seed, 0] for seed in seeds], dtype=torch.uint64)
    keys = upload(keys, like.device)
    draw: Any = torch.ops.aten._philox_normal_
    found: Tensor = draw(
        torch.empty((len(seeds), *shape), device=like.device), keys.reshape(-1, *[1] * len(shape), 2), 0.0, 1.0
    )
    return found.to(like.dtype)
