"""The script of a trial: it loads an unpacked archive as a TorchServe worker does, asks it, and writes its answers.

trial.py starts it in a process that sees the archive and the installed packages, nothing else:

    python -I trial_worker.py MODEL_DIR RESULT_JSON NAME [HIDDEN_FOLDER ...]

`metrics.yaml` lies beside RESULT_JSON.
"""

from __future__ import annotations

import base64
import errno
import importlib
import io
import json
import logging
import os
import struct
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HANDLER = "explain_handler"
METRICS = "metrics.yaml"
STEPS = 1000


class Failed(Exception):
    """The trial cannot go on; the message is one sentence."""


class Warned(logging.Handler):
    """The warnings of the handler, kept: nobody reads the log of a trial that went well."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage().removeprefix("heatserve: "))


def main(model_dir: str, result: str, name: str, *hidden: str) -> None:
    """Writes the answers, the warnings and the error, if any, as JSON."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    warned = Warned()
    logging.getLogger("heatserve").addHandler(warned)
    sys.path.insert(0, model_dir)
    hide(hidden, os.path.dirname(result))
    said: dict[str, Any] = {"error": "", "detail": "", "answers": {}}
    try:
        said["answers"] = ask(load(model_dir, name, os.path.join(os.path.dirname(result), METRICS)))
    except Failed as failure:
        said["error"] = str(failure)
        said["detail"] = traceback.format_exc()
    said["warnings"] = warned.messages
    said["modules"] = sorted({name.partition(".")[0] for name in sys.modules})
    Path(result).write_text(json.dumps(said), encoding="utf-8")


def hide(folders: Sequence[str], own: str) -> None:
    """Makes everything below these folders look absent to Python, as on a server, which has the archive alone.

    Installed packages, Python itself and `own`, the folder of this trial, stay in sight. Code that does not open its
    files by Python (a library in C++, a program that is started) still finds them.
    """
    importable = {os.path.realpath(place) for place in sys.path if place}
    visible = importable | {os.path.realpath(place) for place in (own, sys.prefix, sys.base_prefix)}

    def ancestors(path: str) -> list[str]:
        found = [path]
        while (parent := os.path.dirname(found[-1])) != found[-1]:
            found.append(parent)
        return found

    # A folder with installed packages is no folder of the author's own, nor is the whole disk.
    hidden = {place for place in folders if place != os.sep and importable.isdisjoint(ancestors(place))} - visible

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.listdir", "os.scandir") or not isinstance(arguments[0], (str, bytes)):
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        nearest = next((place for place in ancestors(path) if place in visible or place in hidden), None)
        if nearest in hidden:
            raise FileNotFoundError(errno.ENOENT, "it is not in the archive, and a server does not have it", path)

    if hidden:
        sys.addaudithook(watch)


def load(model_dir: str, name: str, metrics: str) -> Any:
    """The archive as TorchServe's loader makes it. Raises Failed."""
    # Plainly first: TorchServe's loader hides an import error behind "No module named ts.torch_handler...".
    try:
        importlib.import_module(HANDLER)
    except BaseException as error:
        raise Failed(f"The handler cannot be imported: {sentence(error)}") from error
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.model_loader import ModelLoaderFactory

    cache = MetricsCacheYamlImpl(metrics)
    cache.initialize_cache()
    cache.model_name = name
    try:
        service = ModelLoaderFactory.get_model_loader().load(
            name, model_dir, f"{HANDLER}.py", None, 3, None, True, metrics_cache=cache
        )
    except BaseException as error:
        raise Failed(f"The archive does not load: {sentence(error)}") from error
    service.set_cl_socket(None)
    return service


def ask(service: Any) -> dict[str, dict[str, Any]]:
    """The answers to a prediction, an explanation and `describe` in one batch. Raises Failed.

    In continuous batching the requests without an answer are given again.
    """
    picture = photograph()
    waiting = {kind: request(kind, picture) for kind in ("prediction", "explanation", "description")}
    answers: dict[str, dict[str, Any]] = {}
    for _ in range(STEPS):
        try:
            code, message, answered = parse(bytes(service.predict(list(waiting.values()))))
        except BaseException as error:  # SystemExit too
            raise Failed(f"The handler failed: {sentence(error)}") from error
        if code != 200:
            raise Failed(f"The handler failed: {message} (see --verbose).")
        answers.update(answered)
        for done in answered:
            waiting.pop(done, None)
        if not waiting:
            return answers
    raise Failed(f"The handler left {' and '.join(waiting)} without an answer for {STEPS} steps.")


def request(kind: str, picture: bytes) -> dict[str, Any]:
    """A row of a batch, as TorchServe's frontend makes it."""
    picture = b"" if kind == "description" else picture
    headers = {"Content-Type": "image/png", "Content-Length": str(len(picture))}
    if kind != "prediction":
        headers["explain"] = "True"
    if kind == "description":
        headers["url_path"] = "describe"
    return {
        "requestId": kind.encode(),
        "headers": [{"name": key.encode(), "value": value.encode()} for key, value in headers.items()],
        "parameters": [{"name": "body", "contentType": "image/png", "value": bytearray(picture)}],
    }


def photograph() -> bytes:
    """A PNG of a bright disc before a shaded, grainy ground."""
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
    """The code and message of TorchServe's binary answer, and each of its rows by its request's id."""
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


def sentence(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    if not text or not isinstance(error, Exception):
        text = f"{type(error).__name__} {text}".rstrip()
    return text if len(text) <= 500 else text[:499] + "…"


if __name__ == "__main__":
    main(*sys.argv[1:])
