"""The script of an inspection: the heatserve of an unpacked archive inspects it.

inspector.py starts it in a process that sees the archive and the installed packages, nothing else:

    python -I inspect_worker.py MODEL_DIR RESULT_JSON [PHOTOGRAPH PROGRESS]
"""

from __future__ import annotations

import json
import os
import sys
from inspect import signature
from pathlib import Path
from typing import Any

MANIFEST = "MAR-INF/MANIFEST.json"


def main(model_dir: str, result: str, photograph: str = "", progress: str = "") -> None:
    """Writes the inspection as JSON, or `error`: the reason why there is none.

    photograph: a file for a contact sheet.
    progress: the file that says how far the sheet is.
    """
    sys.path.insert(0, model_dir)
    manifest = json.loads(Path(model_dir, MANIFEST).read_text(encoding="utf-8"))
    try:
        from heatserve.serving.inspection import inspection
    except ImportError as error:
        found: dict[str, Any] = {"error": f"the archive has no heatserve that inspects it ({error}): package it again"}
    else:
        given = (Path(model_dir), manifest, _config(model_dir, manifest), os.environ)
        if not photograph:
            found = inspection(*given)
        elif "photograph" not in signature(inspection).parameters:
            found = {"error": "the heatserve in the archive makes no contact sheet: package it again"}
        else:

            def report(done: int, every: int, name: str) -> None:
                Path(progress).write_text(json.dumps([done, every, name]), encoding="utf-8")

            found = inspection(*given, photograph=Path(photograph), progress=report)
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def _config(model_dir: str, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The archive's settings; None where it has none."""
    import yaml

    named = manifest.get("model", {}).get("configFile")
    return yaml.safe_load(Path(model_dir, named).read_bytes()) if named else None


if __name__ == "__main__":
    main(*sys.argv[1:])
