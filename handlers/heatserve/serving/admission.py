"""Admission: from an input of a row to an item whose picture is on the device.

It has two parts. Reading an input is cheap, happens at once, and bounds what the item may cost. Decoding its picture
happens later, in a step of the loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..imaging import Photograph, Preprocess, decode, opened, plan, refuse_dear, shown_ms
from .derivatives import Bytes, bound_derivatives
from .errors import Refusal
from .faults import Faults
from .items import Item
from .protocols import MOST, Input, RowProtocol
from .requests import Request, RequestParser
from .scheduling import Policy
from .settings import Limits
from .states import Admitted, Decoded, Described, Reading, Refused


class Admission:
    """Reads and decodes for one archive.

    device: the model's.
    derivatives: the bytes of the mean local derivatives of a picture.
    """

    def __init__(
        self,
        parser: RequestParser,
        preprocess: Preprocess,
        limits: Limits,
        policy: Policy,
        faults: Faults,
        device: torch.device,
        derivatives: Bytes,
    ) -> None:
        self._parser = parser
        self._preprocess = preprocess
        self._limits = limits
        self._policy = policy
        self._faults = faults
        self._device = device
        self._derivatives = derivatives

    def admit(
        self,
        given: Input,
        protocol: RowProtocol,
        headers: Mapping[str, Any],
        siblings: Sequence[Item],
        others: Sequence[Item],
    ) -> Item:
        """The item of one input. An input that cannot be served gives a refused item.

        siblings: of the same row, admitted before.
        others: of the rows that came before.
        """
        started, deadline = self._policy.clock(), math.inf
        timer = time.perf_counter()
        request: Request | None = None
        try:
            request = self._parser.parse(given, protocol, headers)
            if request.deadline_ms is not None:
                deadline = started + request.deadline_ms / 1000
            state = Described(request) if request.describes else self._bounded(request, siblings, others)
            item = Item(state, deadline)
        except Exception as error:
            item = Item(Refused(self._faults.record(error), request), deadline)
        item.seconds["decode"] = time.perf_counter() - timer
        return item

    def _bounded(self, request: Request, siblings: Sequence[Item], others: Sequence[Item]) -> Admitted:
        """The state of a new item whose work and picture are within the limits.

        Raises Refusal, UnreadableImage or ImageTooLarge.
        """
        if request.work > 1:
            self._bound_work(request, siblings, others)
        maps = sum(len(item.state.request.queries) for item in siblings if item.state.request)
        if maps + len(request.queries) > MOST:
            raise Refusal(413, f"pictures x targets: at most {MOST} maps in one request")
        return Admitted(request) if request.tensor is not None else self._promised(request, siblings, others)

    def _bound_work(self, request: Request, siblings: Sequence[Item], others: Sequence[Item]) -> None:
        """Refuses work that can never fit, or that would wait too long: long explanations wait in memory."""
        limits = self._limits
        own = [item for item in siblings if item.long]
        before = [item for item in others if item.long]
        asked = request.work + sum(item.work_left for item in own)
        view = math.prod(self._parser.view)
        kept = view * (_statistics(request) + sum(_statistics(item.state.request) for item in own))
        waiting = view * sum(_statistics(item.state.request) for item in before)
        work = sum(item.work_left for item in before)
        if len(own) + 1 > limits.max_explanations:
            raise Refusal(
                413, f"at most {limits.max_explanations} pictures of one request can be explained by further passes"
            )
        if asked > limits.max_batch_work:
            raise Refusal(
                413,
                f"the pictures of one request ask for {asked} forward passes and more; at most "
                f"{limits.max_batch_work} are allowed: send fewer pictures, targets or samples",
            )
        if kept > _KEPT and kept > view:
            raise Refusal(
                413,
                f"at most {max(1, _KEPT // view)} maps of one request can take samples with this model's view: send "
                "fewer pictures or targets",
            )

        def retry_after() -> int:
            return math.ceil(max(1.0, work * self._policy.seconds_per_work))

        bound_derivatives(request, own, before, self._derivatives, retry_after)
        if (
            len(before) + len(own) + 1 > limits.max_explanations
            or (waiting and waiting + kept > _KEPT)
            or work + asked > limits.max_batch_work
            or self._too_much_waits(others, len(request.image) + sum(map(_waiting_bytes, own)))
        ):
            raise Refusal(503, "too much explanation is under way; try again later", retry_after=retry_after())

    def _promised(self, request: Request, siblings: Sequence[Item], others: Sequence[Item]) -> Admitted:
        """The state of an item whose header promises a picture within the limits.

        The header says what decoding, resizing and showing the picture cost, before any of it is done.
        """
        limits = self._limits
        admitted = [item.state for item in siblings if isinstance(item.state, Admitted)]
        shown = sum(state.size[0] * state.size[1] for state in admitted)
        file = opened(request.image, max(0, limits.max_pixels - shown))
        header = file.header
        self._preprocess.check(header.width, header.height, limits.max_resized_pixels)
        cost = header.decode_ms + self._preprocess.cost_ms(header.width, header.height)
        if request.shows_photograph:
            cost += shown_ms(header.width, header.height, limits.max_side)
        refuse_dear(cost, len(request.image), limits.max_decode_ms)
        own = cost + sum(state.cost_ms for state in admitted)
        if own > limits.max_decode_ms:
            raise Refusal(
                413,
                f"the pictures of one request would take {own:.0f} ms to decode and resize; at most "
                f"{limits.max_decode_ms} ms are allowed: send fewer or smaller ones",
            )
        costly = self._policy.costly(cost / 1000)
        state = Admitted(
            request, (header.width, header.height), cost, costly, header.peak_bytes, None if costly else file
        )
        waiting = sum(item.state.cost_ms for item in others if isinstance(item.state, Admitted))
        if waiting + own > limits.max_batch_decode_ms or self._too_much_waits(others, _waiting_bytes(Item(state))):
            wait = math.ceil(max(1.0, waiting / 1000))
            raise Refusal(503, "too many pictures wait to be decoded; try again later", retry_after=wait)
        return state

    def _too_much_waits(self, others: Sequence[Item], own: float) -> bool:
        """Whether too many bytes would stay with the host: continuous batching sends them again at each step.

        A request beside which nothing waits may have any number of bytes.
        """
        waiting = sum(map(_waiting_bytes, others))
        return waiting > 0 and waiting + own > self._limits.max_waiting_bytes

    def decode(self, item: Item) -> None:
        """Decodes the picture of an admitted item in this thread, and takes it."""
        if isinstance(item.state, Admitted):
            self.take(item, self.decoded(item.state))

    def decoded(self, state: Admitted) -> Reading:
        """The picture of an admitted item, on the host. It may run in any thread, and never raises an Exception."""
        started = time.perf_counter()
        found: Decoded | Refusal
        try:
            found = self._decoded(state)
        except Exception as error:
            found = self._faults.record(error)
        return Reading(found, time.perf_counter() - started)

    def take(self, item: Item, reading: Reading) -> None:
        """Brings a picture to the device, and its item to the next state. Only the network's thread may call this.

        A picture that cannot be decoded refuses its item.
        """
        item.seconds["decode"] += reading.seconds
        try:
            with item.timed("decode"):
                found = reading.found
                item.state = found if isinstance(found, Decoded) else Refused(found, item.state.request)
                if isinstance(item.state, Decoded) and self._device.type != "cpu":
                    item.state = replace(item.state, image=self._moved(item.state.image))
        except Exception as error:
            item.refuse(self._faults.record(error))

    def _moved(self, image: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cuda":
            image = image.pin_memory()  # or the copy would not be asynchronous
        return image.to(self._device, non_blocking=True)

    def _decoded(self, state: Admitted) -> Decoded:
        request = state.request
        photograph: Photograph | None = None
        if request.tensor is not None:
            image = torch.from_numpy(request.tensor.copy())
            height, width = request.tensor.shape[1:]
            size, geometry = (width, height), plan(width, height, None, None)
            if request.queries:
                shown = self._preprocess.picture(request.tensor) if request.shows_photograph else None
                photograph = Photograph(size, shown)
        else:
            picture = decode(request.image, self._limits.max_pixels, self._preprocess.alpha, state.opened)
            size = (picture.width, picture.height)
            image, geometry = self._preprocess.tensor(picture, self._limits.max_resized_pixels)
            if request.queries:
                # A batch of photographs at full size would fill the memory.
                photograph = picture.shown(self._limits.max_side, pixels=request.shows_photograph)
        return Decoded(request, image, geometry, size, photograph)


#: The pixels of all maps under way that are statistics of samples. VarGrad's take the most memory, 120 bytes for each.
#: At views of 224 x 224 it is more than `max_explanations` of ten targets; at 1000 x 1000 it is 20 maps.
_KEPT = 20_000_000


def _statistics(request: Request | None) -> int:
    """The number of a request's maps that are statistics of samples, which stay in memory until all are taken."""
    return sum(query.smoothed for query in request.queries) if request else 0


#: The part of a waiting picture's bytes that counts: it stays for some steps, an explanation for hundreds.
_STEPS_UNDECODED = 0.25


def _waiting_bytes(item: Item) -> float:
    """The bytes of an item that stay with the host, as the limit on them counts."""
    request = item.state.request
    if request is None:
        return 0.0
    if item.long:
        return float(len(request.image))
    costly = isinstance(item.state, Admitted) and item.state.costly
    return len(request.image) * _STEPS_UNDECODED if costly else 0.0
