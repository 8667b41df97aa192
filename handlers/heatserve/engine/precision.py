"""Precisions of a pass, and the switches of TF32, in which CUDA rounds float32's products to ten bits.

Explanation passes are made in the precision that was asked for. Predictions keep the mode that the process is in, as
the stock handler does: TorchServe asks for TF32 products, and cuDNN's convolutions use it by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

#: By name: what matrix products and convolutions take and give.
PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def available(precision: str, device: torch.device) -> str:
    """The precision that a device has for the one that is asked for: TF32 is CUDA's, and float32 elsewhere.

    Raises ValueError for a name that does not exist.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    return "float32" if precision == "tf32" and device.type != "cuda" else precision


def of_predictions(device: torch.device) -> str:
    """The precision of float32 predictions in the mode that the process is in."""
    rounds = any(getattr(owner, name) == on for owner, name, on, _ in _switches())
    return "tf32" if device.type == "cuda" and rounds else "float32"


def autocast(precision: str | None, device: torch.device) -> AbstractContextManager[object]:
    """For a forward pass: products in fewer bits. None, and float32, leave it as it is."""
    dtype = PRECISIONS[precision or "float32"]
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def tensor_float_of(precision: str | None) -> AbstractContextManager[object]:
    """For a pass, forwards or backwards: TF32 where `precision` is that; None leaves the process's mode as it is."""
    return nullcontext() if precision is None else tensor_float(precision == "tf32")


@contextmanager
def tensor_float(allowed: bool) -> Iterator[None]:
    """Whether products of float32 may be rounded to TF32 inside; afterwards the switches are as they were."""
    switches = _switches()
    before = [getattr(owner, name) for owner, name, _, _ in switches]
    try:
        for owner, name, on, off in switches:
            setattr(owner, name, on if allowed else off)
        yield
    finally:
        for (owner, name, _, _), value in zip(switches, before):
            setattr(owner, name, value)


def _switches() -> list[tuple[Any, str, object, object]]:
    """(owner, attribute, value for TF32, value for float32) of every operation that can round.

    torch 2.9 gave each operation a `fp32_precision`; once it is set, reading `allow_tf32` may raise.
    """
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        return [(owner, "allow_tf32", True, False) for owner in (backends.cuda.matmul, backends.cudnn)]
    operations = [
        getattr(library, name)
        for library in (backends.cudnn, backends.mkldnn)
        for name in ("conv", "rnn", "matmul")
        if hasattr(library, name)
    ]
    return [(owner, "fp32_precision", "tf32", "ieee") for owner in (backends.cuda.matmul, *operations)]
