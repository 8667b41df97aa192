"""`kill -9` of the worker under load in continuous batching: which clients get an answer, and when it serves again."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial

import requests

from devtools.bench import archives
from devtools.bench.crowd import Crowd
from devtools.bench.endpoint import EXPLANATIONS, HEADERS, PREDICTIONS, SMOOTHGRAD, live_server
from devtools.bench.results import Result
from devtools.bench.rounds import Progress
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

#: Asked: seconds until the model serves again.
LIMIT = 10.0
#: The requests of each client.
CLIENTS: tuple[tuple[str, Mapping[str, str]], ...] = (
    *(((PREDICTIONS, {}),) * 4),
    *(((EXPLANATIONS, SMOOTHGRAD),) * 2),
    (EXPLANATIONS, {}),
    (EXPLANATIONS, {**SMOOTHGRAD, "Accept": "application/x-ndjson"}),
)


def measure(deaths: int, progress: Progress) -> list[Result]:
    """Kills the worker so many times, each time while predictions, explanations and a stream are under way."""
    image = photographs()["chelsea"]
    answers, unanswered = Counter[str](), list[str]()
    with live_server() as server:

        def ask(api: str, headers: Mapping[str, str]) -> None:
            try:
                answers[f"{api} {_post(server, api, image, headers)}"] += 1
            except requests.exceptions.ChunkedEncodingError:
                # The status was sent before the worker died, so the client sees that the rest is missing.
                answers[f"{api}, a stream cut after it had begun"] += 1
            except requests.RequestException as error:
                unanswered.append(f"{api} {dict(headers)}: {error!r}"[:1000])
                time.sleep(0.05)

        seconds = []
        with Crowd([partial(ask, api, headers) for api, headers in CLIENTS]) as crowd, crowd.busy():
            for index in range(deaths):
                time.sleep(3.0)
                seconds.append(_death(server, image))
                progress((index + 1) / deaths)
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
            if _post(server, PREDICTIONS, image, {}) == 200:
                break
        except requests.RequestException:
            pass
        time.sleep(0.05)
    return time.monotonic() - died


def _post(server: Server, api: str, image: bytes, headers: Mapping[str, str]) -> int:
    url = f"{server.inference}/{api}/{archives.NAME}"
    return requests.post(url, data=image, headers={**HEADERS, **headers}, timeout=120).status_code
