"""The time of `handle` beside decoding and the network, of one handler or of two against each other.

    scripts/bench handle [ROOT] --against OTHER_ROOT

A root is a folder that holds `explain_handler.py` and `heatserve/`, such as `handlers/` of another checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

import click

from devtools.bench.handle_child import KINDS, PARTS
from devtools.bench.rounds import interleave, ratio
from devtools.paths import HANDLERS, ROOT

#: The milliseconds that a prediction may take beside decoding and the network.
ASKED = 1.0
#: Requests in a row before it is the other handler's turn.
REQUESTS = 5


class Handler:
    """A handler in a process of its own, while the `with` block lasts. It keeps the times of its requests."""

    def __init__(self, root: Path, clock: str) -> None:
        self.root, self._clock = root.resolve(), clock
        if not (self.root / "explain_handler.py").is_file():
            raise click.UsageError(f"{root} holds no explain_handler.py")
        self.taken: list[Mapping[str, float]] = []

    def __enter__(self) -> Handler:
        path = f"{self.root}{os.pathsep}{ROOT}"
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "devtools.bench.handle_child", self._clock]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._receive()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def rest(self, kind: str) -> float:
        """The median time of some requests beside decoding and the network, in seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {REQUESTS}\n")
        self._process.stdin.flush()
        taken: list[Mapping[str, float]] = self._receive()
        self.taken += taken
        return median(each["rest"] for each in taken)

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"the handler in {self.root} ended; its error stands above")
        return json.loads(line)


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path), default=HANDLERS)
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another root: both answer in turn, and the ratio of their times is printed.",
)
@click.option("--seconds", default=30.0, show_default=True, help="The time for each kind of request.")
@click.option(
    "--processor",
    is_flag=True,
    help="Count the time of the processor instead of the wall's, for a machine that has other work.",
)
def main(root: Path, against: Path | None, seconds: float, processor: bool) -> None:
    clock = "thread_time" if processor else "perf_counter"
    with ExitStack() as running:
        handlers = {"handler": running.enter_context(Handler(root, clock))}
        if against:
            handlers["against"] = running.enter_context(Handler(against, clock))
        for name, handler in handlers.items():
            click.echo(f"{name}: {handler.root}")
        click.echo(
            f"\n{'ms of the processor' if processor else 'ms'}, medians".ljust(27)
            + "".join(f"{part:>10}" for part in PARTS)
        )
        for kind in KINDS:
            _compared(kind, handlers, seconds)


def _compared(kind: str, handlers: Mapping[str, Handler], seconds: float) -> None:
    for handler in handlers.values():
        handler.taken.clear()
    measures = {name: partial(handler.rest, kind) for name, handler in handlers.items()}
    found = interleave(measures, seconds, warm_up=1)
    for name, handler in handlers.items():
        medians = [1000 * median(each[part] for each in handler.taken) for part in PARTS]
        click.echo(f"{kind:16}{name:10}" + "".join(f"{value:10.3f}" for value in medians))
        if kind == "prediction":
            met = "met" if medians[-1] <= ASKED else "missed"
            click.echo(f"{kind:16}{name:10}rest: asked ≤ {ASKED:g} ms, {met}")
    if len(handlers) == 2:
        of = ratio(found["handler"], found["against"])
        click.echo(
            f"{kind:16}rest, handler / against: {of.median:.3f} ({of.low:.3f} to {of.high:.3f}, 95 %, "
            f"{of.rounds} rounds of {REQUESTS} requests)"
        )


if __name__ == "__main__":
    main(prog_name="scripts/bench handle")
