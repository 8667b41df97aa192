"""Captured passes: forward and gradient of a pass of draws as one launch, for each fixed size, proved at load.

Only the plain case is captured: one query for each row, the gradient of a fixed class's score in the input. All other
passes, and those of sizes that were not captured or not proved, are made eagerly.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from .errors import is_out_of_memory
from .launch import Eager, Work
from .method import InputSignal
from .methods.gradients import gradient
from .network import Answers, Network
from .precision import PRECISIONS, autocast, tensor_float_of
from .query import Attribution, Query
from .recorded import grad_mode
from .registry import METHODS
from .steps import finish
from .upload import upload

logger = logging.getLogger(__name__)

#: The largest distance of a row's scores or gradient from the eager pass, L2, as a share of the eager one.
FAR = 1e-5

Queries = Sequence[Sequence[Query]]
#: The shape and type of a pass's images, and its precision.
Key = tuple[torch.Size, torch.dtype, str]


class CapturedPasses:
    """The passes of a network, some of them captured.

    reason: why the last pass that was to be captured was not; empty where all were.
    """

    def __init__(self, network: Network, launches: Eager) -> None:
        self.reason = ""
        self._network = network
        self._launches = launches
        self._works: dict[Key, Work] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of rows of the captured passes."""
        return tuple(sorted({shape[0] for shape, _, _ in self._works}))

    def passes(self, images: Tensor, queries: Queries, precision: str | None = None) -> Generator[None, None, Answers]:
        """`Network.passes`, by a captured pass where there is one; that one has no steps."""
        work = self._works.get((images.shape, images.dtype, precision or ""))
        if work is not None and all(plain(row) for row in queries) and queries[0]:
            try:
                return self._replayed(work, images, queries, precision)
            except (RuntimeError, MemoryError) as error:
                # Nothing of the pass was used; an error that lasts meets the eager pass too.
                self.drop(error)
        return (yield from self._network.passes(images, queries, precision))

    def capture(self, image: Tensor, size: int, precision: str) -> bool:
        """Captures and proves the pass of one size. Any failure leaves that size to eager passes.

        image: (1, C, H, W).
        """
        if not self._launches.captures:
            return False
        spread, generator = 0.1 * float(image.std()) + 0.1, torch.Generator().manual_seed(size)
        noise = torch.randn((3, size, *image.shape[1:]), generator=generator, dtype=image.dtype).to(image.device)
        example, *others = (image + spread * some for some in noise)
        key = example.shape, example.dtype, precision
        try:
            work = self._launches.capture(self._work(precision), example, self._targets(size, 0))
            asked = [(images, self._targets(size, number)) for number, images in enumerate(others, 1)]
            # The first answer is compared after the second pass, which must not have changed it.
            answers = [work(*given) for given in asked]
            for (images, targets), found in zip(asked, answers):
                self._prove(found, images, targets, precision)
        except Exception as error:  # a library may raise anything while it is captured
            self._fell_back(error)
            return False
        self._works[key] = work
        return True

    def drop(self, error: Exception | None = None) -> None:
        """Forgets all captured passes: they hold memory, and the network's weights as they were."""
        self._works.clear()
        if error is not None:
            self._fell_back(error)

    def _fell_back(self, error: Exception) -> None:
        self.reason = "the device has too little memory" if is_out_of_memory(error) else type(error).__name__
        logger.warning("heatserve: passes of draws are not captured, and slower: %s", self.reason)

    def _targets(self, size: int, first: int) -> Tensor:
        """Classes that differ from row to row."""
        classes = [(first + row) % self._network.classes for row in range(size)]
        return torch.tensor(classes, device=self._network.device)

    def _work(self, precision: str) -> Work:
        """The function that is captured: images (N, C, H, W) and targets (N) to logits, scores and gradients."""
        network = self._network
        scale = network.scale if precision == "float16" else 1.0

        def work(images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
            with grad_mode(True), tensor_float_of(precision):
                laid = images.contiguous(memory_format=network.optimized.layout)
                inputs = laid.detach().requires_grad_()
                with autocast(precision, network.device):
                    logits = network.model(inputs.clone())
                scores = logits.gather(1, targets[:, None])[:, 0]
                [found] = torch.autograd.grad(scores.sum() * scale, inputs)
            found = found if scale == 1 else found.float() / scale
            return logits.detach(), scores.detach(), found

        return work

    def _replayed(self, work: Work, images: Tensor, queries: Queries, precision: str | None) -> Answers:
        targets = [row[0].target or 0 if row else 0 for row in queries]
        logits, scores, gradients = work(images, upload(torch.tensor(targets), images.device))
        scores = scores.float() if PRECISIONS[precision or "float32"] != torch.float32 else scores
        method = METHODS[queries[0][0].method]
        values = method.attribute(InputSignal(images, gradients))
        rows = zip(queries, values, scores)
        return logits, [[Attribution(row[0], value, score=score)] if row else [] for row, value, score in rows]

    def _prove(self, found: Sequence[Tensor], images: Tensor, targets: Tensor, precision: str) -> None:
        """Raises ValueError where what a captured pass gave differs from the eager one."""
        queries = [[Query("gradient", target=target)] for target in targets.tolist()]
        logits, expected = finish(self._network.passes(images.clone(), queries, precision))
        known = torch.stack([answer.values for [answer] in expected])
        same = torch.equal(found[1], found[0].gather(1, targets[:, None])[:, 0])
        for one, other in ((found[0], logits), (found[2], known)):
            one, other = one.flatten(1).double(), other.flatten(1).double()
            away, size = (one - other).norm(dim=1), other.norm(dim=1)
            if not same or not bool((away <= FAR * size).all()) or not bool(size.all()):
                raise ValueError("a captured pass differs from the eager one")


def plain(row: Sequence[Query]) -> bool:
    """Whether the captured function answers a row: the plain gradient of one fixed class's score, or padding."""
    if not row:
        return True
    query, method = row[0], METHODS[row[0].method]
    unbound = method.factors or method.rule or method.attribute is not gradient
    compared = query.contrasts or query.nearest is not None or query.least is not None
    return len(row) == 1 and query.target is not None and not unbound and not compared and method.signal == "input"
