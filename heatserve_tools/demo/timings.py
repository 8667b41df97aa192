"""The tables of the demo: seconds that answers take through the server."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import track
from rich.table import Table

from heatserve_tools.demo import asking
from heatserve_tools.demo.asking import METHODS
from heatserve_tools.demo.photographs import photographs

_PREDICTION = "prediction"


def of_methods(address: str, repeat: int, console: Console) -> Table:
    """The latency of a prediction and of each method, as medians and as multiples of the prediction's."""
    image = photographs()["chelsea"]
    seconds: dict[str, list[float]] = {asked: [] for asked in (_PREDICTION, *METHODS)}
    for _ in track(range(repeat), "Timing each method", console=console, transient=True):
        for asked, found in seconds.items():
            started = time.perf_counter()
            if asked == _PREDICTION:
                asking.predict(address, image)
            else:
                asking.explain(address, image, asked)
            found.append(time.perf_counter() - started)
    table = Table("asked for", "median", "x prediction", title="chelsea.png, one request at a time")
    plain = statistics.median(seconds[_PREDICTION])
    for asked, found in seconds.items():
        median = statistics.median(found)
        table.add_row(asked, f"{1000 * median:.0f} ms", f"{median / plain:.2f}")
    return table


def beside_smoothgrad(address: str, console: Console) -> Table:
    """The time of a prediction while a SmoothGrad runs: in TorchServe's ordinary mode, and in continuous batching."""
    image = photographs()["chelsea"]
    table = Table("archive", "quiet", "beside a SmoothGrad", "asked", title="a prediction, median and longest")
    for name in ("lite0", "lite0_live"):
        with console.status(f"Predictions beside a SmoothGrad: {name}"), ThreadPoolExecutor(1) as pool:
            quiet = [_prediction(address, name, image) for _ in range(10)]
            running = pool.submit(asking.explain, address, image, "smoothgrad", name)
            time.sleep(0.3)
            beside = [_prediction(address, name, image)]
            while not running.done():
                beside.append(_prediction(address, name, image))
        table.add_row(name, _milliseconds(quiet), _milliseconds(beside), str(len(beside)))
    return table


def _prediction(address: str, model: str, image: bytes) -> float:
    """The seconds of one prediction."""
    started = time.perf_counter()
    asking.predict(address, image, model)
    return time.perf_counter() - started


def _milliseconds(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f} ms, {1000 * max(seconds):.0f} ms"
