"""Admission, in two parts: a row is read at once, which is cheap and bounds what it may cost; its pictures are decoded
later, by steps of the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..imaging import Preprocess, decode, inspect, plan, refuse_dear, shown_ms
from .errors import Refusal
from .exchange import Exchange, Visit
from .protocols import MOST, Input
from .requests import Request, RequestParser
from .scheduling import Policy
from .settings import Limits


class Admission:
    """Reads and decodes for one archive. device: the model's."""

    def __init__(
        self, reader: RequestParser, preprocess: Preprocess, limits: Limits, policy: Policy, device: torch.device
    ) -> None:
        self._reader = reader
        self._preprocess = preprocess
        self._limits = limits
        self._policy = policy
        self._device = device

    def read(
        self,
        exchange: Exchange,
        instance: Input,
        visit: Visit,
        headers: Mapping[str, Any],
        others: Sequence[Exchange],
    ) -> None:
        """Gives an exchange of `visit` its request, and what the header of its picture promises. others: of the rows
        that came before. Raises Refusal, UnreadableImage or ImageTooLarge for what cannot be served."""
        started = self._policy.clock()
        request = exchange.request = self._reader.parse(instance, visit.door, headers)
        if request.describes:
            return
        if request.deadline_ms is not None:
            exchange.deadline = started + request.deadline_ms / 1000
        exchange.attributions = [None] * len(request.queries)
        self._bound_work(exchange, visit, others)
        if sum(len(own.request.queries) for own in visit.exchanges if own.request) > MOST:
            raise Refusal(413, f"pictures x targets: at most {MOST} maps in one request")
        if request.tensor is None:
            self._bound_decoding(exchange, request, visit, others)

    def _bound_work(self, newcomer: Exchange, visit: Visit, others: Sequence[Exchange]) -> None:
        """Long explanations wait for each other, in memory. What can never fit is told so, and what would wait too long
        is told when to come again."""
        if not newcomer.long:
            return
        limits = self._limits
        own = [exchange for exchange in visit.exchanges if exchange.long]
        before = [exchange for exchange in others if exchange.long]
        asked, work = (sum(exchange.work_left for exchange in group) for group in (own, before))
        if len(own) > limits.max_explanations:
            raise Refusal(
                413, f"at most {limits.max_explanations} pictures of one request can be explained by further passes"
            )
        if asked > limits.max_batch_work:
            raise Refusal(
                413,
                f"the pictures of one request ask for {asked} forward passes and more; at most "
                f"{limits.max_batch_work} are allowed: send fewer pictures, targets or samples",
            )
        if (
            len(before) + len(own) > limits.max_explanations
            or work + asked > limits.max_batch_work
            or self._too_much_waits(others, own)
        ):
            wait = math.ceil(max(1.0, work * self._policy.seconds_per_work))
            raise Refusal(503, "too much explanation is under way; try again later", retry_after=wait)

    def _too_much_waits(self, others: Sequence[Exchange], own: Sequence[Exchange]) -> bool:
        """Whether too many bytes would stay with the frontend, which sends every row that stays again at each step of
        continuous batching. A request beside which nothing waits may have any number."""
        waiting = sum(_waiting_bytes(exchange) for exchange in others)
        return waiting > 0 and waiting + sum(map(_waiting_bytes, own)) > self._limits.max_waiting_bytes

    def _bound_decoding(self, newcomer: Exchange, request: Request, visit: Visit, others: Sequence[Exchange]) -> None:
        """The header of a picture says what decoding, resizing and showing it cost, before any of it is done."""
        limits = self._limits
        shown = sum(own.size[0] * own.size[1] for own in visit.exchanges)
        header = inspect(request.image, max(0, limits.max_pixels - shown))
        self._preprocess.check(header.width, header.height, limits.max_resized_pixels)
        cost = header.decode_ms + self._preprocess.cost_ms(header.width, header.height)
        if newcomer.explains:
            cost += shown_ms(header.width, header.height, limits.max_side)
        refuse_dear(cost, len(request.image), limits.max_decode_ms)
        own = cost + sum(exchange.cost_ms for exchange in visit.exchanges)
        if own > limits.max_decode_ms:
            raise Refusal(
                413,
                f"the pictures of one request would take {own:.0f} ms to decode and resize; at most "
                f"{limits.max_decode_ms} ms are allowed: send fewer or smaller ones",
            )
        newcomer.costly = self._policy.costly(cost / 1000)
        waiting = sum(exchange.cost_ms for exchange in others if exchange.undecoded)
        if waiting + own > limits.max_batch_decode_ms or self._too_much_waits(others, [newcomer]):
            wait = math.ceil(max(1.0, waiting / 1000))
            raise Refusal(503, "too many pictures wait to be decoded; try again later", retry_after=wait)
        newcomer.size = (header.width, header.height)
        newcomer.cost_ms = cost

    def decode(self, exchange: Exchange) -> None:
        """Brings an exchange's picture to the device, and keeps what an answer shows of it."""
        request = exchange.request
        assert request is not None
        if request.tensor is not None:
            image = torch.from_numpy(request.tensor.copy())
            photograph = self._preprocess.picture(request.tensor)
            exchange.size, exchange.photograph = photograph.size, photograph
            exchange.geometry = plan(*photograph.size, None, None)
        else:
            picture = decode(request.image, self._limits.max_pixels)
            exchange.size = (picture.width, picture.height)
            image, exchange.geometry = self._preprocess.tensor(picture, self._limits.max_resized_pixels)
            if exchange.explains:
                # A batch of photographs at full size would fill the memory.
                exchange.photograph = picture.upright(self._limits.max_side)
        if self._device.type == "cuda":
            image = image.pin_memory()  # or the copy would not be asynchronous
        exchange.image = image.to(self._device, non_blocking=True)


#: A picture that waits to be decoded stays for some steps, an explanation for hundreds.
_STEPS_UNDECODED = 0.25


def _waiting_bytes(exchange: Exchange) -> float:
    """What an exchange counts for among the bytes that stay with the frontend."""
    if exchange.request is None or not (exchange.long or (exchange.costly and exchange.undecoded)):
        return 0.0
    return len(exchange.request.image) * (1.0 if exchange.long else _STEPS_UNDECODED)
