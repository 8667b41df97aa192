import sys

import pytest

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import architecture


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder on the import path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_torchvision_model_needs_nothing_in_the_archive():
    read = architecture.read("torchvision.models:resnet18")
    assert (read.reference, read.members, read.model_file) == ("torchvision.models:resnet18", {}, None)


@pytest.mark.parametrize(("source", "model_file"), [("", "model.py"), ("class Other: ...\n", None)])
def test_a_file_is_the_stock_handlers_model_file_only_where_it_has_one_class(tmp_path, source, model_file):
    path = tmp_path / "model.py"
    path.write_text(f"import torch\n{source}class Net(torch.nn.Module): ...\n")
    read = architecture.read(f"{path}:Net")
    assert read.reference == "model:Net"
    assert read.members == {"model.py": path}
    assert read.model_file == model_file


def test_the_package_of_an_architecture_travels_along_without_what_python_left_there(packages):
    (packages / "nets" / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "small.py", "__pycache__/small.pyc"):
        (packages / "nets" / name).write_text("")
    read = architecture.read("nets.small:Small.tiny")
    assert sorted(read.members) == ["nets/__init__.py", "nets/small.py"]


def test_a_package_with_compiled_extensions_is_refused(packages):
    (packages / "fast").mkdir()
    (packages / "fast" / "__init__.py").write_text("")
    (packages / "fast" / "_kernel.so").write_text("")
    with pytest.raises(ToolError, match="compiled extensions"):
        architecture.package_members("fast")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resnet50", "neither"),
        ("torchvision.models:", "neither"),
        ("torch vision:resnet50", "not the name of a Python module"),
        ("no_such_package:net", "no installed package"),
        ("nowhere/model.py:Net", "no model file"),
    ],
)
def test_an_architecture_that_cannot_be_found_is_refused(text, said):
    with pytest.raises(ToolError, match=said):
        architecture.read(text)


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("model.py", "class Other: ...\n", "it defines Other"),
        ("model.py", "class Net(\n", "not Python: line"),
        ("model.py", "class Net: ...\0\n", "not Python: "),
        ("model.py", "a = " + "-" * 100_000 + "1\n", "not Python: "),
        ("my-model.py", "class Net: ...\n", "Python name"),
        ("json.py", "class Net: ...\n", "would hide"),
        ("torch.py", "class Net: ...\n", "would hide"),
        ("heatserve.py", "class Net: ...\n", "would hide"),
    ],
)
def test_a_model_file_that_cannot_work_is_refused(tmp_path, name, source, said):
    path = tmp_path / name
    path.write_text(source)
    with pytest.raises(ToolError, match=said):
        architecture.read(f"{path}:Net")


def test_imports_that_neither_archive_nor_server_has_are_named():
    members = {
        "model.py": b"import json\nimport torch\nimport timm.layers\nfrom nets.small import Small\n",
        "nets/__init__.py": b"from . import small\nimport einops\n",
        "nets/small.py": b"",
        "nets/of_python_2.py": b"print 'hello'\n",
    }
    before = set(sys.modules)
    assert architecture.unmet_imports(members) == ["einops", "timm"]
    assert not {"timm", "einops"} & (set(sys.modules) - before)
