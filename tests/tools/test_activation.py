"""The activation of an archive: named, settled, or asked for."""

from dataclasses import replace

import pytest
import torch
import yaml
from click.testing import CliRunner

from heatserve_tools import package as command
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import activation
from heatserve_tools.packaging.configuration import configuration, settled
from heatserve_tools.packaging.packager import package
from heatserve_tools.packaging.recipe import Recipe


@pytest.fixture
def recipe(tmp_path):
    """A recipe of a small network of the user's own, which nothing says the activation of."""
    (tmp_path / "model.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Sequential):\n    def __init__(self):\n        super().__init__("
        "torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3))\n"
    )
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Flatten(), torch.nn.Linear(4, 3)
    )
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "config.yaml").write_text("preprocess: {resize: 32, crop: 24}\n")
    model = f"{tmp_path / 'model.py'}:Net"
    return Recipe("net", model, tmp_path / "weights.pth", config=tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("given", "architecture", "explain", "found"),
    [
        (None, "torchvision.models:resnet18", {}, "softmax"),
        ("sigmoid", "torchvision.models:resnet18", {}, "sigmoid"),
        (None, "torchvision.models:resnet18", {"activation": "sigmoid"}, "sigmoid"),
        (None, "torchvision.models.segmentation:fcn_resnet50", {}, None),
        (None, "model.py:Net", {"activation": "none"}, "none"),
        ("none", "model.py:Net", {"activation": "none"}, "none"),
        (None, "model.py:Net", {}, None),
        (None, "timm.models:resnet18", {}, None),
    ],
)
def test_the_activation_is_the_users_or_the_configurations_or_the_one_that_an_architecture_settles(
    given, architecture, explain, found
):
    assert activation.of(given, architecture, explain) == found


def test_two_activations_are_refused():
    with pytest.raises(ToolError, match=r"--activation softmax is not .* 'sigmoid': leave one out"):
        activation.of("softmax", "model.py:Net", {"activation": "sigmoid"})


def test_an_archive_whose_activation_nothing_settles_is_refused_with_the_line_that_settles_it(recipe, tmp_path):
    with pytest.raises(ToolError, match=r"add --activation softmax .* sigmoid .* none") as refusal:
        package(recipe, tmp_path / "store")
    assert "\n" not in str(refusal.value) and not (tmp_path / "store").exists()


@pytest.mark.parametrize("named", ["softmax", "sigmoid"])
def test_the_activation_stands_in_the_archives_configuration(recipe, named):
    written = yaml.safe_load(configuration(replace(recipe, activation=named)))
    assert written == {"preprocess": {"resize": 32, "crop": 24}, "explain": {"activation": named}}
    assert yaml.safe_load(configuration(replace(recipe, activation=named, config=None))) == {
        "explain": {"activation": named}
    }


def test_a_file_that_names_its_activation_goes_into_the_archive_as_it_is(recipe):
    content = b"# of the spring's training\nexplain: {activation: sigmoid}\n"
    recipe.config.write_bytes(content)
    assert configuration(recipe) == content and settled(recipe) == "sigmoid"


def test_the_probabilities_of_a_packaged_archive_are_those_of_its_activation(recipe, tmp_path):
    """Sigmoids of three labels have no sum of 1; the softmax has it."""
    totals = {}
    for named in ("softmax", "sigmoid"):
        packaged = package(replace(recipe, name=named, activation=named), tmp_path / "store")
        totals[named] = sum(packaged.trial.prediction.values())
    assert totals["softmax"] == pytest.approx(1, abs=1e-4) and abs(totals["sigmoid"] - 1) > 0.05


class Terminal:
    """A terminal in the place of the module `sys`, for the question whether there is one."""

    class stdin:
        @staticmethod
        def isatty():
            return True

    exit = staticmethod(lambda status: None)


def test_a_person_at_a_terminal_is_asked(recipe, monkeypatch):
    seen = []

    def packaged(recipe, *_):
        seen.append(recipe.activation)
        raise ToolError("enough")

    monkeypatch.setattr(command, "sys", Terminal)
    monkeypatch.setattr("heatserve_tools.packaging.packager.package", packaged)
    arguments = ["net", "--architecture", recipe.architecture, "--weights", str(recipe.weights)]
    done = CliRunner().invoke(command.main, arguments, input="both\nsigmoid\n")
    assert seen == ["sigmoid"] and "each label is there or not" in done.stderr
    done = CliRunner().invoke(command.main, [*arguments, "--activation", "none"])
    assert seen == ["sigmoid", "none"] and "each label" not in done.stderr
