"""`inspect --image`: the contact sheet is a new file, and what cannot be drawn is a sentence."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from heatserve_tools.inspect import main
from heatserve_tools.packaging import inspector
from heatserve_tools.packaging.inspector import Photograph
from heatserve_tools.packaging.packager import Recipe
from tests.tools.test_inspect import CONFIG, NET

GIVEN = ["model.py:Net", "--config", "config.yaml", "--image", "photo.png"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with a model file, a configuration of a small view, and a photograph."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(NET)
    Path("config.yaml").write_text(CONFIG)
    Image.linear_gradient("L").convert("RGB").save("photo.png")
    return tmp_path


def inspect(*arguments):
    return CliRunner().invoke(main, arguments, prog_name="heatserve inspect")


def test_the_sheet_lies_beside_the_photograph_and_a_second_one_gets_a_number():
    done = inspect(*GIVEN, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["sheet_file"] == "photo-Net-methods.png"
    fitting = [method["name"] for method in found["network"]["methods"] if method["refused"] is None]
    assert found["sheet"]["methods"] == fitting and "png" not in found["sheet"]
    first = Path("photo-Net-methods.png").read_bytes()
    assert Image.open("photo-Net-methods.png").format == "PNG"
    done = inspect(*GIVEN)
    assert done.exit_code == 0 and "contact sheet: photo-Net-methods-2.png: " in done.stdout
    assert Path("photo-Net-methods.png").read_bytes() == first


def test_out_names_the_sheet_and_a_file_that_is_there_is_left_alone():
    assert inspect(*GIVEN, "--out", "sheet.png").exit_code == 0
    first = Path("sheet.png").read_bytes()
    done = inspect(*GIVEN, "--out", "sheet.png")
    assert done.exit_code == 1 and "sheet.png is there already" in done.stderr
    assert Path("sheet.png").read_bytes() == first
    assert inspect("model.py:Net", "--out", "other.png").exit_code == 2


def test_a_photograph_that_cannot_be_read_is_a_sentence():
    Path("photo.png").write_bytes(b"no picture")
    done = inspect(*GIVEN)
    assert done.exit_code == 1 and "no contact sheet: " in done.stdout
    assert [path.name for path in Path().glob("*.png")] == ["photo.png"]


def test_a_model_that_is_refused_has_no_sheet():
    done = inspect("model.py:Probable", *GIVEN[1:])
    assert done.exit_code == 1 and "refused: " in done.stdout
    assert [path.name for path in Path().glob("*.png")] == ["photo.png"]


def test_the_progress_of_the_sheet_is_told():
    seen = []
    recipe = Recipe("Net", "model.py:Net", None, config=Path("config.yaml"))
    found = inspector.network("model.py:Net", recipe, Photograph(Path("photo.png"), lambda *step: seen.append(step)))
    count = len(found.found["sheet"]["methods"])
    assert seen[-1] == (count, count, "") and all(every == count for _, every, _ in seen)
    assert found.sheet.startswith(b"\x89PNG")
