"""`kill -9` of the worker under load in continuous batching: who is answered, and when it serves again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import requests

from devtools.bench import archives
from devtools.bench.endurance import live_server
from devtools.bench.results import Result
from devtools.bench.rounds import Seen
from devtools.bench.servers import HEADERS
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

LIMIT = 10.0
_SMOOTH = {"X-Explain-Method": "smoothgrad"}
CROWD: tuple[tuple[str, Mapping[str, str]], ...] = (
    *((("predictions", {}),) * 4),
    *((("explanations", _SMOOTH),) * 2),
    ("explanations", {}),
    ("explanations", {**_SMOOTH, "Accept": "application/x-ndjson"}),
)


def measure(deaths: int, seen: Seen) -> list[Result]:
    """Kills the worker so many times, each time while predictions, explanations and a stream are under way."""
    image = photographs()["chelsea"]
    answers, unanswered = Counter[str](), list[str]()
    with live_server() as server, ThreadPoolExecutor(len(CROWD)) as pool:
        over = threading.Event()

        def client(what: str, headers: Mapping[str, str]) -> None:
            while not over.is_set():
                try:
                    answers[f"{what} {_post(server, what, image, headers)}"] += 1
                except requests.exceptions.ChunkedEncodingError:
                    # Its status was sent before the worker died: the client sees that the rest is missing.
                    answers[f"{what}, a stream cut after it had begun"] += 1
                except requests.RequestException as error:
                    unanswered.append(f"{what} {dict(headers)}: {error!r}"[:1000])
                    time.sleep(0.05)

        clients = [pool.submit(client, *each) for each in CROWD]
        try:
            seconds = []
            for index in range(deaths):
                time.sleep(3.0)
                seconds.append(_death(server, image))
                seen((index + 1) / deaths)
        finally:
            over.set()
        for each in clients:
            each.result()
    return [
        Result(
            f"kill -9 of the worker under load, {deaths} times: longest time until it serves again",
            max(seconds),
            "s",
            limit=LIMIT,
            detail={"seconds": [round(second, 2) for second in seconds]},
        ),
        Result(
            "clients that got no answer at all",
            len(unanswered),
            "",
            limit=0,
            detail={"answers": dict(sorted(answers.items())), "unanswered": unanswered[:20]},
        ),
    ]


def _death(server: Server, image: bytes) -> float:
    """The seconds from the worker's death to the next good answer."""
    for pid in server.worker_pids(archives.NAME):
        os.kill(pid, signal.SIGKILL)
    died = time.monotonic()
    while time.monotonic() - died < 120:
        try:
            if _post(server, "predictions", image, {}) == 200:
                break
        except requests.RequestException:
            pass
        time.sleep(0.05)
    return time.monotonic() - died


def _post(server: Server, what: str, image: bytes, headers: Mapping[str, str]) -> int:
    url = f"{server.inference}/{what}/{archives.NAME}"
    return requests.post(url, data=image, headers={**HEADERS, **headers}, timeout=120).status_code
