"""The archive's entry: TorchServe calls `initialize` once, and `handle` for each batch."""

from __future__ import annotations

import logging
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler

from heatserve.serving import errors, metrics, responses, settings, start

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
            self.service = start.service(Path(properties["model_dir"]), context.manifest, self.settings, self.device)
        except start.START_ERRORS as error:
            logger.error("heatserve: this archive cannot be served: %s", error)
            raise
        self.model = self.service.explainer.model
        self.metrics = metrics.Metrics(metrics.emitter(context.metrics, MetricTypes, context.model_name))
        self.initialized = True
        logger.info("heatserve: ready: %s", self.service.summary())

    def handle(self, data: list[Any], context: Any) -> list[Any]:
        """One batch: each row in gives exactly one answer out, and no exception leaves."""
        started = time.time()
        self.context = context
        try:
            with self._profiler():
                answers = self._answers(data, context)
        except Exception as error:
            logger.error("heatserve: the batch failed: %s", errors.where(error))
            self.service.loop.exchanges.clear()
            answers = [responses.failure(error)] * len(data)
        context.metrics.add_time("HandlerTime", round((time.time() - started) * 1000, 2), None, "ms")
        return [self._send(context, index, answer) for index, answer in enumerate(answers)]

    def _answers(self, data: list[Any], context: Any) -> list[responses.Answer]:
        loop = self.service.loop
        ids = [context.get_request_id(index) for index in range(len(data))]
        for index, row in enumerate(data):
            loop.admit(ids[index], row, context.get_all_request_header(index))
        while loop.busy:
            loop.step()
        exchanges = [loop.take(request_id) for request_id in ids]
        answers = [self.service.writer.write(exchange) for exchange in exchanges]
        self.metrics.batch(exchanges, answers, self.service.explainer.fallbacks)
        return answers

    def _send(self, context: Any, index: int, answer: responses.Answer) -> Any:
        if answer.status != 200:
            context.set_response_status(answer.status, answer.reason, index)
        if answer.content_type is not None:
            context.set_response_content_type(index, answer.content_type)
        for name, value in answer.headers.items():
            context.set_response_header(index, name, value)
        return answer.body

    def _profiler(self) -> Any:
        """TorchServe's ENABLE_TORCH_PROFILER: a Chrome trace of each batch, where BaseHandler writes it."""
        if not os.environ.get("ENABLE_TORCH_PROFILER"):
            return nullcontext()
        folder = os.path.join("/tmp/pytorch_profiler", self.service.info.name)
        return torch.profiler.profile(
            record_shapes=True, on_trace_ready=torch.profiler.tensorboard_trace_handler(folder)
        )
