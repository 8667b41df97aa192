"""The parts of the build that pyproject.toml cannot express: the list of packages, and the README for an index."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

#: `[text](target)` and `![text](target)` whose target is a file of the repository or a place in the page.
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:)([^)\s]+)\)")


def _named(link: re.Match[str]) -> str:
    picture, text, target = link.groups()
    if picture:
        return f"*(picture: {text})*"
    return text if target.startswith("#") or target in text else f"{text} (`{target}`)"


def readme() -> str:
    """The README as it reads outside the repository: links to its files are their names."""
    return RELATIVE.sub(_named, Path(__file__).with_name("README.md").read_text(encoding="utf-8"))


setup(
    # explain_handler.py becomes data of the tools, as a module of its own it would lie beside everybody's packages.
    packages=[*find_packages("handlers"), *find_packages(include=["heatserve_tools*"]), "heatserve_tools.handlers"],
    long_description=readme(),
    long_description_content_type="text/markdown",
)
