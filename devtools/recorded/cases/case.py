"""One case of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from devtools.recorded.archives import Scene
from devtools.recorded.rows import Row


@dataclass(frozen=True)
class Case:
    """Rows that are sent together to the handler of a scene."""

    name: str
    scene: Scene
    rows: Mapping[str, Row]


def alone(prefix: str, scene: Scene, rows: Mapping[str, Row]) -> list[Case]:
    """A case for each row."""
    return [Case(f"{prefix}/{name}", scene, {"row": row}) for name, row in rows.items()]
