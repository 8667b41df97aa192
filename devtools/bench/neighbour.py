"""A process that uses all cores as another service on the machine does: passes of a small network in torch's threads.

python -m devtools.bench.neighbour THREADS
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from devtools.bench.children import ChildFailed
from devtools.paths import ROOT


class Neighbour:
    """The process while the `with` block lasts. It is stopped unless it is told to work."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> Neighbour:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
        command = [sys.executable, "-m", "devtools.bench.neighbour", str(self._threads)]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self._process.wait()
            raise ChildFailed("the neighbour ended; its error stands above")
        self._process.send_signal(signal.SIGSTOP)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    @contextmanager
    def working(self) -> Iterator[None]:
        """The process works while the block runs."""
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)


def main() -> None:
    import torch

    threads = int(sys.argv[1])
    torch.set_num_threads(threads)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).eval()
    image = torch.randn(1, 64, 56, 56)
    with torch.inference_mode():
        layer(image)
        print("ready", flush=True)
        # It ends with the process that started it.
        parent = os.getppid()
        while os.getppid() == parent:
            for _ in range(20):
                layer(image).relu_()


if __name__ == "__main__":
    main()
