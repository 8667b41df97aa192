"""The setup of all tests: those that need a GPU are skipped where there is none, and `--plain-paths` is an option."""

from __future__ import annotations

import sys

import pytest

from tests.plain_paths import sitecustomize as plain_paths

OPTION = "--plain-paths"
if OPTION in sys.argv:
    plain_paths.install()  # before any other file imports heatserve


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="run the product without its shortcuts (tests/plain_paths)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(OPTION) != plain_paths.installed():
        raise pytest.UsageError(f"{OPTION} belongs on the command line of pytest, and its folder not on PYTHONPATH")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption(OPTION):
        for item in items:
            if item.get_closest_marker("fast_path"):
                item.add_marker(pytest.mark.skip(reason="it is about a shortcut, which --plain-paths turns off"))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device here"))
