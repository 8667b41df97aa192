"""Archives that TorchServe cannot serve are told from the file, before a server starts over them."""

import json
import zipfile

import pytest

from heatserve_tools.packaging import servable

MODEL = {"modelName": "net", "handler": "net_handler.py", "modelVersion": "1.0", "configFile": "model-config.yaml"}


def archive(path, model=MODEL, config="minWorkers: 1\n", manifest=None):
    """An archive of three files; a file that is None is left out."""
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("net_handler.py", "")
        if config is not None:
            written.writestr("model-config.yaml", config)
        text = json.dumps({"runtime": "python", "model": model}) if manifest is None else manifest
        written.writestr("MAR-INF/MANIFEST.json", text)
    return path


def test_an_archive_that_is_whole_has_no_trouble(tmp_path):
    assert servable.trouble(archive(tmp_path / "net.mar")) is None
    stock = {**MODEL, "handler": "image_classifier"}
    assert servable.trouble(archive(tmp_path / "stock.mar", stock)) is None
    assert servable.trouble(archive(tmp_path / "function.mar", {**MODEL, "handler": "net_handler:predict"})) is None
    plain = {key: value for key, value in MODEL.items() if key != "configFile"}
    assert servable.trouble(archive(tmp_path / "plain.mar", plain, config=None)) is None


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"manifest": "{"}, "has a MAR-INF/MANIFEST.json that is not JSON"),
        ({"manifest": "[]"}, "has a MAR-INF/MANIFEST.json that names no model"),
        ({"model": None}, "has a MAR-INF/MANIFEST.json that names no model"),
        ({"model": {"modelName": "net"}}, "has a MAR-INF/MANIFEST.json that names no handler"),
        ({"model": {**MODEL, "handler": "other.py"}}, "names the handler other.py, which is not in it"),
        ({"model": {**MODEL, "serializedFile": "w.pt"}}, "names the weights w.pt, which are not in it"),
        ({"config": None}, "names the configuration model-config.yaml, which is not in it"),
        ({"config": ""}, "has a model-config.yaml that is empty, not a mapping of settings"),
        ({"config": "# nothing\n"}, "has a model-config.yaml that is empty"),
        ({"config": "- a\n"}, "has a model-config.yaml that is a list, not a mapping"),
        ({"config": "text\n"}, "has a model-config.yaml that is a str, not a mapping"),
        ({"config": "1: 2\n"}, "has a model-config.yaml that has the key 1, which is no text"),
        ({"config": "a: [\n"}, "has a model-config.yaml that is not readable YAML"),
        ({"config": "a: 1\n---\nb: 2\n"}, "has a model-config.yaml that is not readable YAML"),
        ({"config": b"a: \xe4\n"}, "has a model-config.yaml that is not readable YAML"),
    ],
)
def test_what_torchserve_cannot_read_is_named(tmp_path, made, said):
    trouble = servable.trouble(archive(tmp_path / "net.mar", **made))
    assert trouble.startswith(said) and "\n" not in trouble


def test_a_file_that_is_no_archive_is_named(tmp_path):
    whole = archive(tmp_path / "net.mar").read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2]):
        (tmp_path / "net.mar").write_bytes(content)
        assert servable.trouble(tmp_path / "net.mar") == "is no zip file, or not a whole one"
    damaged = bytearray(whole)
    damaged[whole.index(b"minWorkers")] ^= 1
    (tmp_path / "net.mar").write_bytes(damaged)
    trouble = "is damaged: its member model-config.yaml does not match its checksum"
    assert servable.trouble(tmp_path / "net.mar") == trouble
    with zipfile.ZipFile(tmp_path / "net.mar", "w") as written:
        written.writestr("a.py", "")
    assert servable.trouble(tmp_path / "net.mar") == "has no MAR-INF/MANIFEST.json"
    (tmp_path / "folder.mar").mkdir()
    assert servable.trouble(tmp_path / "folder.mar").startswith("cannot be read")
    assert "a name that TorchServe does not take" in servable.trouble(archive(tmp_path / "a b,c=d.mar"))
