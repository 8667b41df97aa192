"""The files that every archive begins with are the same from a checkout and from an installation."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from devtools.paths import HANDLERS, ROOT
from heatserve import __version__
from heatserve.serving.service import CONTRACT
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import mar, root

SCRIPT = """
import hashlib, json
from heatserve_tools.packaging.root import archive_root, contract, version
files = archive_root()
hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
print(json.dumps([hashes, version(files), contract(files)]))
"""


def test_in_a_checkout_they_are_the_handlers_folder():
    files = root.archive_root()
    there = [path for path in HANDLERS.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert files == {path.relative_to(HANDLERS).as_posix(): path for path in there}
    assert files == root.archive_root(HANDLERS)


def test_they_say_the_version_and_the_contract_without_being_imported():
    files = root.archive_root()
    assert (root.version(files), root.contract(files)) == (__version__, CONTRACT)


def test_installed_they_are_the_same_bytes(tmp_path):
    site = tmp_path / "site"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HANDLERS / "heatserve", site / "heatserve", ignore=leave)
    shutil.copytree(ROOT / "heatserve_tools", site / "heatserve_tools", ignore=leave)
    (site / "heatserve_tools" / "handlers").mkdir()
    shutil.copy(HANDLERS / root.HANDLER, site / "heatserve_tools" / "handlers")
    # Another package's module of this name is not the handler.
    (site / root.HANDLER).write_text("raise SystemExit\n")
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    ours = {name: mar.sha256(path) for name, path in root.archive_root().items()}
    assert json.loads(done.stdout) == [ours, __version__, CONTRACT]


def test_a_missing_handler_is_refused(tmp_path):
    (tmp_path / "heatserve").mkdir()
    (tmp_path / "heatserve" / "__init__.py").write_text('__version__ = "1"\n')
    with pytest.raises(ToolError, match=r"explain_handler\.py is missing"):
        root.archive_root(tmp_path)


def test_a_package_without_a_contract_has_none(tmp_path):
    (tmp_path / "heatserve").mkdir()
    (tmp_path / "heatserve" / "__init__.py").write_text("")
    (tmp_path / root.HANDLER).write_text("")
    files = root.archive_root(tmp_path)
    assert root.contract(files) is None
    with pytest.raises(ToolError, match="does not say __version__"):
        root.version(files)
