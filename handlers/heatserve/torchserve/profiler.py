"""TorchServe's profiler, which its BaseHandler runs around each batch."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..serving.errors import where

logger = logging.getLogger(__name__)


@contextmanager
def profiler(model: str) -> Iterator[None]:
    """A context that writes a Chrome trace into BaseHandler's folder, if ENABLE_TORCH_PROFILER is set.

    A fault of the profiler is a line in the log: a trace is not worth an answer.
    """
    profile = _started(model) if os.environ.get("ENABLE_TORCH_PROFILER") else None
    try:
        yield
    finally:
        if profile is not None:
            _stop(profile)


def _started(model: str) -> torch.profiler.profile | None:
    folder = os.path.join("/tmp/pytorch_profiler", model)
    try:
        ready = torch.profiler.tensorboard_trace_handler(folder)
        profile = torch.profiler.profile(record_shapes=True, on_trace_ready=ready)
        profile.start()
        return profile
    except Exception as error:
        logger.error("heatserve: the profiler failed: %s", where(error))
        return None


def _stop(profile: torch.profiler.profile) -> None:
    try:
        profile.stop()
    except Exception as error:
        logger.error("heatserve: the profiler failed: %s", where(error))
