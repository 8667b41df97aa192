"""`python -m devtools.checkout COMMAND` runs a command of `heatserve` as scripts/COMMAND does: its folders are those of
this checkout, wherever it is called."""

from __future__ import annotations

import sys
from importlib import import_module

from devtools.paths import MODEL_STORE, ROOT
from heatserve_tools.command import end_as_ctrl_c

FOLDERS = {
    "package": {"export_path": MODEL_STORE},
    "serve": {"model_store": MODEL_STORE, "folder": ROOT},
    "demo": {"model_store": MODEL_STORE, "output": ROOT / "demo"},
}


def main() -> None:
    """Runs the command that the first argument names."""
    end_as_ctrl_c()
    name, *arguments = sys.argv[1:]
    command = import_module(f"heatserve_tools.{name}").main
    command(arguments, prog_name=f"scripts/{name}", default_map=FOLDERS.get(name))


if __name__ == "__main__":
    main()
