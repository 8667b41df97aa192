"""scripts/setup: its messages, and the files that it leaves alone. Nothing is installed."""

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from devtools.paths import ROOT


@pytest.fixture
def clone(tmp_path):
    """A repository with the script and a lock, and a folder of programs for its PATH."""
    for folder in ("scripts", "requirements", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts" / "setup")
    (tmp_path / "requirements" / "dev.lock").write_text("pip\n")
    for program in ("bash", "cut", "dirname", "sha256sum", "cat", "rm", "mv"):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program))
    return tmp_path


def setup(clone, *arguments):
    env = {"PATH": str(clone / "bin"), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [clone / "scripts" / "setup", *arguments], env=env, capture_output=True, text=True, timeout=60
    )


def program(clone, name, text):
    path = clone / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_without_a_new_enough_python_it_says_so(clone):
    program(clone, "python3", 'case "$1" in --version) echo Python 3.9.18;; *) exit 1;; esac')
    result = setup(clone)
    assert result.returncode == 1
    assert "no Python 3.10 or newer was found (the python3 here: Python 3.9.18)" in result.stderr


def test_without_the_venv_module_it_says_so(clone):
    program(clone, "python3", 'case "$2" in *version_info*) exit 0;; *) exit 1;; esac')
    result = setup(clone)
    assert result.returncode == 1
    assert "venv or ensurepip module is missing" in result.stderr


def test_with_the_stamp_of_the_lock_there_is_nothing_to_do(clone):
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    lock = (clone / "requirements" / "dev.lock").read_bytes()
    (clone / ".venv" / "heatserve.stamp").write_text(hashlib.sha256(lock).hexdigest() + "\n")
    result = setup(clone)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_help_needs_nothing(clone):
    assert "Usage: scripts/setup" in setup(clone, "--help").stdout


def test_the_lock_pins_by_hash_and_names_no_index():
    lines = (ROOT / "requirements" / "dev.lock").read_text().splitlines()
    assert not [line for line in lines if "://" in line or "--index" in line or "--find-links" in line]
    pinned = [line for line in lines if "==" in line and not line.startswith((" ", "#"))]
    assert pinned and all(line.endswith("\\") for line in pinned)
