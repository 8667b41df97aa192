"""The script that gives the names of a network's state dict. It runs in a process of its own, as a trial does:

python -I names_worker.py MODEL_DIR RESULT_JSON MODULE:CALLABLE
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main(model_dir: str, result: str, reference: str) -> None:
    """Writes the names as JSON; null where the network cannot be built."""
    sys.path.insert(0, model_dir)
    names: list[str] | None = None
    try:
        module, _, attribute = reference.partition(":")
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        names = [*found().state_dict()]
    except BaseException as error:  # the trial says it, with the words of the handler
        print(error)
    Path(result).write_text(json.dumps(names), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:4])
