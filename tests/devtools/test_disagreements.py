"""The table of docs/methods.md that says where libraries disagree."""

from __future__ import annotations

import re
from functools import cache

import pytest

from devtools.disagreements import figures
from devtools.disagreements.__main__ import with_table
from devtools.disagreements.example import Example
from devtools.disagreements.rows import ROWS
from devtools.methods import DOCUMENT

TEXT = DOCUMENT.read_text(encoding="utf-8")
#: Figures of one pass or two. The others take many.
QUICK = (
    figures.of_the_score,
    figures.of_gradcam_plus_plus,
    figures.of_xgradcam,
    figures.of_eigencam,
    figures.of_finer_cam,
    figures.of_fusion,
)


def shown() -> list[str]:
    """The figures that the document has."""
    table = TEXT.partition("<!-- disagreements:")[2].partition("<!-- /disagreements -->")[0]
    return [line.strip(" |").split(" | ")[-1] for line in table.splitlines()[3:]]


@cache
def example() -> Example:
    return Example()


def test_the_table_is_the_one_that_the_script_writes() -> None:
    assert len(shown()) == len(ROWS) > 0
    assert with_table(TEXT, shown()) == TEXT, "python -m devtools.disagreements writes it anew"


@pytest.mark.parametrize("figure", QUICK, ids=lambda figure: figure.__name__)
def test_a_figure_is_what_the_example_measures(figure: figures.Figure) -> None:
    """Another processor may round otherwise."""
    written = dict(zip((row.figure for row in ROWS), shown()))[figure]
    found = figure(example())
    assert re.sub(r"[\d.]+", "", found) == re.sub(r"[\d.]+", "", written)
    numbers = ([float(number) for number in re.findall(r"[\d.]+(?=e|\b)", text)] for text in (found, written))
    for one, other in zip(*numbers):
        assert one == pytest.approx(other, abs=1.1)
