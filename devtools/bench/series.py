"""The growth of a cost: points that share interleaved rounds, ratios within each round, and the slope through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from devtools.bench.rounds import Ratio, ratio

SERIES, SENTENCE = "series", "sentence"


@dataclass(frozen=True)
class Line:
    """The cost of one contestant at some points. ratios: a row for each round, a column for each point."""

    name: str
    points: tuple[float, ...]
    ratios: Sequence[Sequence[float]]

    @staticmethod
    def of(
        name: str, points: Sequence[float], found: Mapping[str, Sequence[float]], keys: Sequence[str], to: str
    ) -> Line:
        """The contestants `keys` of interleaved rounds, one for each point, against the contestant `to`."""
        rows = [[value / base for value in row] for *row, base in zip(*(found[key] for key in keys), found[to])]
        return Line(name, tuple(points), rows)

    def __add__(self, other: Line) -> Line:
        """Both together, round by round, under this one's name."""
        sums = (np.asarray(self.ratios) + np.asarray(other.ratios)).tolist()
        return Line(self.name, self.points, sums)

    @property
    def at(self) -> list[Ratio]:
        """The median over the rounds at each point, with its interval."""
        return [_median(column) for column in np.asarray(self.ratios).T]

    @property
    def exponent(self) -> Ratio:
        """`b` of the power law `a x^b`: least squares through the logarithms, round by round."""
        return _median(_slopes(np.log(self.points), np.log(self.ratios)))

    @property
    def marginal(self) -> Ratio:
        """The cost of one more of `x`: least squares through a straight line, round by round."""
        return _median(_slopes(np.asarray(self.points), np.asarray(self.ratios)))

    @property
    def each(self) -> Ratio:
        """The cost of one of `x` at the last point, against the first. It is below 1 if many are cheaper together."""
        rows = np.asarray(self.ratios) / np.asarray(self.points)
        return ratio([*rows[:, -1]], [*rows[:, 0]])

    @property
    def growth(self) -> Ratio:
        """The last point against the first."""
        rows = np.asarray(self.ratios)
        return ratio([*rows[:, -1]], [*rows[:, 0]])


@dataclass(frozen=True)
class Series:
    """Lines over one axis, as a plot shows them.

    logarithmic: both axes are.
    reference: the exponent of a dashed guide.
    """

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    logarithmic: bool = True
    reference: float | None = None

    def detail(self, sentence: str, **more: Any) -> dict[str, Any]:
        """The series as a result keeps it, ready for JSON."""
        return {
            SENTENCE: sentence,
            SERIES: {
                "title": self.title,
                "x": self.x,
                "y": self.y,
                "logarithmic": self.logarithmic,
                "reference": self.reference,
                "points": [*self.lines[0].points],
                "lines": {
                    line.name: {
                        "median": [round(point.median, 5) for point in line.at],
                        "low": [round(point.low, 5) for point in line.at],
                        "high": [round(point.high, 5) for point in line.at],
                        "exponent": round(line.exponent.median, 4),
                        "marginal": round(line.marginal.median, 6),
                    }
                    for line in self.lines
                },
            },
            **more,
        }


def _slopes(x: Any, rows: Any) -> list[float]:
    centred = x - x.mean()
    return [float(centred @ row / (centred @ centred)) for row in rows]


def _median(values: Sequence[float]) -> Ratio:
    return ratio([*values], [1.0] * len(values))
