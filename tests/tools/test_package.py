"""The report of `package`: the commands that it names work."""

import io
import shlex

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from heatserve.engine.choice import LayerChoice
from heatserve.engine.errors import UnsuitableModel
from heatserve_tools.errors import ToolError
from heatserve_tools.package import _report, main
from heatserve_tools.packaging.packager import Packaged
from heatserve_tools.packaging.trial import Trial


def reported(path, methods=("gradcam",), named=True):
    """The report's lines about an archive at this path. named: whether the folder was named as an option."""
    trial = Trial({"cat": 0.7}, {}, {"methods": [*methods]}, ("batchsize [b] is ignored",))
    stream = io.StringIO()
    console = Console(file=stream, highlight=False, emoji=False)
    _report(console, path.stem, Packaged(path, "w", "c", trial, ()), "scripts/serve", named)
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


def refused(monkeypatch, tmp_path, sentence, *options):
    """The output of a packaging that is refused with this sentence."""
    (tmp_path / "weights.pt").write_bytes(b"")

    def package(*_):
        raise ToolError(sentence)

    monkeypatch.setattr("heatserve_tools.packaging.packager.package", package)
    given = ["net", "--architecture", "model.py:Net", "--weights", str(tmp_path / "weights.pt"), *options]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 1
    return done.stderr


def test_a_network_without_a_clear_layer_gets_the_easy_way(monkeypatch, tmp_path):
    choice = LayerChoice((), (), None, "no attention is seen in it")
    with pytest.raises(UnsuitableModel) as unclear:
        choice.check("gradcam")
    assert "`explain: {method: gradient}`" in refused(monkeypatch, tmp_path, str(unclear.value))


def test_a_torchscript_module_has_no_layers(monkeypatch, tmp_path):
    with pytest.raises(RuntimeError) as unsupported:
        torch.jit.script(torch.nn.Linear(1, 1)).requires_grad_(False)
    assert "has no layers to explain" in refused(monkeypatch, tmp_path, str(unsupported.value))


def test_labels_that_do_not_fit_are_named_with_their_number(monkeypatch, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    sentence = "index_to_name.json must name the model's classes 0 to 2, and no others"
    said = refused(monkeypatch, tmp_path, sentence, "--labels", str(tmp_path / "names.txt"))
    assert f"The labels {tmp_path / 'names.txt'} name 2 classes." in said


def test_the_methods_and_warnings_are_those_of_the_archive(tmp_path):
    (tmp_path / "net.mar").write_bytes(b"")
    lines = reported(tmp_path / "net.mar", ("gradient", "vargrad"))
    assert "methods   gradient, vargrad" in lines and "note      batchsize [b] is ignored" in lines


def test_an_archive_in_its_usual_place_needs_no_folder(tmp_path):
    (tmp_path / "net.mar").write_bytes(b"")
    assert "Serve it with: scripts/serve --open" in reported(tmp_path / "net.mar", named=False)


@pytest.mark.parametrize(
    ("program", "serve"), [("scripts/package", "scripts/serve"), ("heatserve package", "heatserve serve")]
)
@pytest.mark.parametrize("export", [[], ["--export-path", "elsewhere"]])
def test_the_hint_names_the_command_that_was_used_and_the_folder_that_it_was_given(
    monkeypatch, tmp_path, program, serve, export
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"")

    def packaged(recipe, export_path, force):
        export_path.mkdir()
        (export_path / "net.mar").write_bytes(b"")
        return Packaged(export_path / "net.mar", "w", "c", Trial({"cat": 0.7}, {}, {}), ())

    monkeypatch.setattr("heatserve_tools.packaging.packager.package", packaged)
    arguments = ["net", "--architecture", "torchvision.models:resnet18", "--weights", "weights.pt", *export]
    # prog_name and default_map are what scripts/package gives.
    store = {"export_path": tmp_path / "model_store"} if program.startswith("scripts/") else None
    done = CliRunner().invoke(main, arguments, prog_name=program, default_map=store)
    hint = f" --model-store {tmp_path / 'elsewhere'}" if export else ""
    assert f"Serve it with: {serve} --open{hint}\n" in done.output
    assert (tmp_path / ("elsewhere" if export else "model_store") / "net.mar").is_file()
