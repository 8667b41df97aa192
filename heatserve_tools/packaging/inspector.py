"""The inspection of an archive or of an architecture, in a process of its own.

An archive is unpacked there, and an architecture is laid out as an archive would be. So both are read by the code that
a server would run.
"""

from __future__ import annotations

import base64
import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatserve.serving.integrity import MANIFEST
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import isolated, mar, packager, servable
from heatserve_tools.packaging.packager import Recipe
from heatserve_tools.packaging.progress import Report, following

_WORKER = Path(__file__).with_name("inspect_worker.py")
#: The seconds that an inspection with a contact sheet may take.
_TIMEOUT = 3600


@dataclass(frozen=True)
class Photograph:
    """A photograph for a contact sheet. report: it is told how far the sheet is."""

    path: Path
    report: Report


@dataclass(frozen=True)
class Inspected:
    """The findings about one target.

    target: as the user named it.
    trouble: the reason why TorchServe cannot start with the archive, told from the file alone; None where there is
        none, or the target is an architecture.
    manifest: the archive's.
    found: as `heatserve.serving.inspection` gives it.
    sheet: the contact sheet, a PNG file; None where none was asked for, or made.
    """

    target: str
    trouble: str | None
    manifest: Mapping[str, Any]
    found: Mapping[str, Any] = field(default_factory=dict)
    sheet: bytes | None = None

    @property
    def sound(self) -> bool:
        """Whether a server would serve it."""
        return self.trouble is None and bool(self.found) and self.found["refused"] is None

    def json(self) -> dict[str, Any]:
        """All findings as JSON values."""
        return {"target": self.target, "trouble": self.trouble, "manifest": self.manifest, **self.found}


def archive(path: Path, photograph: Photograph | None = None) -> Inspected:
    """The findings about an archive. Raises ToolError where it cannot be loaded at all.

    photograph: for a contact sheet; None for none.
    """
    trouble = servable.trouble(path)
    try:
        with zipfile.ZipFile(path) as members:
            manifest = json.loads(members.read(MANIFEST))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError):
        raise ToolError(f"{path.name} {trouble or 'cannot be read'}.") from None
    if trouble is not None:
        return Inspected(str(path), f"{path.name} {trouble}", manifest)

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(path) as members:
            members.extractall(folder)

    return Inspected(str(path), None, manifest, *_ask(unpack, f"the archive {path.name}", photograph))


def network(target: str, recipe: Recipe, photograph: Photograph | None = None) -> Inspected:
    """The findings about an architecture, as an archive of this recipe would have it. Raises ToolError.

    target: as the user named it.
    photograph: for a contact sheet; None for none.
    """
    members = packager.members(recipe)

    def unpack(folder: Path) -> None:
        mar.lay_out(folder, members)

    found = _ask(unpack, f"the architecture {target}", photograph)
    return Inspected(target, None, json.loads(bytes(members[MANIFEST])), *found)


def _ask(unpack: Any, subject: str, photograph: Photograph | None) -> tuple[Mapping[str, Any], bytes | None]:
    """The findings, and the contact sheet."""
    if photograph is None:
        found, _ = isolated.ask(_WORKER, unpack, [], subject=subject)
    else:
        with tempfile.TemporaryDirectory(prefix="heatserve-sheet-") as scratch:
            line = Path(scratch, "progress.json")
            with following(line, photograph.report):
                arguments = [str(photograph.path.resolve()), str(line)]
                found, _ = isolated.ask(_WORKER, unpack, arguments, subject=subject, timeout=_TIMEOUT)
    if "error" in found:
        raise ToolError(f"{found['error']}.")
    png = (found.get("sheet") or {}).pop("png", None)
    return dict(found), None if png is None else base64.b64decode(png)
