"""The rows of one `handle` call. Some of them are answered while the others stay, or get a part of their answer.

In continuous batching the rows that an answer leaves out stay with the frontend and come again. TorchServe builds the
answer of `ts.service.predict` from three objects: `data`, `context.request_ids` and `context.request_processor`. They
are shrunk in place to the rows that are answered. TorchServe 0.12.0, the last one, works so; a test holds it to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..serving.answers import Answer
from ..serving.contract import Row
from ..serving.protocols import over_http

#: Sends parts of answers before `handle` returns them, as TorchServe's send_intermediate_predict_response does.
SendParts = Callable[["Mapping[int, Any]", "Mapping[int, str]", Any], None]


class Batch:
    """The rows that TorchServe hands over to one call.

    rows: in TorchServe's order.
    """

    def __init__(self, data: list[Any], context: Any, send_parts: SendParts) -> None:
        self._data, self._context, self._send_parts = data, context, send_parts
        self.rows = [
            Row(context.request_ids[index], body, context.get_all_request_header(index))
            for index, body in enumerate(data)
        ]

    def send(self, parts: Mapping[str, Answer]) -> None:
        """Sends parts of streams at once, by request id. Their rows stay."""
        streaming = {index: row.id for index, row in enumerate(self.rows) if row.id in parts}
        if not streaming:
            return
        for index, request_id in streaming.items():
            self._describe(parts[request_id], index)
        bodies = {index: parts[request_id].body for index, request_id in streaming.items()}
        self._send_parts(bodies, streaming, self._context)

    def answer(self, answers: Mapping[str, Answer]) -> list[Any]:
        """Sends answers by request id. A row without one stays. Gives the bodies that `handle` is to return."""
        context = self._context
        answered = [index for index, row in enumerate(self.rows) if row.id in answers]
        rows = [self._data[index] for index in answered]
        processors = [context.request_processor[index] for index in answered]
        self._data[:] = rows
        context.request_processor[:] = processors
        context.request_ids.clear()
        context.request_ids.update(enumerate(self.rows[index].id for index in answered))
        sent = [answers[self.rows[index].id] for index in answered]
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
    """Whether an answer ends a stream; None where there is no stream.

    Over gRPC every answer says that it is the last one, or the worker would go down. In continuous batching TorchServe
    takes every part of a gRPC stream for the last one, whatever the part says.
    """
    if not over_http(headers):
        return True
    return None if answer.more is None else not answer.more


def _constant(value: bool | None) -> Callable[[Any], bool | None]:
    """A function that gives the value: TorchServe calls one for each answer, from `context.stopping_criteria`."""
    return lambda _body: value
