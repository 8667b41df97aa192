"""The README says what the code does: its table is the code's, its commands run, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from devtools.paths import HANDLERS, ROOT
from devtools.readme import README, with_options
from heatserve_tools.demo import imagenet
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_options_table_is_the_codes() -> None:
    assert with_options(TEXT) == TEXT, "python -m devtools.readme writes it anew"


def test_every_link_to_a_file_leads_to_one() -> None:
    for document in [README, *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert link.startswith("http") or (document.parent / link).exists(), f"{document.name}: {link}"


def test_the_library_example_runs() -> None:
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})


@pytest.mark.server
def test_the_curl_lines_get_what_they_ask_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(photographs()["chelsea"])
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl")]
    assert len(commands) >= 5
    for command in commands:
        command = command.replace("http://127.0.0.1:8080", server.inference).replace("curl", "curl -sf", 1)
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, timeout=120)
        assert done.returncode == 0, command
        expected = b'"methods"' if command.endswith("/describe") else b"tiger cat"
        assert expected in done.stdout or " -o " in command
    assert (tmp_path / "where.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "smooth.json").read_bytes().startswith(b"{")


def test_the_packaging_example_makes_an_archive(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    (tmp_path / "labels.txt").write_text("\n".join(imagenet.labels()))
    for line in (line for block in blocks("bash") for line in block.splitlines() if line.startswith("scripts/")):
        name, _, rest = line.removeprefix("scripts/").partition(" ")
        more = f" --export-path {tmp_path}" if name == "package" else ""
        done = subprocess.run(
            f"{sys.executable} -m heatserve_tools.{name} {rest}{more}",
            shell=True,
            cwd=tmp_path,
            env={"PYTHONPATH": f"{HANDLERS}:{ROOT}", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "resnet.mar").is_file()
