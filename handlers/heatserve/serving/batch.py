"""The rows of one `handle` call: how some of them are answered while the others stay, or get a part of their answer.

In continuous batching the rows that an answer leaves out stay with the frontend and come again. TorchServe builds the
answer of `ts.service.predict` from three objects, which are shrunk in place to the rows that are answered: `data`,
`context.request_ids` and `context.request_processor`. That is how 0.12.0, the last TorchServe, works; a test holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .answers import Answer
from .protocols import over_http

#: Sends parts of answers before `handle` returns them, as TorchServe's send_intermediate_predict_response does.
SendParts = Callable[["Mapping[int, Any]", "Mapping[int, str]", Any], None]


class Batch:
    """What TorchServe hands over to one call: iterating gives (request id, row, headers)."""

    def __init__(self, data: list[Any], context: Any, send_parts: SendParts) -> None:
        self._data, self._context, self._send_parts = data, context, send_parts
        self.ids: list[str] = [context.request_ids[index] for index in range(len(data))]

    def __iter__(self) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
        for index, (request_id, row) in enumerate(zip(self.ids, self._data)):
            yield request_id, row, self._context.get_all_request_header(index)

    def rows(self) -> dict[str, tuple[Any, Mapping[str, Any]]]:
        """Row and headers by request id."""
        return {request_id: (row, headers) for request_id, row, headers in self}

    def send(self, parts: Mapping[str, Answer]) -> None:
        """Sends parts of streams at once, by request id; their rows stay."""
        streaming = {index: request_id for index, request_id in enumerate(self.ids) if request_id in parts}
        if not streaming:
            return
        for index, request_id in streaming.items():
            self._describe(parts[request_id], index)
        bodies = {index: parts[request_id].body for index, request_id in streaming.items()}
        self._send_parts(bodies, streaming, self._context)

    def answer(self, answers: Mapping[str, Answer]) -> list[Any]:
        """Sends answers by request id; the bodies to return from `handle`. Rows without one stay."""
        context = self._context
        answered = [index for index, request_id in enumerate(self.ids) if request_id in answers]
        rows = [self._data[index] for index in answered]
        processors = [context.request_processor[index] for index in answered]
        self._data[:] = rows
        context.request_processor[:] = processors
        context.request_ids.clear()
        context.request_ids.update(enumerate(self.ids[index] for index in answered))
        sent = [answers[self.ids[index]] for index in answered]
        context.stopping_criteria = {
            index: _constant(_is_last(answer, context.get_all_request_header(index)))
            for index, answer in enumerate(sent)
        }
        for index, answer in enumerate(sent):
            self._describe(answer, index)
        return [answer.body for answer in sent]

    def _describe(self, answer: Answer, index: int) -> None:
        context = self._context
        if answer.status != 200:
            context.set_response_status(answer.status, answer.reason, index)
        if answer.content_type is not None:
            context.set_response_content_type(index, answer.content_type)
        for name, value in answer.headers.items():
            context.set_response_header(index, name, value)


def _is_last(answer: Answer, headers: Mapping[str, Any]) -> bool | None:
    """Whether an answer ends a stream; None where there is none.

    Over gRPC an answer that does not say that it is the last one takes the worker down, and in continuous batching a
    part that says that more follows is taken for the last.
    """
    if not over_http(headers):
        return True
    return None if answer.more is None else not answer.more


def _constant(value: bool | None) -> Callable[[Any], bool | None]:
    """What TorchServe asks of each answer in `context.stopping_criteria`."""
    return lambda _body: value
