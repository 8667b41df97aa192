"""A search for the pictures that cost most CPU time and memory: `scripts/fuzz --cost`."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from queue import SimpleQueue

from devtools.fuzz.costly import KINDS, extremes
from devtools.fuzz.dials import MAX_PIXELS, MIN_PIXELS
from devtools.fuzz.measured import Candidate, Child, Found
from heatserve.imaging import MAX_DECODE_MS
from heatserve.imaging.cost import allowed_ms

#: The bounds of a small picture, which has at most so many bytes.
SMALL = 100_000
SMALL_SECONDS, SMALL_PEAK = 0.5, 500e6
#: The bounds of every picture: one and a half times the cost that a header may promise.
SECONDS, PEAK = 1.5 * MAX_DECODE_MS / 1000, 950e6
#: The seconds that a picture may take beyond twice the promise of its header.
UNPROMISED = 0.4
_KEPT = 6
_AGAIN = 5


@dataclass
class Search:
    """A search that keeps the dearest candidates of each kind, and changes some of their dials.

    first: the candidates that are tried before anything else.
    """

    seed: int = 0
    dearest: dict[str, list[Found]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    first: deque[Candidate] = field(default_factory=deque)
    tried: int = 0

    def __post_init__(self) -> None:
        self.first.extend(Candidate(kind, dials, self.seed) for kind, dials in extremes())

    def next(self) -> Candidate:
        """The next candidate: one to begin with, a new one, or a change of a dear one."""
        self.tried += 1
        if self.first:
            return self.first.popleft()
        seed = self.seed * 1_000_003 + self.tried
        chosen = random.Random(seed)
        kind = chosen.choice([*KINDS])
        if not self.dearest[kind] or chosen.random() < 0.3:
            return Candidate(kind, {"pixels": max(chosen.random() for _ in range(3))}, seed)
        dials = dict(chosen.choice(self.dearest[kind]).dials)
        for name in chosen.sample(sorted(dials), min(len(dials), chosen.choice([1, 1, 2, 3]))):
            near = dials[name] + chosen.gauss(0, 0.1)
            dials[name] = min(max(near, 0.0), 0.999) if chosen.random() < 0.6 else chosen.random()
        return Candidate(kind, dials, seed)

    def take(self, found: Found) -> None:
        """Keeps the candidate if it is among the dearest of its kind, by its share of the bounds."""
        if not found.sent and found.verdict.startswith("not made"):
            return
        self._shrink(found)
        kept = [*self.dearest[found.candidate.kind], found]
        kept.sort(key=self.share)
        # One of each sort of file: small changes of the dearest would push out all others.
        each = {f"{other.image.rsplit(' ', 3)[0]} {other.verdict[:20]}": other for other in kept}
        self.dearest[found.candidate.kind] = sorted(each.values(), key=self.share, reverse=True)[:_KEPT]

    def _shrink(self, found: Found) -> None:
        """Tries a candidate that was refused for its cost once more, with so few pixels that it is just accepted."""
        if not found.verdict.startswith("The image would take") or "pixels" not in found.dials:
            return
        allowed = allowed_ms(found.sent, MAX_DECODE_MS) / 1000
        less = math.log(0.97 * allowed / found.promised) / math.log(MAX_PIXELS / MIN_PIXELS)
        pixels = found.dials["pixels"] + less
        if 0 < pixels < found.dials["pixels"] - 1e-4:
            self.first.append(Candidate(found.candidate.kind, {**found.dials, "pixels": pixels}, found.candidate.seed))

    def share(self, found: Found) -> float:
        """The share of the bounds: that of the CPU seconds or that of the memory, whichever is larger."""
        seconds, peak = (SMALL_SECONDS, SMALL_PEAK) if found.sent <= SMALL else (SECONDS, PEAK)
        return max(found.seconds / min(seconds, UNPROMISED + 2 * found.promised), found.peak / peak)

    def worst(self, count: int = 10) -> list[Found]:
        """The dearest of all kinds."""
        return sorted((f for kept in self.dearest.values() for f in kept), key=self.share, reverse=True)[:count]


def run(seconds: float, seed: int, workers: int, progress: Callable[[float], None]) -> Search:
    """Searches for so many seconds. progress: is told the seconds that have passed."""
    search = Search(seed)
    with ExitStack() as ending:
        children: SimpleQueue[Child] = SimpleQueue()
        for _ in range(workers):
            children.put(ending.enter_context(Child()))
        pool = ending.enter_context(ThreadPoolExecutor(workers))
        started = time.monotonic()
        asked: set[Future[Found]] = set()
        while (passed := time.monotonic() - started) < seconds or asked:
            while passed < seconds and len(asked) < workers:
                asked.add(pool.submit(_measured, children, search.next()))
            done, asked = wait(asked, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                search.take(future.result())
            progress(min(passed, seconds))
        _confirm(search, children.get())
    return search


def _measured(children: SimpleQueue[Child], candidate: Candidate) -> Found:
    child = children.get()
    try:
        return child.measure(candidate)
    finally:
        children.put(child)


def _confirm(search: Search, child: Child) -> None:
    """Measures the candidates beyond a bound again, with nothing beside them. The lowest cost of each counts."""
    for kind, kept in search.dearest.items():
        search.dearest[kind] = [_again(search, child, found) for found in kept]


def _again(search: Search, child: Child, found: Found) -> Found:
    for _ in range(_AGAIN):
        if search.share(found) <= 1:
            break
        again = child.measure(found.candidate)
        found = replace(found, seconds=min(found.seconds, again.seconds), peak=min(found.peak, again.peak))
    return found


def beyond(search: Search, slack: float = 1.0) -> Iterator[str]:
    """A sentence for each candidate above `slack` times its bounds, with the dials that make it again."""
    for found in search.worst():
        if search.share(found) > slack:
            yield f"{found.candidate.kind} {found.image} {found.sent} bytes: {found.verdict}; dials {found.dials}"
