"""Many clients at once, by Locust in a process beside this one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from devtools.bench.bursts import Burst
from devtools.bench.children import ChildFailed
from devtools.paths import ROOT

MODULE = "devtools.bench.locust_load"


class Crowd:
    """Locust's clients, who send one image; they are there while the `with` block runs, idle unless asked."""

    def __init__(self, image: bytes):
        self._image = image

    def __enter__(self) -> Crowd:
        self._scratch = tempfile.TemporaryDirectory(prefix="heatserve-crowd-")
        self._body = Path(self._scratch.name) / "image"
        self._body.write_bytes(self._image)
        self._errors = tempfile.TemporaryFile("w+")
        self._child = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()
        self._errors.close()
        self._scratch.cleanup()

    def burst(self, url: str, clients: int, count: int) -> Burst:
        """So many requests in all, from clients that each send the next one when they have the answer to the last.

        Raises ChildFailed where one was not answered well.
        """
        order = {"url": url, "image": str(self._body), "clients": clients}
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            print(json.dumps({**order, "count": count}), file=self._child.stdin, flush=True)
            line = self._child.stdout.readline()
        except OSError:
            line = ""
        if not line:
            self._child.wait()
            self._errors.seek(0)
            raise ChildFailed(f"{MODULE} ended with {self._child.returncode}: {self._errors.read()[-1000:].strip()}")
        seen = json.loads(line)
        answered = len(seen["latencies"]) - len(seen["errors"])
        if answered != count:
            what = seen["errors"][0] if seen["errors"] else "no answer"
            raise ChildFailed(f"{count - answered} of {count} requests to {url} were not answered well: {what}")
        return Burst(seen["seconds"], tuple(seen["latencies"]), seen["bytes"])
