"""Hostile requests to a real TorchServe, with a good request beside each of them."""

from __future__ import annotations

import io
import random
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
import yaml

from devtools.agreement import KINK, distance
from devtools.fuzz import bodies
from devtools.fuzz.findings import Findings
from devtools.fuzz.senders import PROTOCOLS, SILENCE, Response, Sender
from devtools.grpc_client import GrpcClient
from heatserve_tools.demo import lite0
from heatserve_tools.torchserve.server import Server

THREADS = 4
#: A model with a small view and low limits, so that a request takes little time.
CONFIG = {
    "batchSize": 8,
    "maxBatchDelay": 10,
    "preprocess": {"resize": bodies.SIDE + 8, "crop": bodies.SIDE},
    "explain": {"max_samples": 20, "max_pixels": 10_000_000, "layer": [*bodies.LAYERS]},
}
#: The archives by the names of their models, each with its activation.
MODELS = {"lite0": "softmax", "labels": "sigmoid"}
_GROWTH = 1.10


def hostile_server(folder: Path, continuous: bool) -> Server:
    """A server of two models, which are lite0, in one of the two modes. folder: for its archives."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    archives = {
        name: lite0.build(folder, name, config, continuous=continuous, activation=activation).path
        for name, activation in MODELS.items()
    }
    # The frontend's own limits: the handler's answers must stay below the second.
    return Server(archives, {"max_request_size": "10485760", "max_response_size": "6553500"})


def attack(
    server: Server,
    protocols: Sequence[str],
    count: int,
    seed: int,
    findings: Findings,
    advance: Callable[[], None],
) -> None:
    """Sends so many hostile requests, by the protocols in turn. advance: called after each."""
    workers = {model: psutil.Process(server.worker_pids(model)[0]) for model in MODELS}
    goods = {model: Good(server, model) for model in MODELS}
    lock = threading.Lock()

    def one(index: int) -> None:
        chosen = random.Random(seed * 1_000_003 + index)
        protocol = protocols[index % len(protocols)]
        model = [*MODELS][index // len(protocols) % len(MODELS)]
        with ThreadPoolExecutor(1) as beside:
            asked = beside.submit(goods[model].ask, index)
            try:
                response = PROTOCOLS[protocol](Sender(server, model, client), chosen)
            except SILENCE as error:
                response = Response(-1, b"", f"request {index} of seed {seed}", f"no answer: {error!r}")
            except Exception:
                response = Response(-2, b"", f"request {index} of seed {seed}", traceback.format_exc())
            fault = asked.result()
        with lock:
            findings.take(protocol, response)
            if fault:
                findings.wrong.append(f"the good request beside {protocol} {response.request[:500]}: {fault}")
            if index % 20 == 0 and all(worker.is_running() for worker in workers.values()):
                findings.resident.append(sum(worker.memory_info().rss for worker in workers.values()) / 1e6)
            advance()

    with GrpcClient(server.grpc_inference) as client, ThreadPoolExecutor(THREADS) as pool:
        try:
            for done in [pool.submit(one, index) for index in range(count)]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for model, worker in workers.items():
        if server.worker_pids(model) != [worker.pid]:
            became = server.worker_pids(model)
            findings.wrong.append(f"the worker of {model} was started again: {worker.pid} became {became}")
    forged = [line for line in server.log().splitlines() if line.lstrip().startswith("[METRICS]forged")]
    text = requests.get(f"{server.metrics}/metrics", timeout=10).text
    if forged or "forged" in text:
        findings.wrong.append(f"a line of the log was forged: {forged[:1]}")
    if count >= 2_000 and findings.growth > _GROWTH:
        findings.wrong.append(f"the worker's memory grew {findings.growth:.2f} times")


class Good:
    """Requests to one model with known right answers, predictions and maps in turn."""

    def __init__(self, server: Server, model: str) -> None:
        self._url, self._model = server.inference, model
        self._image = bodies.good()
        self._prediction = self._predicted()
        self._map = self._mapped()

    def ask(self, index: int) -> str:
        """Sends one. Gives the fault of its answer, "" where it has none."""
        try:
            if index % 3:
                found = self._predicted()
                same = found.keys() == self._prediction.keys()
                right = same and all(abs(found[k] - self._prediction[k]) < 1e-4 for k in found)
                return "" if right else f"{found} instead of {self._prediction}"
            off = distance(self._mapped(), self._map)
            return "" if off <= KINK else f"the map differs by {off:.3g} of its maximum"
        except Exception as error:
            return repr(error)

    def _predicted(self) -> dict[str, float]:
        found: dict[str, float] = self._post("predictions", {}).json()
        return found

    def _mapped(self) -> Any:
        return np.load(io.BytesIO(self._post("explanations", {"X-Explain-Output": "npy"}).content))

    def _post(self, api: str, headers: dict[str, str]) -> requests.Response:
        every = {"Content-Type": "image/png", **headers}
        response = requests.post(f"{self._url}/{api}/{self._model}", data=self._image, headers=every, timeout=120)
        response.raise_for_status()
        return response
