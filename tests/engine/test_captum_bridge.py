"""Attributions of Captum as methods: they equal Captum called by hand, and leave nothing on the network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from captum import attr
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18, vgg11_bn

from heatserve.engine import (
    CAPTUM,
    METHODS,
    Explainer,
    ExtensionError,
    Query,
    UnsuitableModel,
    captum_bridge,
    register_captum,
    registry,
    try_added,
)
from heatserve.engine.method import Method
from tests.serving.small import Small

CLASSES = 7
pytestmark = pytest.mark.filterwarnings("ignore")  # Captum announces its hooks


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """All attributions are registered; the registry is as before afterwards."""
    before = dict(METHODS)
    for name in CAPTUM:
        register_captum(name)
    yield
    registry._methods.clear()
    registry._methods.update(before)


def network(name: str) -> nn.Module:
    """A network with in-place ReLUs whose statistics are not those of a new one."""
    torch.manual_seed(1)
    made: Any = {"resnet": resnet18, "vgg": vgg11_bn, "mobilenet": mobilenet_v2}[name](num_classes=CLASSES)
    if name == "vgg":
        made.classifier = nn.Sequential(nn.Linear(25088, 16), nn.ReLU(inplace=True), nn.Linear(16, CLASSES))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return made.eval()


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(2))


def by_hand(name: str, model: nn.Module, image: Tensor, target: int, contrast: int | None = None) -> Tensor:
    """Captum's attribution of one image, of a network that ends in one more linear layer."""
    last = nn.Linear(CLASSES, 1, bias=False)
    weight = torch.zeros(1, CLASSES)
    weight[0, target] = 1
    if contrast is not None:
        weight[0, contrast] = -1
    last.weight.data = weight
    made = getattr(attr, name)(nn.Sequential(deepcopy(model), last))
    found: Tensor = made.attribute(image[None].clone(), target=0, **captum_bridge._ATTRIBUTIONS[name].options)
    return found[0].detach()


def state(model: nn.Module) -> list[Any]:
    """All that hangs on a model: hooks, attributes, modes and flags; and its weights."""
    found: list[Any] = [(name, p.requires_grad, p.grad, p._version) for name, p in model.named_parameters()]
    for module in model.modules():
        hooks = {key: [*value] for key, value in vars(module).items() if key.endswith("_hooks")}
        found.append((sorted(vars(module)), module.training, hooks))
    return found


@pytest.mark.parametrize("name", CAPTUM)
@pytest.mark.parametrize("architecture", ["resnet", "vgg"])
def test_each_row_of_a_mixed_batch_equals_captum_by_hand(architecture: str, name: str) -> None:
    if (architecture, name) == ("resnet", "DeepLift"):
        pytest.skip("Captum refuses a ReLU module that runs twice: the next test")
    model = network(architecture)
    alone, pictures = deepcopy(model), images()
    explainer = Explainer(model, pictures[:2])
    method, before = f"captum:{name}", state(model)
    queries = [
        [Query("gradcam", target=1), Query(method, target=3), Query("gradient", target=3), Query(method, target=5)],
        [],
        [Query(method, target=0, contrast=4), Query("guided_backpropagation", rank=1), Query(method, rank=1)],
    ]
    logits, answers = explainer.run(pictures, queries)
    assert state(model) == before
    second = int(logits[2].argsort(descending=True)[1])
    # A fold rounds otherwise, and 50 points of a path meet many kinks of ReLUs.
    most = 1e-2 if name == "IntegratedGradients" else 2e-4
    wanted = [(0, 1, 3, None), (0, 3, 5, None), (2, 0, 0, 4), (2, 2, second, None)]
    for row, place, target, contrast in wanted:
        expected, found = by_hand(name, alone, pictures[row], target, contrast), answers[row][place]
        assert found.query.target == target and not found.values.requires_grad
        assert torch.allclose(found.values, expected, atol=most * float(expected.abs().max()), rtol=0)
    with torch.no_grad():
        assert torch.allclose(logits, alone(pictures), atol=1e-4)
    others = explainer.run(pictures, [[Query("gradcam", target=1), Query("gradient", target=3)], [], []])[1][0]
    assert torch.allclose(answers[0][0].values, others[0].values, atol=1e-6)
    assert torch.allclose(answers[0][2].values, others[1].values, atol=1e-6)


def test_an_exception_of_captum_is_a_sentence_and_leaves_nothing_on_the_network() -> None:
    model, pictures = network("resnet"), images(2)
    explainer = Explainer(model, pictures)
    before, logits = state(model), explainer.run(pictures, [[], []])[0]
    with pytest.raises(UnsuitableModel, match=r"Captum's DeepLift fails .* more than once .*; use gradient or"):
        explainer.explain(pictures, Query("captum:DeepLift", target=0))
    assert state(model) == before
    assert torch.equal(explainer.run(pictures, [[], []])[0], logits)
    (found, _) = explainer.explain(pictures, Query("captum:GuidedBackprop", target=2))
    expected = by_hand("GuidedBackprop", model, pictures[0], 2)
    assert torch.allclose(found.values, expected, atol=2e-4 * float(expected.abs().max()), rtol=0)
    explainer.close()


class Functions(nn.Module):
    """A network whose second ReLU is a function, which Captum's hooks do not see."""

    def __init__(self, second: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.relu, self.last = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, CLASSES, 3, 2)
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.relu(self.first(x)))
        return (torch.relu(x) if self.second is None else self.second(x)).mean((2, 3)) * 3 - 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("DeepLift", r"a function of this network for a linear one \(relu: 2 in the graph, and 1 in modules"),
        ("GuidedBackprop", "which are 1 of this network's 2 rectifiers"),
        ("Deconvolution", "which are 1 of this network's 2 rectifiers"),
    ],
)
def test_a_network_with_functions_that_captum_does_not_see_is_refused(name: str, said: str) -> None:
    pictures = images(2)
    with pytest.raises(UnsuitableModel, match=said):
        Explainer(Functions(), pictures).explain(pictures, Query(f"captum:{name}", target=1))
    Explainer(Functions(nn.ReLU()), pictures).explain(pictures, Query(f"captum:{name}", target=1))


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + x.abs())


@pytest.mark.parametrize("made", [Square, Gate, nn.GELU, nn.SiLU, nn.ReLU6, nn.Hardswish])
def test_deeplift_is_refused_where_captum_takes_a_function_for_a_linear_one(made: type[nn.Module]) -> None:
    pictures = images(2)
    with pytest.raises(UnsuitableModel, match="would take a function of this network for a linear one"):
        Explainer(Functions(made()), pictures).explain(pictures, Query("captum:DeepLift", target=1))


@pytest.mark.parametrize("made", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Softplus])
def test_the_parts_of_deeplift_sum_to_the_difference_of_the_scores(made: type[nn.Module]) -> None:
    pictures = images(2)
    explainer = Explainer(Functions(made()), pictures)
    logits = explainer.run(torch.cat([pictures, 0 * pictures[:1]]), [[], [], []])[0][:, 1]
    for row, found in enumerate(explainer.explain(pictures, Query("captum:DeepLift", target=1))):
        assert float(found.values.sum()) == pytest.approx(float(logits[row] - logits[2]), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", ["DeepLift", "GuidedBackprop", "Deconvolution"])
def test_the_trial_at_load_refuses_a_network_with_relu6(name: str) -> None:
    for other in CAPTUM:
        if other != name:
            registry._methods.pop(f"captum:{other}")
    with pytest.raises(ExtensionError, match=rf"method 'captum:{name}' fails on this network: Captum's {name} "):
        try_added(Explainer(network("mobilenet"), images(2)), images(2))


def test_the_trial_at_load_runs_all_on_a_network_that_suits() -> None:
    try_added(Explainer(Small(), torch.rand(2, 3, 32, 32)), torch.rand(2, 3, 32, 32))


def test_samples_are_the_mean_over_noisy_copies() -> None:
    model, picture = Small(), torch.randn(3, 32, 32)
    explainer = Explainer(model, picture[None], chunk=2)
    query = Query("captum:DeepLift", target=2, samples=5, seed=4)
    *_, smoothing = explainer.smooth(picture, query)
    drawn = explainer.begin(picture, query).draw(5)
    expected = attr.DeepLift(deepcopy(model)).attribute(drawn, target=2).mean(0).detach()
    assert torch.allclose(smoothing.estimate().values, expected, atol=1e-4 * float(expected.abs().max()))


class InPlace(nn.Module):
    """A network whose first operation works in place on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.mul_(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CAPTUM)
def test_a_network_that_works_in_place_on_its_input_is_explained_at_the_image(name: str) -> None:
    kept = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    explainer = Explainer(InPlace(), kept.clone())
    with torch.inference_mode():
        pictures = kept.clone()
        answers = explainer.run(pictures, [[Query(f"captum:{name}", target=1)]] * 2)[1]
    assert torch.equal(pictures, kept)
    scale = 1 if name in ("InputXGradient", "DeepLift", "IntegratedGradients") else 2
    options = captum_bridge._ATTRIBUTIONS[name].options
    expected = scale * getattr(attr, name)(Small()).attribute(kept.clone() * 2, target=1, **options).detach()
    for row in (0, 1):
        found = answers[row][0].values
        assert torch.allclose(found, expected[row], atol=1e-4 * float(expected.abs().max()))


def test_a_score_before_a_sigmoid_of_one_logit_is_explained() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(Small(), nn.Linear(6, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.inner(x) + 8)  # saturated

    torch.manual_seed(0)
    model, pictures = One(), torch.rand(2, 3, 32, 32)
    explainer = Explainer(model, pictures, activation="sigmoid")
    for name in CAPTUM:
        found = explainer.explain(pictures, Query(f"captum:{name}", target=1))
        options = captum_bridge._ATTRIBUTIONS[name].options
        expected = getattr(attr, name)(deepcopy(model.inner)).attribute(pictures.clone(), target=0, **options).detach()
        assert torch.allclose(found[1].values, expected[1], atol=1e-4 * float(expected.abs().max()))


def test_a_scripted_network_keeps_the_attributions_without_hooks() -> None:
    pictures = torch.rand(2, 3, 32, 32)
    scripted = torch.jit.trace(Small().eval(), pictures)
    explainer = Explainer(scripted, pictures)
    found = explainer.explain(pictures, Query("captum:InputXGradient", target=1))
    expected = attr.InputXGradient(Small()).attribute(pictures.clone(), target=1).detach()
    assert torch.allclose(found[0].values, expected[0], atol=1e-4 * float(expected.abs().max()))
    with pytest.raises(UnsuitableModel, match=r"hooks the network's modules.*give the eager network"):
        explainer.explain(pictures, Query("captum:DeepLift", target=1))


def test_the_price_counts_the_passes_that_captum_takes() -> None:
    taken = 0

    class Counting(Small):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal taken
            taken += len(x)
            return super().forward(x)

    pictures = torch.rand(1, 3, 32, 32)
    explainer = Explainer(Counting(), pictures)
    for name in CAPTUM:
        taken, query = 0, Query(f"captum:{name}", target=1)
        explainer.run(pictures, [[query]])
        passes = METHODS[query.method].passes
        assert query.work == query.price == 1 + 3 * passes
        assert passes <= taken <= query.price  # a backward pass counts two


def test_a_missing_captum_is_a_sentence_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registry._methods.pop("captum:DeepLift")
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ExtensionError, match=r"Captum cannot be imported here .*`pip install captum` on the server"):
        register_captum("DeepLift")
    assert "captum:DeepLift" not in METHODS


def test_captum_is_imported_for_its_own_methods_alone() -> None:
    code = "import sys, heatserve.engine; assert 'captum' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_registering_again_changes_nothing_and_other_names_are_refused() -> None:
    assert register_captum("Saliency") is METHODS["captum:Saliency"]
    with pytest.raises(ValueError, match=r"'LRP' is not one of Captum's attributions that are allowed: Saliency"):
        register_captum("LRP")
    row: dict[str, Any] = {"attribute": lambda s: s.inputs, "reduce": lambda a: a.sum(0)}
    with pytest.raises(ValueError, match="cannot be named 'captum:Mine'"):
        registry.register(Method("captum:Mine", "", "", "input", **row))
    with pytest.raises(ValueError, match="the signal of the model is for the bridge to Captum"):
        registry.register(Method("mine", "", "", "model", **row))
