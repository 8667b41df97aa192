"""The words of an answer for the numbers that an activation makes: probabilities, or the values of a regression."""

from __future__ import annotations

from collections.abc import Mapping


def number(activation: str) -> str:
    """The name of an answer's number: "probability", or "value" where no activation makes one of it."""
    return "value" if activation == "none" else "probability"


def header(activation: str) -> str:
    """The name of the header that has the first prediction's number."""
    return f"X-Prediction-{number(activation).capitalize()}"


def with_absence(labels: Mapping[int, str]) -> dict[int, str]:
    """The labels of two classes, a label's absence and its presence, where only the label itself has a name.

    Other labels stay as they are.
    """
    return {0: f"not {labels[0]}", 1: labels[0]} if set(labels) == {0} else dict(labels)
