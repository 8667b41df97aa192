"""Launches: how work gets onto a device, and how its end is awaited. A CPU does at once what it is told.

The lines for CUDA are few and decide nothing: `engine.captured` decides what is captured, and proves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

#: A function of tensors of fixed shapes, which reads nothing back and gives tensors.
Work = Callable[..., tuple[Tensor, ...]]
#: Runs of a function before it is captured: libraries prepare themselves in the first ones.
_WARMING = 3


class Eager:
    """The launches of a device that queues nothing and captures nothing.

    captures: whether `capture` gives a faster function.
    """

    captures = False

    def settle(self) -> None:
        """Waits until the device has done its queued work."""

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """A context for predictions, whose kernels go before those of explanations that wait."""
        yield

    def capture(self, work: Work, *example: Tensor) -> Work:
        """A function that does the same for other tensors in the shapes of `example`, by one launch where it can."""
        return work


class Cuda(Eager):
    """The launches of a CUDA device. Explanations have the default stream, whose priority is the lowest."""

    captures = True

    def __init__(self, device: torch.device) -> None:
        cuda: Any = torch.cuda
        self._cuda, self._device = cuda, device
        self._done = cuda.Event()
        self._high = cuda.Stream(device, priority=-1)
        self._pool: Any = None

    def settle(self) -> None:
        """Waits until the device has done the work that this thread has queued, and not that of other streams."""
        self._done.record(self._cuda.current_stream(self._device))
        self._done.synchronize()

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """A context in which work goes to a stream of high priority, in order with the work before and behind it."""
        around = self._cuda.current_stream(self._device)
        self._high.wait_stream(around)
        try:
            with self._cuda.stream(self._high):
                yield
        finally:
            around.wait_stream(self._high)

    def capture(self, work: Work, *example: Tensor) -> Work:
        """A CUDA graph of the function. Each call fills its inputs, replays it and gives copies of its outputs.

        All graphs share one pool of memory, so one must not be replayed before the copies of another are queued.
        """
        inputs = [one.clone() for one in example]
        around, side = self._cuda.current_stream(self._device), self._cuda.Stream(self._device)
        side.wait_stream(around)
        with self._cuda.stream(side):
            for _ in range(_WARMING):
                work(*inputs)
        around.wait_stream(side)
        self._pool = self._pool or self._cuda.graph_pool_handle()
        graph = self._cuda.CUDAGraph()
        with self._cuda.graph(graph, pool=self._pool):
            outputs = work(*inputs)

        def replay(*given: Tensor) -> tuple[Tensor, ...]:
            for own, one in zip(inputs, given):
                own.copy_(one)
            graph.replay()
            return tuple(one.clone() for one in outputs)

        return replay


def launches_of(device: torch.device) -> Eager:
    """The launches of a device."""
    return Cuda(device) if device.type == "cuda" else Eager()
