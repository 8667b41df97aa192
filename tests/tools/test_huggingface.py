"""`--huggingface` and `--timm`: archives against transformers and timm themselves, on the picture of a trial."""

import io
import json
from pathlib import Path

import pytest
import timm
import torch
import transformers
from click.testing import CliRunner
from PIL import Image

from heatserve_tools import bringing
from heatserve_tools.errors import ToolError
from heatserve_tools.package import main
from heatserve_tools.packaging import trial, trial_worker

LABELS = {0: "cat", 1: "dog", 2: "crane"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
VIT = {**SMALL, "image_size": 32, "patch_size": 8, "id2label": LABELS, "label2id": {v: k for k, v in LABELS.items()}}


@pytest.fixture
def trials(monkeypatch, tmp_path):
    """The trials of the archives that the command made in this test, which runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    seen, run = [], trial.run

    def remembered(*arguments):
        seen.append(run(*arguments))
        return seen[-1]

    monkeypatch.setattr(trial, "run", remembered)
    return seen


def saved(network, processor, folder="model"):
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)


def vit(**config):
    torch.manual_seed(0)
    network = transformers.ViTForImageClassification(transformers.ViTConfig(**{**VIT, **config})).eval()
    torch.nn.init.normal_(network.classifier.weight, std=1.0)
    return network


def packaged(*arguments):
    done = CliRunner().invoke(main, ["new", "--export-path", "store", "--force", *arguments])
    return done.exit_code, " ".join(done.output.split())


def taken(**options):
    """The recipe that the options of the command make."""
    empty = dict.fromkeys(bringing.Asked.__dataclass_fields__)
    given = {"packages": (), "extra_files": (), "extensions": (), **options}
    Path("scratch").mkdir(exist_ok=True)
    return bringing.recipe("new", bringing.Asked(**{**empty, **given}), Path("scratch"))


def photograph():
    return Image.open(io.BytesIO(trial_worker.photograph())).convert("RGB")


def test_a_hugging_face_folder_answers_as_transformers_does(trials):
    network = vit(problem_type="multi_label_classification")
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    code, said = packaged("--huggingface", str(saved(network, processor)))
    assert code == 0, said
    assert "is built by transformers" in said and "it imports transformers, which a server may lack" in said
    assert "gradcam" in trials[-1].methods
    with torch.no_grad():
        logits = network(**processor(photograph(), return_tensors="pt")).logits[0]
    expected = {LABELS[index]: float(probability) for index, probability in enumerate(logits.sigmoid())}
    assert trials[-1].prediction == pytest.approx(expected, abs=2e-3)  # its processor resizes tensors, ours pictures
    assert trials[-1].description["archive"]["verified"] is True


def test_a_timm_name_answers_as_timm_does(trials):
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=3).eval()
    torch.nn.init.normal_(network.fc.weight, std=1.0)
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, "run.pth.tar")
    Path("labels.txt").write_text("cat\ndog\ncrane\n")
    given = ["--timm", "resnet10t", "--classes", "3", "--weights", "run.pth.tar", "--labels", "labels.txt"]
    code, said = packaged(*given)
    assert code == 1 and "add --activation softmax" in said
    code, said = packaged(*given, "--activation", "softmax")
    assert code == 0, said
    assert "the network is built by timm" in said and "it imports timm, which a server may lack" in said
    assert "the preprocessing is that of timm's own weights" in said
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
    with torch.no_grad():
        expected = network(transform(photograph())[None])[0].softmax(0)
    assert trials[-1].prediction == pytest.approx({LABELS[k]: float(p) for k, p in enumerate(expected)}, abs=1e-4)


def test_a_folder_settles_the_activation_only_by_its_problem_type(trials):
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    folder = saved(vit(), processor)
    assert taken(huggingface=folder).activation is None
    assert taken(huggingface=folder, activation="softmax").activation == "softmax"
    config = json.loads((folder / "config.json").read_text())
    for problem, activation in (("multi_label_classification", "sigmoid"), ("regression", "none")):
        (folder / "config.json").write_text(json.dumps({**config, "problem_type": problem}))
        assert taken(huggingface=folder).activation == activation


def test_names_that_say_nothing_are_no_labels(trials):
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    folder = saved(vit(id2label={0: "LABEL_0", 1: "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1}), processor)
    assert taken(huggingface=folder).labels is None


def test_folders_and_names_that_cannot_be_packaged_are_a_sentence(trials):
    def refused(said, **options):
        with pytest.raises(ToolError, match=said):
            taken(**options)

    network = vit()
    folder = saved(network, transformers.ViTImageProcessor(size={"height": 32, "width": 32}))
    described = (folder / "preprocessor_config.json").read_bytes()
    (folder / "preprocessor_config.json").unlink()
    refused("has no preprocessor_config.json: say the training's", huggingface=folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "preprocessor_config.json").write_bytes(described)
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["ViTModel"]}))
    refused("is a ViTModel, not an image classifier", huggingface=folder)
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "code.Config"}}))
    refused("needs code of its own", huggingface=folder)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    refused("of the type bert, of which transformers here has no image classifier", huggingface=folder)
    (folder / "config.json").write_text(json.dumps(config))
    transformers.ViTModel(network.config).save_pretrained("headless")
    (folder / "model.safetensors").write_bytes(Path("headless/model.safetensors").read_bytes())
    refused(r"lack 2 tensors of the network, the first is classifier\.bias", huggingface=folder)
    (folder / "model.safetensors").unlink()
    refused("has neither model.safetensors nor pytorch_model.bin", huggingface=folder)
    Path("empty").mkdir()
    refused("There is no config.json in empty", huggingface=Path("empty"))
    weights = Path("weights.pth")
    refused(r"no model 'resnet18x' here: do you mean .*resnet18", timm="resnet18x", classes=3, weights=weights)
    refused("--timm NAME and --classes N go together", timm="resnet18", weights=weights)
    refused("--timm needs the network's weights", timm="resnet18", classes=3)
    refused("No network is named")
