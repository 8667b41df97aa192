"""Loads an unpacked archive as a TorchServe worker does, asks it twice, and writes down what it said.

Started by proof.py in a process of its own that sees the archive and the installed packages, nothing else:

    python -I prove.py MODEL_DIR NAME METRICS_YAML RESULT_JSON
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import logging
import struct
import sys
import traceback
from pathlib import Path
from typing import Any

HANDLER = "explain_handler"
STEPS = 1000


class Failed(Exception):
    """One sentence on what went wrong."""


def main(model_dir: str, name: str, metrics: str, result: str) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    sys.path.insert(0, model_dir)
    said: dict[str, Any] = {"error": "", "detail": "", "answers": [], "methods": []}
    try:
        service = load(model_dir, name, metrics)
        said["answers"] = ask(service)
        said["methods"] = methods()
    except Failed as failure:
        said["error"] = str(failure)
        said["detail"] = traceback.format_exc()
    Path(result).write_text(json.dumps(said), encoding="utf-8")


def load(model_dir: str, name: str, metrics: str) -> Any:
    # Plainly first: TorchServe's loader hides an import error behind "No module named ts.torch_handler...".
    try:
        importlib.import_module(HANDLER)
    except Exception as error:
        raise Failed(f"The handler cannot be imported: {sentence(error)}") from error
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.model_loader import ModelLoaderFactory

    cache = MetricsCacheYamlImpl(metrics)
    cache.initialize_cache()
    cache.model_name = name
    try:
        service = ModelLoaderFactory.get_model_loader().load(
            name, model_dir, f"{HANDLER}.py", None, 2, None, True, metrics_cache=cache
        )
    except Exception as error:
        raise Failed(f"The archive does not load: {sentence(error)}") from error
    service.set_cl_socket(None)
    return service


def ask(service: Any) -> list[dict[str, Any]]:
    """One prediction and one explanation in one batch; in continuous batching the rest comes again."""
    picture = photograph()
    waiting = {"prediction": request("prediction", picture), "explanation": request("explanation", picture)}
    answers: dict[str, dict[str, Any]] = {}
    for _ in range(STEPS):
        code, message, answered = parse(bytes(service.predict(list(waiting.values()))))
        if code != 200:
            raise Failed(f"The handler failed: {message} (see --verbose).")
        answers.update(answered)
        for done in answered:
            waiting.pop(done, None)
        if not waiting:
            return [answers["prediction"], answers["explanation"]]
    raise Failed(f"The handler left {' and '.join(waiting)} without an answer for {STEPS} steps.")


def request(kind: str, picture: bytes) -> dict[str, Any]:
    headers = {"Content-Type": "image/png", "Content-Length": str(len(picture))}
    if kind == "explanation":
        headers["explain"] = "True"
    return {
        "requestId": kind.encode(),
        "headers": [{"name": key.encode(), "value": value.encode()} for key, value in headers.items()],
        "parameters": [{"name": "body", "contentType": "image/png", "value": bytearray(picture)}],
    }


def photograph() -> bytes:
    """A PNG of a bright disc before a shaded, grainy ground: a map has something to show."""
    import numpy as np
    from PIL import Image

    height, width = 300, 450
    y, x = np.mgrid[0:height, 0:width]
    ground = np.stack([60 + x / 4, 90 + y / 3, 140 - x / 5], axis=-1)
    disc = (y - 140) ** 2 + (x - 250) ** 2 < 80**2
    ground[disc] = [210, 160, 70]
    grain = np.random.default_rng(0).normal(0, 12, ground.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(ground + grain, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def parse(message: bytes) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """TorchServe's binary answer: the batch's code and message, and each row by its request's id."""
    stream = io.BytesIO(message)

    def number() -> int:
        return int(struct.unpack("!i", stream.read(4))[0])

    def text() -> str:
        return stream.read(number()).decode()

    code, said = number(), text()
    rows: dict[str, dict[str, Any]] = {}
    while (length := number()) != -1:
        row_id = stream.read(length).decode()
        content_type, status, _phrase = text(), number(), text()
        headers = {text(): text() for _ in range(number())}
        body = base64.b64encode(stream.read(number())).decode()
        rows[row_id] = {"status": status, "content_type": content_type, "headers": headers, "body": body}
    return code, said, rows


def methods() -> list[str]:
    return list(importlib.import_module("heatserve").METHODS)


def sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else text[:499] + "…"


if __name__ == "__main__":
    main(*sys.argv[1:])
