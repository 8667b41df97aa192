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
    for program in ("bash", "cut", "dirname", "sha256sum", "cat", "rm", "mv", "sed"):
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


def test_packages_of_the_users_own_are_installed_beside_the_lock_and_again_when_they_change(clone):
    venv, own = clone / ".venv", clone / "requirements" / "own.txt"
    (venv / "bin").mkdir(parents=True)
    program(clone, "../.venv/bin/python", "exit 0")
    program(clone, "../.venv/bin/uv", f'[ "$1" = --version ] && echo uv 0.13.9 || echo "$@" >>{clone}/asked')
    (clone / "requirements" / "dev.lock").write_text("torch==2.4.0 \\\n    --hash=sha256:00\n")

    def asked():
        (clone / "asked").write_text("")
        result = setup(clone)
        assert result.returncode == 0, result.stderr
        return (clone / "asked").read_text().splitlines()

    (synced,) = asked()
    assert synced.startswith("pip sync") and "--require-hashes" in synced and asked() == []
    own.write_text("einops\n")
    _, installed = asked()
    assert installed == f"pip install --python {venv}/bin/python --constraint {venv}/locked.txt --requirement {own}"
    assert (venv / "locked.txt").read_text() == "torch==2.4.0\n" and asked() == []
    own.write_text("einops\nxformers\n")
    assert len(asked()) == 2 and asked() == []


def test_modules_on_the_callers_path_stay_importable_in_the_scripts(clone):
    shutil.copy(ROOT / "scripts" / "_environment", clone / "scripts" / "_environment")
    program(clone, "../scripts/setup", "exit 0")
    for before, after in (("/mine", f"{clone}/handlers:{clone}:/mine"), ("", f"{clone}/handlers:{clone}")):
        line = f'source {clone}/scripts/_environment; echo "$PYTHONPATH"'
        env = {"PATH": str(clone / "bin"), "PYTHONPATH": before}
        done = subprocess.run([clone / "bin" / "bash", "-c", f"{line}"], env=env, capture_output=True, text=True)
        assert done.stdout == f"{after}\n", done.stderr


def test_help_needs_nothing(clone):
    assert "Usage: scripts/setup" in setup(clone, "--help").stdout


def test_the_lock_pins_by_hash_and_names_no_index():
    lines = (ROOT / "requirements" / "dev.lock").read_text().splitlines()
    assert not [line for line in lines if "://" in line or "--index" in line or "--find-links" in line]
    pinned = [line for line in lines if "==" in line and not line.startswith((" ", "#"))]
    assert pinned and all(line.endswith("\\") for line in pinned)
