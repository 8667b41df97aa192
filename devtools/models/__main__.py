"""`python -m devtools.models`: tries other people's classifiers, and writes docs/models.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click
import torch

from devtools.models.page import page
from devtools.models.subjects import Subject, timm_subjects, torchvision_subjects, transformers_subjects
from devtools.models.trial import Outcome, try_subject
from devtools.paths import ROOT

KEPT = ROOT / "devtools" / "models" / "outcomes.json"
PAGE = ROOT / "docs" / "models.md"


@click.command()
@click.option("--only", default="", help="A regular expression that LIBRARY/FAMILY/CONSTRUCTOR must contain.")
@click.option("--again", is_flag=True, help="Try those again of which an outcome is kept.")
@click.option("--write", is_flag=True, help="Write docs/models.md from all outcomes that are kept.")
@click.option("--threads", default=1, help="Threads of each pass.", show_default=True)
def main(only: str, again: bool, write: bool, threads: int) -> None:
    """Try every network, a line each. Outcomes are kept as they come, and a later run goes on from there."""
    torch.set_num_threads(threads)
    kept = _read()
    chosen = [subject for subject in _subjects(kept) if re.search(only, subject.name)]
    left = [subject for subject in chosen if again or subject.name not in kept["outcomes"]]
    click.echo(f"{len(chosen)} networks, {len(left)} to try")
    for number, subject in enumerate(left, 1):
        outcome = try_subject(subject)
        kept["outcomes"][subject.name] = asdict(outcome)
        _keep(kept)
        said = outcome.sentence or f"{outcome.layer} {outcome.layout} {outcome.distance:.0e}"
        click.echo(f"{number}/{len(left)} {subject.name} {outcome.seconds:.0f} s: {said}")
    outcomes = [Outcome(**outcome) for _, outcome in sorted(kept["outcomes"].items())]
    click.echo(f"{sum(outcome.served for outcome in outcomes)} of {len(outcomes)} are served")
    if write:
        PAGE.write_text(page(outcomes), encoding="utf-8")


def _subjects(kept: dict[str, Any]) -> Iterator[Subject]:
    yield from torchvision_subjects()
    yield from timm_subjects(kept["timm"])
    _keep(kept)
    yield from transformers_subjects()


def _read() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    return {"timm": kept.get("timm", {}), "outcomes": kept.get("outcomes", {})}


def _keep(kept: dict[str, Any]) -> None:
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
