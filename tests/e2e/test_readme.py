"""The README agrees with the code: its table is the code's, its commands run, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from devtools.paths import ROOT
from devtools.readme import README, with_options
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server
from tests.shell import run

CHANGELOG, CONTRIBUTING = ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_options_table_is_the_codes() -> None:
    assert with_options(TEXT) == TEXT, "python -m devtools.readme writes it anew"


def test_every_link_leads_to_a_file_and_a_heading_that_are_there() -> None:
    for document in [README, CHANGELOG, CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
            if link.startswith("http"):
                continue
            name, _, heading = link.partition("#")
            target = document.parent / name if name else document
            assert target.exists(), f"{document.name}: {link}"
            assert not heading or heading in anchors(target), f"{document.name}: {link}"


def anchors(document: Path) -> set[str]:
    """The names of a document's headings in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_library_example_runs() -> None:
    (example,) = (block for block in blocks("python") if "Explainer" in block)
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
    (file,) = (block for block in blocks("python") if block.startswith("# model.py"))
    (tmp_path / "model.py").write_text(file)
    names: dict[str, Any] = {}
    exec(file, names)
    network = names["model"]()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "labels.txt").write_text("\n".join(f"bird {index}" for index in range(network.fc.out_features)))
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("heatserve")]
    assert lines.pop() == "heatserve serve --open"  # it runs until Ctrl-C, on fixed ports
    outputs = {line.split()[1]: run(line, tmp_path) for line in lines}
    assert (tmp_path / "model_store" / "mine.mar").is_file()
    assert "layer4" in outputs["inspect"] and "smoothgrad" in outputs["inspect"]
