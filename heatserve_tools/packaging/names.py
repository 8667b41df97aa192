"""The names of a network's state dict, from its own code, which runs in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import isolated, mar
from heatserve_tools.packaging.mar import Content


def of(reference: str, members: Mapping[str, Content]) -> list[str] | None:
    """The names; None where the network cannot be built, which the trial of its archive says in better words.

    reference: `module:callable`. members: the files that make it importable.
    """
    script = Path(__file__).with_name("names_worker.py")
    try:
        found, _ = isolated.ask(script, lambda folder: mar.lay_out(folder, members), [reference])
    except ToolError:
        return None
    return None if found is None else [str(name) for name in found]
