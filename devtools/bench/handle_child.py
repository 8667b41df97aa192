"""The process of one handler for `devtools.bench.handle`: EfficientNet-Lite0 behind the handler that PYTHONPATH finds.

    python -m devtools.bench.handle_child CLOCK

CLOCK is the name of a function of Python's `time`. The process reads lines `KIND COUNT`, and answers each with a line
of JSON: for every request the seconds of `PARTS`.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from devtools.recorded import networks
from devtools.recorded.archives import Scene
from devtools.recorded.pictures import picture
from devtools.recorded.rows import member, raw

#: handle: the whole call. decode: of the picture, to the tensor that the network sees. network: its forward pass.
#: rest: the call without these two.
PARTS = ("handle", "decode", "network", "rest")
_PICTURE = picture(450, 300, 7, "JPEG")
#: A map as an array takes no time to draw, and one in JSON is a PNG.
KINDS = {
    "prediction": raw(_PICTURE, False),
    "Grad-CAM, npy": member(_PICTURE, output="npy"),
    "Grad-CAM, JSON": member(_PICTURE),
}
#: Seconds of the current request. The handler's own stages are told of explanations alone, so these are taken around
#: functions that predictions pass too: `handle`, `imaging.decode`, `Preprocess.tensor` and the network.
_seconds = dict.fromkeys(PARTS, 0.0)


def _timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    clock = getattr(time, sys.argv[1])

    @wraps(function)
    def measured(*arguments: Any, **options: Any) -> Any:
        started = clock()
        try:
            return function(*arguments, **options)
        finally:
            _seconds[part] += clock() - started

    return measured


def network() -> Any:
    """The archive's architecture."""
    made = networks.lite0()
    made.forward = _timed("network", made.forward)
    return made


def _worker(folder: Path) -> Any:
    # Before the handler is imported: it takes the function out of the package.
    from heatserve import imaging

    imaging.decode = _timed("decode", imaging.decode)
    imaging.Preprocess.tensor = _timed("decode", imaging.Preprocess.tensor)  # type: ignore[method-assign]
    from explain_handler import ExplainHandler

    ExplainHandler.handle = _timed("handle", ExplainHandler.handle)  # type: ignore[method-assign]
    from devtools.recorded.worker import Worker

    view = {"resize": 256, "crop": 224, "interpolation": "bicubic"}
    architecture = {"architecture": "devtools.bench.handle_child:network"}
    return Worker(Scene(preprocess=view, labels=(), manifest=architecture), folder)


def _request(worker: Any, kind: str) -> dict[str, float]:
    _seconds.update(dict.fromkeys(PARTS, 0.0))
    answer = worker.ask({"row": KINDS[kind]})["answers"]["row"]
    assert answer["status"] == 200, answer
    return {**_seconds, "rest": _seconds["handle"] - _seconds["decode"] - _seconds["network"]}


def main() -> None:
    import torch

    torch.set_num_threads(1)
    # Writing the log is TorchServe's time.
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        worker = _worker(Path(folder) / "archive")
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            kind, count = line.rsplit(maxsplit=1)
            print(json.dumps([_request(worker, kind) for _ in range(int(count))]), flush=True)


if __name__ == "__main__":
    # As a module of its own name: the archive names a function of it.
    from devtools.bench import handle_child

    handle_child.main()
