"""Precisions of a pass, and the switches of TF32.

In TF32 CUDA rounds the factors of float32's products to ten bits. Passes of draws are made in the precision that the
explainer was given. Predictions keep the mode that the process is in, as in the stock handler: TorchServe asks for TF32
products, and cuDNN's convolutions use TF32 by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch

_Value = TypeVar("_Value")

#: The type that matrix products and convolutions take and give, by the precision's name.
PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def available(precision: str, device: torch.device) -> str:
    """The precision that a device has for the one that is asked for: "tf32" is "float32" outside CUDA.

    Raises ValueError for a name that does not exist.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    return "float32" if precision == "tf32" and device.type != "cuda" else precision


def of_predictions(device: torch.device) -> str:
    """The precision of float32 predictions in the mode that the process is in."""
    backends: Any = torch.backends
    if device.type == "cuda":
        if not hasattr(backends.cuda.matmul, "fp32_precision"):
            return "tf32" if backends.cuda.matmul.allow_tf32 or backends.cudnn.allow_tf32 else "float32"
        # Recurrent layers have a switch as well, but networks of images do not have them.
        modes = {backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision}
        return "tf32" if "tf32" in modes else "float32"
    switches = [getattr(backends.mkldnn, name, None) for name in ("conv", "matmul")]
    fewer = any(getattr(switch, "fp32_precision", None) == "bf16" for switch in switches)
    return "bfloat16" if fewer and torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def autocast(precision: str | None, device: torch.device) -> AbstractContextManager[object]:
    """A context for a forward pass whose products are made in `precision`; None and float32 change nothing."""
    dtype = PRECISIONS[precision or "float32"]
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def tensor_float_of(precision: str | None) -> AbstractContextManager[object]:
    """A context for a forward or backward pass, with TF32 if `precision` is "tf32"; None keeps the process's mode."""
    return nullcontext() if precision is None else tensor_float(precision == "tf32")


@contextmanager
def tensor_float(allowed: bool) -> Iterator[None]:
    """A context in which products of float32 may be rounded to TF32, or may not; it restores the switches."""
    backends: Any = torch.backends
    operations = _operations()
    before = [operation.fp32_precision for operation in operations]
    convolutions, products = _older(lambda: backends.cudnn.allow_tf32), _older(_products)
    try:
        if convolutions is not None:
            backends.cudnn.allow_tf32 = allowed
        if products is not None:
            backends.cuda.matmul.allow_tf32 = allowed
        for operation in operations:
            if (operation.fp32_precision == "tf32") != allowed or operation.fp32_precision == "bf16":
                operation.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        if convolutions is not None:
            backends.cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for operation, value in zip(operations, before):
            # An operation that only followed the value of all operations gets no value of its own.
            operation.fp32_precision = "none"
            if operation.fp32_precision != value:
                operation.fp32_precision = value


def _products() -> str:
    """The mode of matrix products by the older switches, one of which has three values."""
    _ = torch.backends.cuda.matmul.allow_tf32  # raises where it contradicts the other
    return torch.get_float32_matmul_precision()


def _older(read: Callable[[], _Value]) -> _Value | None:
    """The value of an older switch; None where the newer switches were set to a mixture that it cannot express.

    A network may read the older switches in its forward pass, so one that has a value keeps one.
    """
    try:
        return read()
    except RuntimeError:
        return None


def _operations() -> list[Any]:
    """Every operation that can round and has a `fp32_precision`; torch has these from 2.9 on."""
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        return []
    operations = [
        getattr(library, name)
        for library in (backends.cudnn, backends.mkldnn)
        for name in ("conv", "rnn", "matmul")
        if hasattr(library, name)
    ]
    return [backends.cuda.matmul, *operations]
