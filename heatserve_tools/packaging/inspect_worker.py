"""The script of an inspection: the heatserve of an unpacked archive inspects it.

inspector.py starts it in a process that sees the archive and the installed packages, nothing else:

    python -I inspect_worker.py MODEL_DIR RESULT_JSON
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

MANIFEST = "MAR-INF/MANIFEST.json"


def main(model_dir: str, result: str) -> None:
    """Writes the inspection as JSON, or `error`: the reason why there is none."""
    sys.path.insert(0, model_dir)
    manifest = json.loads(Path(model_dir, MANIFEST).read_text(encoding="utf-8"))
    try:
        from heatserve.serving.inspection import inspection
    except ImportError as error:
        found: dict[str, Any] = {"error": f"the archive has no heatserve that inspects it ({error}): package it again"}
    else:
        found = inspection(Path(model_dir), manifest, _config(model_dir, manifest), os.environ)
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def _config(model_dir: str, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The archive's settings; None where it has none."""
    import yaml

    named = manifest.get("model", {}).get("configFile")
    return yaml.safe_load(Path(model_dir, named).read_bytes()) if named else None


if __name__ == "__main__":
    main(*sys.argv[1:])
