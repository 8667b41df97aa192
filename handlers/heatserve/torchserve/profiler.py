"""TorchServe's profiler, which its BaseHandler runs around each batch."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def profiler(model: str) -> AbstractContextManager[Any]:
    """A context that writes a Chrome trace into BaseHandler's folder, if ENABLE_TORCH_PROFILER is set."""
    if not os.environ.get("ENABLE_TORCH_PROFILER"):
        return nullcontext()
    folder = os.path.join("/tmp/pytorch_profiler", model)
    return torch.profiler.profile(record_shapes=True, on_trace_ready=torch.profiler.tensorboard_trace_handler(folder))
