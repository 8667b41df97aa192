"""Packed convolutions: oneDNN's kernels on weights that were laid out for them once.

An ordinary convolution lays its weight out anew in each pass. The weight of a frozen network never changes, so one
layout for the forward pass and one for the gradient serve for ever. The operators are private to torch: `prepare` says
None where they are missing, and `engine.packing` proves each result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

#: The most input channels for which the gradient of a convolution with a stride is computed by phases.
_FEW = 4


@dataclass(frozen=True)
class Geometry:
    """The steps of a convolution over rows and columns: stride, padding and dilation, and its number of groups."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def pack(self, weight: Tensor, size: Sequence[int]) -> Tensor:
        """The weight (O, I / groups, h, w) in the layout that suits inputs of a size, for `convolve`."""
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(), self.padding, self.stride, self.dilation, self.groups, size
        )
        return packed

    def convolve(self, x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution of x, (N, I, H, W)."""
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, packed, bias, self.padding, self.stride, self.dilation, self.groups, "none", [], ""
        )
        return found


@dataclass(frozen=True)
class Transposed:
    """The gradient to a convolution's input as a transposed convolution, whose weight is packed."""

    geometry: Geometry
    kernel: tuple[int, int]
    weight: Tensor

    @staticmethod
    def of(weight: Tensor, geometry: Geometry, size: Sequence[int], outputs: Sequence[int]) -> Transposed:
        """The gradient for inputs of a size (N, I, H, W) whose convolution is (N, O, h, w)."""
        kernel = (int(weight.shape[2]), int(weight.shape[3]))
        packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            weight.contiguous(),
            geometry.padding,
            _left(geometry, kernel, size, outputs),
            geometry.stride,
            geometry.dilation,
            geometry.groups,
            outputs,
        )
        return Transposed(geometry, kernel, packed)

    def __call__(self, gradient: Tensor, size: Sequence[int]) -> Tensor:
        steps = self.geometry
        found: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            gradient,
            self.weight,
            None,
            steps.padding,
            _left(steps, self.kernel, size, gradient.shape),
            steps.stride,
            steps.dilation,
            steps.groups,
            "none",
            [],
            "",
        )
        return found


def _left(steps: Geometry, kernel: tuple[int, int], size: Sequence[int], outputs: Sequence[int]) -> list[int]:
    """The last rows and columns of an input that a convolution with a stride does not reach."""
    reached = [
        (outputs[axis + 2] - 1) * steps.stride[axis]
        - 2 * steps.padding[axis]
        + steps.dilation[axis] * (kernel[axis] - 1)
        + 1
        for axis in (0, 1)
    ]
    return [size[2] - reached[0], size[3] - reached[1]]


@dataclass(frozen=True)
class Phases:
    """The gradient to an input of few channels, as one convolution without a stride.

    Inputs whose places are alike modulo the stride s form a phase: s * s phases, each a small convolution of the
    gradient. They are computed as so many output channels, and put side by side. Three channels leave most of a vector
    register empty, and this takes less than half the time of a transposed convolution there.
    """

    convolution: Geometry
    weight: Tensor
    stride: int
    padding: tuple[int, int]

    @staticmethod
    def of(weight: Tensor, geometry: Geometry, outputs: Sequence[int]) -> Phases:
        """The gradient for a convolution whose outputs are of size (N, O, h, w)."""
        stride = geometry.stride[0]
        out, channels, height, width = weight.shape
        rows, columns = -(-height // stride), -(-width // stride)
        whole = functional.pad(weight, (0, columns * stride - width, 0, rows * stride - height))
        parts = whole.reshape(out, channels, rows, stride, columns, stride).permute(1, 3, 5, 0, 2, 4).flip(4, 5)
        convolution = Geometry((1, 1), (rows - 1, columns - 1), (1, 1), 1)
        packed = convolution.pack(parts.reshape(-1, out, rows, columns), outputs)
        return Phases(convolution, packed, stride, geometry.padding)

    def __call__(self, gradient: Tensor, size: Sequence[int]) -> Tensor:
        phases = self.convolution.convolve(gradient, self.weight, None)
        top, left = self.padding
        found = functional.pixel_shuffle(phases, self.stride)[:, :, top : top + size[2], left : left + size[3]]
        missing = (0, size[3] - found.shape[3], 0, size[2] - found.shape[2])
        return functional.pad(found, missing) if any(missing) else found


@dataclass(frozen=True)
class Ordinary:
    """A convolution with the weight (O, I / groups, h, w) as it is, which oneDNN lays out anew in each pass."""

    geometry: Geometry
    weight: Tensor

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution of x, (N, I, H, W)."""
        steps = self.geometry
        return functional.conv2d(x, self.weight, bias, steps.stride, steps.padding, steps.dilation, steps.groups)

    def __deepcopy__(self, memo: dict[int, Any]) -> Ordinary:
        return self  # nothing writes into it


@dataclass(frozen=True)
class OrdinaryGradient:
    """The gradient to a convolution's input from the weight as it is.

    order: of the images in memory. A gradient in another order takes longer.
    """

    geometry: Geometry
    weight: Tensor
    order: torch.memory_format

    def __call__(self, gradient: Tensor, size: Sequence[int]) -> Tensor:
        steps = self.geometry
        unread = torch.empty(tuple(size), dtype=gradient.dtype, memory_format=self.order)
        sizes = (steps.stride, steps.padding, steps.dilation, False, [0, 0], steps.groups)
        found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            gradient, unread, self.weight, None, *sizes, [True, False, False]
        )
        return found[0]


@dataclass(frozen=True)
class Packed:
    """A convolution's weight, packed for the forward pass, and its gradient, whose weight may be packed too.

    geometry: the steps of the convolution.
    weight: for the forward pass; `to_dense` gives the weight back to the bit.
    gradient: from the gradient in the output and the input's size to the gradient in the input.
    """

    geometry: Geometry
    weight: Tensor
    gradient: Transposed | Phases | OrdinaryGradient

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution of x, (N, I, H, W); its graph carries the gradient to x alone."""
        if torch.is_grad_enabled() and x.requires_grad:
            found: Tensor = PackedConvolution.apply(x, bias, self)
            return found
        return self.geometry.convolve(x, self.weight, bias)

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        return self  # nothing writes into it


class PackedConvolution(torch.autograd.Function):
    """A packed convolution in a graph. It keeps neither input nor output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, packed: Packed) -> Tensor:
        ctx.packed, ctx.size = packed, tuple(x.shape)
        return packed.geometry.convolve(x, packed.weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled() and gradient.requires_grad:
            return _Gradient.apply(gradient, ctx.size, ctx.packed), None, None
        return ctx.packed.gradient(gradient, ctx.size), None, None


class _Gradient(torch.autograd.Function):
    """The gradient of a packed convolution in a graph of its own, for second derivatives: it is linear too."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, size: Sequence[int], packed: Packed) -> Tensor:
        ctx.packed = packed
        return packed.gradient(gradient, size)

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, None, None]:
        return ctx.packed(direction, None), None, None


def prepare(weight: Tensor, geometry: Geometry, size: Sequence[int], outputs: Sequence[int]) -> Optional[Packed]:
    """A packed convolution; None where torch lacks an operator, or oneDNN refuses the sizes.

    weight: (O, I / groups, h, w).
    size: (N, I, H, W) of a typical input.
    outputs: (N, O, h, w) of its convolution.
    """
    phased = (
        weight.shape[1] <= _FEW
        and geometry.groups == 1
        and geometry.stride[0] == geometry.stride[1] > 1
        and geometry.dilation == (1, 1)
    )
    try:
        return Packed(
            geometry,
            nn.Parameter(geometry.pack(weight, size), requires_grad=False),
            Phases.of(weight, geometry, outputs) if phased else Transposed.of(weight, geometry, size, outputs),
        )
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None
