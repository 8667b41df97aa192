"""One worker in process: the handler behind TorchServe's own `Service.predict`, and the part of its frontend."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from devtools.recorded import archives
from devtools.recorded.archives import Scene
from devtools.recorded.clock import CLOCK
from devtools.recorded.rows import Row

#: The longest that a case may take, in calls of the handler.
CALLS = 5_000
#: Declares nothing: the handler then declares its metrics by itself, and the recording shows how.
METRICS = "model_metrics:\n  gauge:\n    - name: HandlerTime\n      unit: ms\n      dimensions: [ModelName, Level]\n"


class Connection:
    """A socket to the frontend that keeps the messages sent before a call ends."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.shut = False

    def sendall(self, message: bytes) -> None:
        self.sent.append(bytes(message))

    def shutdown(self, _how: int) -> None:
        self.shut = True


class Worker:
    """One handler with its archive, from start to end."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
        from ts.service import Service

        from explain_handler import ExplainHandler

        CLOCK.restart(scene.seconds_per_row)
        self.scene = scene
        manifest = archives.write(scene, folder)
        (folder / "metrics.yaml").write_text(METRICS)
        metrics = MetricsCacheYamlImpl(str(folder / "metrics.yaml"))
        metrics.initialize_cache()
        metrics.model_name = "recorded"
        handler = ExplainHandler()
        self._service = Service("recorded", str(folder), manifest, handler.handle, None, 64, True, metrics)
        self._connection = Connection()
        self._service.set_cl_socket(self._connection)
        # With threads the pictures that share a pass would be a matter of time, and with them the last digits.
        alone = {"HEATSERVE_PICTURE_THREADS": os.environ.get("HEATSERVE_PICTURE_THREADS", "0")}
        with mock.patch.dict(os.environ, {**alone, **scene.environment}):
            handler.initialize(self._service.context)

    def ask(self, rows: Mapping[str, Row]) -> dict[str, Any]:
        """The answers to rows, which are sent until all are answered, with the call of each answer, and the metrics."""
        waiting = dict(rows)
        streaming: set[str] = set()
        answers: dict[str, Any] = {}
        parts: dict[str, list[Any]] = {}
        calls: list[list[str]] = []
        self._connection.sent.clear()
        with _emitted() as metrics:
            for call in range(CALLS):
                waiting = {name: row for name, row in waiting.items() if row.leaves is None or call < row.leaves}
                if not waiting:
                    break
                present = {name: row for name, row in waiting.items() if row.arrives <= call}
                if not present:
                    calls.append([])
                    continue
                batch = [_request(name, row, name in streaming) for name, row in present.items()]
                message = bytes(self._service.predict(batch))
                found = [*map(parse, self._connection.sent), parse(message)]
                self._connection.sent.clear()
                for code, said, answered in found:
                    if code != 200:
                        raise RuntimeError(f"TorchServe refused the batch: {said}")
                    for name, answer in answered.items():
                        if answer["headers"].get("ts_stream_next") == "true":
                            streaming.add(name)
                            parts.setdefault(name, []).append(answer)
                        else:
                            answers[name] = answer
                            del waiting[name]
                calls.append([name for *_, answered in found for name in answered])
            else:
                raise RuntimeError(f"after {CALLS} calls there is no answer for {', '.join(waiting)}")
        record: dict[str, Any] = {"answers": answers, "metrics": metrics}
        if parts:
            record["parts"] = parts
        if self.scene.continuous:
            record["calls"] = calls
        if self._connection.shut:
            record["connection"] = "shut"
        return record


def _request(name: str, row: Row, streaming: bool) -> dict[str, Any]:
    """A row as the worker reads it; from the second part of a stream on the frontend sends no body."""
    parameters: Sequence[Any] = () if streaming else row.parameters
    return {
        "requestId": name.encode(),
        "headers": [{"name": key.encode(), "value": value.encode()} for key, value in row.headers.items()],
        "parameters": [
            {
                "name": key,
                "contentType": content_type,
                "value": bytearray(value) if isinstance(value, bytes) else value,
            }
            for key, content_type, value in parameters
        ],
    }


@contextmanager
def _emitted() -> Any:
    """Collects every value that TorchServe's metrics get: name, unit, value, dimensions and type."""
    from ts.metrics.caching_metric import CachingMetric

    lines: list[str] = []

    def emit(self: Any, request_id: str, value: Any, dimension_string: str) -> None:
        lines.append(f"{self.metric_name}.{self.unit}:{value}|#{dimension_string}|#type:{self.metric_type.name}")

    with mock.patch.object(CachingMetric, "emit_metrics", emit):
        yield lines


def parse(message: bytes) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """TorchServe's answer to a batch: its code and message, and each row's answer by the request's id."""
    stream = io.BytesIO(message)

    def number() -> int:
        return int(struct.unpack("!i", stream.read(4))[0])

    def text() -> str:
        return stream.read(number()).decode("utf-8")

    code, said = number(), text()
    rows: dict[str, dict[str, Any]] = {}
    while (length := number()) != -1:
        name = stream.read(length).decode("utf-8")
        content_type, status, reason = text(), number(), text()
        headers = {text(): text() for _ in range(number())}
        rows[name] = {
            "status": status,
            "reason": reason,
            "content_type": content_type,
            "headers": headers,
            "body": stream.read(number()),
        }
    return code, said, rows
