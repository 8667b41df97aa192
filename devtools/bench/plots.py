"""Charts of results: the growth of a cost, and ratios with the limits that are asked of them."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from PIL import Image

from devtools.bench.results import Result
from devtools.bench.series import SENTENCE, SERIES

WIDTH = 7.2
DPI = 110
#: Okabe and Ito's palette (2008). Markers distinguish the lines without colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
MET = {"yes": "#009E73", "no": "#D55E00", "undecided": "#E69F00", "": "#0072B2"}
GREY = "#777777"


def scaling(results: Sequence[Result], folder: Path, stem: str) -> list[Path]:
    """Writes `<stem>-<axis>.png` for each series that the results hold."""
    found = [result.detail for result in results if SERIES in result.detail]
    return [series(detail, folder / f"{stem}-{_slug(detail[SERIES]['x'])}.png") for detail in found]


def series(detail: Mapping[str, Any], path: Path) -> Path:
    """One series with its sentence above: medians over rounds, and their 95 % intervals as bars."""
    shown = detail[SERIES]
    figure, axes = _figure(4.3)
    points = shown["points"]
    for (name, line), colour, marker in zip(shown["lines"].items(), COLOURS, MARKERS):
        median = line["median"]
        bars = ([m - low for m, low in zip(median, line["low"])], [high - m for m, high in zip(median, line["high"])])
        axes.errorbar(points, median, bars, label=name, color=colour, marker=marker, markersize=6, capsize=3)
    if shown["reference"] is not None:
        start = next(iter(shown["lines"].values()))["median"][0]
        guide = [start * (point / points[0]) ** shown["reference"] for point in points]
        axes.plot(points, guide, color=GREY, linestyle="--", linewidth=1, label="in proportion", zorder=1)
    _axes(axes, shown)
    _heading(figure, axes, shown["title"], detail[SENTENCE])
    return _save(figure, path)


def ratios(results: Sequence[Result], path: Path, title: str, against: str = "") -> Path:
    """Writes a chart of the ratios among the results, a row for each, with a mark for the limit that is asked of it.

    against: takes only the results whose names end with ", against <this>", and says so once for all of them.
    """
    ending = f", against {against}" if against else ""
    rows = [result for result in results if result.unit == "×" and result.what.endswith(ending)]
    labels = [textwrap.fill(result.what[: len(result.what) - len(ending)], 52) for result in rows]
    # A row is as high as its label.
    heights = [1.0 + 0.55 * label.count("\n") for label in labels]
    places = [sum(heights[:index]) + height / 2 for index, height in enumerate(heights)]
    figure, axes = _figure(1.3 + 0.27 * sum(heights), 9.0)
    for place, result in zip(places, rows):
        low, high = (result.value if end is None else end for end in (result.low, result.high))
        bars = [[max(0.0, result.value - low)], [max(0.0, high - result.value)]]
        axes.errorbar([result.value], [place], xerr=bars, marker="o", markersize=5, capsize=3, color=MET[result.met])
        asked = result.limit if result.least is None else result.least
        if asked is not None:
            axes.plot([asked], [place], marker="|", markersize=15, markeredgewidth=2.2, color="black", zorder=1)
        axes.annotate(
            _digits(result.value),
            (1.0, place),
            (5, 0),
            ("axes fraction", "data"),
            "offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_xlabel(f"ratio to {against or 'the one beside it'}: median over rounds, 95 % interval")
    _rows(axes, places, labels, sum(heights), rows)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    return _save(figure, path)


def _rows(axes: Axes, places: Sequence[float], labels: Sequence[str], height: float, rows: Sequence[Result]) -> None:
    axes.set_ylim(height, 0)
    axes.set_yticks(places, labels, fontsize=8.5)
    axes.axvline(1.0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    values = [1.0] + [end for row in rows for end in (row.value, row.high, row.limit, row.least) if end]
    if max(values) / min(values) > 4:
        axes.set_xscale("log")
        _ticks(axes.xaxis, max(values) / min(values))
    axes.grid(axis="x", color="#e5e5e5")
    told = {"yes": "as asked", "no": "not as asked", "undecided": "undecided", "": "nothing asked"}
    handles = [
        Line2D([], [], color=MET[met], marker="o", linestyle="", label=text)
        for met, text in told.items()
        if any(row.met == met for row in rows)
    ]
    if any(row.met for row in rows):
        asked = Line2D([], [], color="black", marker="|", markersize=11, markeredgewidth=2.2, linestyle="")
        asked.set_label("asked")
        axes.figure.legend(handles=[*handles, asked], loc="outside lower right", ncols=5, fontsize=8.5, frameon=False)


def _axes(axes: Axes, shown: Mapping[str, Any]) -> None:
    points, lines = shown["points"], shown["lines"]
    if shown["logarithmic"]:
        axes.set_xscale("log")
        axes.set_yscale("log")
        ends = [end for line in lines.values() for end in (*line["low"], *line["high"])]
        _ticks(axes.yaxis, max(ends) / min(ends))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.15 * max(max(line["high"]) for line in lines.values()))
    axes.set_xticks(points, [_plain(point) for point in points])
    axes.set_xlabel(shown["x"])
    axes.set_ylabel(shown["y"])
    axes.grid(color="#e5e5e5")
    if len(lines) > 1 or shown["reference"] is not None:
        axes.legend(fontsize=9, frameon=False)


def _heading(figure: Figure, axes: Axes, title: str, sentence: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    axes.set_title(textwrap.fill(sentence, 94), loc="left", fontsize=9, color="#444444")


def _figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    # Not by pyplot: it keeps every figure, and asks for a display.
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    # A palette is enough for lines and letters, and makes a third of the bytes.
    Image.open(drawn).convert("RGB").quantize(128, Image.Quantize.FASTOCTREE).save(path, optimize=True)
    return path


def _plain(value: float, _: object = None) -> str:
    return f"{value:g}"


def _digits(value: float) -> str:
    """Two decimals, or three significant digits."""
    return f"{value:.2f}" if 0.1 <= value < 10 else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _ticks(axis: Axis, span: float) -> None:
    """Numbers as people write them, at 1, 2 and 5 unless that is too many. span: the largest by the smallest."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span < 500 else (1.0,), numticks=20))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
