"""The archive's entry: TorchServe calls `initialize` once, and `handle` for each batch."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler

from heatserve.serving import answers as answering
from heatserve.serving import ending, errors, metrics, settings, start
from heatserve.serving.batch import Batch
from heatserve.serving.exchange import Visit
from heatserve.serving.heap import Heap

logger = logging.getLogger(__name__)


class ExplainHandler(BaseHandler):  # type: ignore[misc]
    """Predictions and explanations from one model. The only class here, as TorchServe requires."""

    def initialize(self, context: Any) -> None:
        """Loads the archive. What cannot be served ends here, with one line in the log that says what to do."""
        self.context, self.manifest = context, context.manifest
        properties = context.system_properties
        self.device = start.device(properties.get("gpu_id"))
        try:
            self.settings = settings.read_settings(context.model_yaml_config, os.environ)
            # TorchServe tells nobody of an envelope, but its loader, which calls this method, was told.
            envelope = sys._getframe(1).f_locals.get("envelope")
            start.check_mode(self.settings, context.model_name, context.manifest, envelope)
            self.service = start.service(Path(properties["model_dir"]), context.manifest, self.settings, self.device)
        except start.START_ERRORS as error:
            logger.error("heatserve: this archive cannot be served: %s", error)
            raise
        self.model = self.service.explainer.model
        self.metrics = metrics.Metrics(metrics.emitter(context.metrics, MetricTypes, context.model_name))
        self.initialized = True
        self.heap = Heap()
        self.heap.settle()
        logger.info("heatserve: ready: %s", self.service.summary())

    def handle(self, data: list[Any], context: Any) -> list[Any]:
        """One batch, or in continuous batching one step: no exception leaves, and no row is lost."""
        started = time.time()
        self.context = context
        batch = Batch(data, context, _send_parts)
        try:
            with self._profiler():
                answers = self._answers(batch)
        except Exception as error:
            logger.error("heatserve: the batch failed: %s", errors.where(error))
            failed = self.service.loop.fail(batch.rows(), error)
            answers = {request_id: _write(self.service.responder, visit) for request_id, visit in failed.items()}
        if self.service.loop.lost is not None:
            answers = {**answers, **self._last_answers(batch, answers, self.service.loop.lost)}
            logger.error("heatserve: this worker ends, so that TorchServe starts another")
            ending.end_once_answered(context)
        context.metrics.add_time("HandlerTime", round((time.time() - started) * 1000, 2), None, "ms")
        sent = batch.answer(answers)
        if not self.service.loop.visits:
            self.heap.trim_when_idle()
        return sent

    def _answers(self, batch: Batch) -> dict[str, answering.Answer]:
        loop, writer = self.service.loop, self.service.responder
        given_up = loop.begin(batch.ids)
        new: list[Visit] = []
        for row in batch:
            if row[0] not in loop.visits and not (new and loop.late):
                new.append(loop.admit(*row))
        loop.step()
        while loop.busy and not self.settings.continuous:
            batch.send(self._lines())
            loop.step()
        done: list[Visit] = []
        answers = {}
        for request_id in loop.done:
            if not (done and loop.late):
                done.append(loop.take(request_id))
                answers[request_id] = _write(writer, done[-1])
        lines = self._lines()
        self.metrics.seen(metrics.Seen(new, done, given_up, loop.under_way, self.service.explainer.fallbacks))
        return {**answers, **lines}

    def _last_answers(
        self, batch: Batch, answers: dict[str, answering.Answer], lost: errors.Refusal
    ) -> dict[str, answering.Answer]:
        """Answers for all rows that have none yet, or a part of a stream: nobody will come back to them."""
        loop, writer = self.service.loop, self.service.responder
        left = {name: row for name, row in batch.rows().items() if name not in answers or answers[name].more}
        finished = {name: _write(writer, loop.take(name)) for name in loop.done if name in left}
        failed = loop.fail({name: row for name, row in left.items() if name not in finished}, lost)
        return {**finished, **{name: _write(writer, visit) for name, visit in failed.items()}}

    def _lines(self) -> dict[str, answering.Answer]:
        """What streams have to say by now."""
        lines = {}
        for name, exchange in self.service.loop.improved().items():
            found = self.service.responder.line(exchange.outcome())
            if isinstance(found, errors.Refusal):
                exchange.refuse(found)
                continue
            exchange.seconds.update(found.facts[0].seconds)
            exchange.lines = exchange.improvements
            lines[name] = found.answer
        return lines

    def _profiler(self) -> Any:
        """TorchServe's ENABLE_TORCH_PROFILER: a Chrome trace of each batch, where BaseHandler writes it."""
        if not os.environ.get("ENABLE_TORCH_PROFILER"):
            return nullcontext()
        folder = os.path.join("/tmp/pytorch_profiler", self.service.info.name)
        return torch.profiler.profile(
            record_shapes=True, on_trace_ready=torch.profiler.tensorboard_trace_handler(folder)
        )


def _send_parts(bodies: Any, request_ids: Any, context: Any) -> None:
    send_intermediate_predict_response(bodies, request_ids, "Prediction success", 200, context)


def _write(responder: Any, visit: Visit) -> answering.Answer:
    found = responder.respond(visit.door, [each.outcome() for each in visit.exchanges], visit.exchanges[0].lines)
    for exchange, facts in zip(visit.exchanges, found.facts):
        if facts.refusal is not None:
            exchange.refuse(facts.refusal)
        exchange.seconds.update(facts.seconds)
        exchange.empty_maps = facts.empty_maps
    return found.answer
