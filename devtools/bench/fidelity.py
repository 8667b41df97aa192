"""The error of a precision's smoothed map, separated into bias and noise.

The difference to float32's map holds both. Parts of the samples have the same bias and independent noise. So the
product of two parts' differences is the squared bias on average, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heatserve import Explainer, Query
from heatserve.engine import Attribution

PARTS = 4


@dataclass(frozen=True)
class Fidelity:
    """Errors relative to the size (L2) of the true map, which is the limit of float32's means.

    bias: the error that more samples do not reduce, 0 where none is measured.
    spread: the error of one sample; that of n is `spread / sqrt(n)`.
    difference: to float32's map of the same noisy copies.
    rank_correlation: Spearman's, with that map.
    samples: the number in each of the parts.
    """

    bias: float
    spread: float
    difference: float
    rank_correlation: float
    samples: int

    def error(self, samples: float) -> float:
        """The total error of a map of so many samples."""
        return float((self.bias**2 + self.spread**2 / samples) ** 0.5)

    def samples_for(self, error: float) -> float | None:
        """The number of samples for a total error, None where the bias alone is larger."""
        room = error**2 - self.bias**2
        return self.spread**2 / room if room > 0 else None


def fidelity(of: Explainer, exact: Explainer, image: Tensor, target: int, samples: int) -> Fidelity:
    """Compares a precision with float32 at the same noisy copies: four parts of so many samples. image: (C, H, W)."""
    found, right = (
        [
            one.explain(image[None], Query("smoothgrad", target=target, samples=samples, seed=part))[0]
            for part in range(PARTS)
        ]
        for one in (of, exact)
    )
    values, truths = ([answer.values.double() for answer in answers] for answers in (found, right))
    true = common(truths)
    noise = sum(float(_error(answer).square().sum()) for answer in found) / PARTS
    mean, expected = torch.stack(values).mean(0), torch.stack(truths).mean(0)
    return Fidelity(
        bias=float((max(common([value - truth for value, truth in zip(values, truths)]), 0.0) / true) ** 0.5),
        spread=float((samples * noise / true) ** 0.5),
        difference=sum(float((v - t).norm() / t.norm()) for v, t in zip(values, truths)) / PARTS,
        rank_correlation=_rank_correlation(mean, expected),
        samples=samples,
    )


def common(parts: Sequence[Tensor]) -> float:
    """The squared size (L2) of the parts' common share: the mean product of two different parts."""
    together = torch.stack(list(parts))
    squares = float(together.sum(0).square().sum() - together.square().sum())
    return squares / (len(parts) * (len(parts) - 1))


def _error(answer: Attribution) -> Tensor:
    assert answer.standard_error is not None
    return answer.standard_error.double()


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    ranks = torch.stack([values.abs().amax(0).flatten().argsort().argsort().double() for values in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])
