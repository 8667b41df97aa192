"""The archive's entry, which TorchServe calls: `initialize` loads the archive, `handle` answers a batch of requests."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler

from heatserve.serving import heap, metrics, settings, start, threads
from heatserve.torchserve import batch, device, emitter, ending, modes, profiler

logger = logging.getLogger(__name__)


class ExplainHandler(BaseHandler):  # type: ignore[misc]
    """Predictions and explanations from one model. TorchServe allows no other class in this file."""

    def initialize(self, context: Any) -> None:
        """Loads the archive. An archive that cannot be served ends in one line of the log that says what to do."""
        self.context, self.manifest = context, context.manifest
        properties = context.system_properties
        self.device = device.device_of(properties.get("gpu_id"))
        threads.settle_threads(os.environ)
        try:
            self.settings = settings.read_settings(context.model_yaml_config, os.environ)
            # TorchServe tells the handler nothing of an envelope. Its loader, which calls this method, was told.
            envelope = sys._getframe(1).f_locals.get("envelope")
            modes.check_mode(self.settings, context.model_name, context.manifest, envelope)
            self.service = start.service(Path(properties["model_dir"]), context.manifest, self.settings, self.device)
        except start.START_ERRORS as error:
            logger.error("heatserve: this archive cannot be served: %s", error)
            raise
        self.model = self.service.explainer.model
        self.metrics = metrics.Metrics(emitter.emitter(context.metrics, MetricTypes, context.model_name))
        self.initialized = True
        self.heap = heap.Heap()
        self.heap.settle()
        logger.info("heatserve: ready: %s", self.service.summary())

    def handle(self, data: list[Any], context: Any) -> list[Any]:
        """Answers one batch; in continuous batching it does one step. No exception leaves, and no row is lost."""
        started = time.time()
        self.context = context
        given = batch.Batch(data, context, _send_parts)
        with profiler.profiler(self.service.info.name):
            reply = modes.reply_to(self.service, given)
        self.metrics.count(reply.facts)
        if reply.lost:
            logger.error("heatserve: this worker ends, so that TorchServe starts another")
            ending.end_once_answered(context)
        context.metrics.add_time("HandlerTime", round((time.time() - started) * 1000, 2), None, "ms")
        sent = given.answer(reply.answers)
        if not reply.left:
            self.heap.trim_when_idle()
        return sent


def _send_parts(bodies: Any, request_ids: Any, context: Any) -> None:
    send_intermediate_predict_response(bodies, request_ids, "Prediction success", 200, context)
