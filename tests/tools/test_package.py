"""What scripts/package tells its user to do next."""

import io
import shlex

import pytest
from rich.console import Console

from devtools.paths import MODEL_STORE
from heatserve_tools.package import _report
from heatserve_tools.packaging.packager import Packaged
from heatserve_tools.packaging.trial import Trial


def reported(path, methods=("gradcam",)):
    """The report's lines about an archive at this path."""
    trial = Trial({"cat": 0.7}, {}, {"methods": [*methods]}, ("batchsize [b] is ignored",))
    stream = io.StringIO()
    _report(Console(file=stream, highlight=False, emoji=False), path.stem, Packaged(path, "w", "c", trial, ()))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("folder", ["store", 'a store [bold] :smile: $HOME `id` "it\'s" ' + "long " * 30])
def test_the_closing_hint_serves_the_folder_that_was_exported_to(tmp_path, folder):
    path = tmp_path / folder.strip() / "net.mar"
    path.parent.mkdir()
    path.write_bytes(b"")
    lines = reported(path)
    (hint,) = [line.partition(": ")[2] for line in lines if line.startswith("Serve it with")]
    assert shlex.split(hint) == ["scripts/serve", "--open", "--model-store", str(path.parent)]
    assert f"{path} (0.0 MB)" in lines[0]
    assert "  curl http://127.0.0.1:8080/explanations/net -T PHOTO.jpg" in lines


def test_the_methods_and_warnings_are_those_of_the_archive(tmp_path):
    (tmp_path / "net.mar").write_bytes(b"")
    lines = reported(tmp_path / "net.mar", ("gradient", "vargrad"))
    assert "methods   gradient, vargrad" in lines and "note      batchsize [b] is ignored" in lines


def test_an_archive_in_its_usual_place_needs_no_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("heatserve_tools.package.MODEL_STORE", tmp_path)
    (tmp_path / "net.mar").write_bytes(b"")
    assert "Serve it with: scripts/serve --open" in reported(tmp_path / "net.mar")
    assert MODEL_STORE.name == "model_store"
