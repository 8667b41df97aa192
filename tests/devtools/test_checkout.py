"""scripts/* use the folders of this checkout wherever they are called, and name one another."""

import subprocess
import sys

import pytest

from devtools.paths import HANDLERS, ROOT


def run(folder, *arguments):
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{HANDLERS}:{ROOT}", "COLUMNS": "200"}
    command = [sys.executable, "-m", "devtools.checkout", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def test_serve_looks_into_the_model_store_of_the_checkout(tmp_path):
    done = run(tmp_path, "serve", "--model", "no_such")
    assert done.returncode == 1 and f"No archive no_such.mar in {ROOT / 'model_store'} (" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_serve_names_the_script_that_makes_an_archive(tmp_path):
    done = run(tmp_path, "serve", "--model-store", str(tmp_path))
    assert done.stderr == f"Error: No archive *.mar in {tmp_path} (scripts/package makes one).\n"


@pytest.mark.parametrize(
    ("command", "folders"),
    [("package", ["model_store"]), ("serve", ["model_store", "."]), ("demo", ["demo", "model_store"])],
)
def test_the_help_shows_these_folders_and_the_scripts_name(tmp_path, command, folders):
    done = run(tmp_path, command, "--help")
    assert done.stdout.startswith(f"Usage: scripts/{command} ")
    assert all(f"[default: {(ROOT / folder).resolve()}]" in " ".join(done.stdout.split()) for folder in folders)
