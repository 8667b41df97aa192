"""The notebook's classifier, on a small network and small pictures."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from heatserve.engine import UnsuitableModel
from heatserve.imaging import Picture, Preprocess
from heatserve.notebook import Classifier, layers_of

PREPROCESS = Preprocess(resize=40, crop=32)
LABELS = ["tabby", "dog", "bird"]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(LABELS))
    )


def photograph(seed, width=60, height=48):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def classifier():
    with Classifier(net(), LABELS, PREPROCESS) as made:
        yield made


def test_layers_of_a_model_come_with_their_shapes_and_leave_it_as_it_was():
    model = net()
    found = layers_of(model, 32)
    assert [(layer.name, layer.shape) for layer in found if layer.default] == [("1", (8, 16, 16))]
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_layers_of_a_transformer_have_their_layout_and_none_without_a_gradient():
    model = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    found = {layer.name: layer for layer in layers_of(model, 32)}
    assert {layer.layout for layer in found.values()} == {"tokens:1:4x4"}
    assert next(iter(found.values())).default and [one.default for one in found.values()].count(True) == 1
    assert "encoder" not in found and "encoder.ln" not in found  # only its class token is read
    for name in found:
        with pytest.warns(UserWarning, match="frozen"):
            classifier = Classifier(model, preprocess=PREPROCESS, layers=[name])
        assert classifier.explain(photograph(1), "gradient").map.any() and classifier.layers == (name,)
        classifier.close()


def test_a_picture_of_other_proportions_takes_no_overlay(classifier):
    answer = classifier.explain(photograph(1))
    with pytest.raises(ValueError, match="30 x 30, and the explained one 60 x 48"):
        answer.overlay(Image.new("RGB", (30, 30)))
    assert answer.overlay(Image.new("RGB", (61, 49))).size == (61, 49)  # rounded


def test_an_overlay_lies_where_the_model_saw_the_picture(classifier):
    answer = classifier.explain(photograph(1))
    white = Image.new("RGB", (600, 480), "white")
    dimmed = (np.asarray(answer.overlay(white)) == 127).all(2) | (np.asarray(answer.overlay(white)) == 128).all(2)
    # 48 pixels become 40, and 32 of 40 and of 50 are seen: 80 % of the height, 64 % of the width.
    rows, columns = np.nonzero(~dimmed.all(1))[0], np.nonzero(~dimmed.all(0))[0]
    assert (rows[0], rows[-1] + 1) == (48, 432) and (columns[0], columns[-1] + 1) == (108, 492)


def test_close_undoes_everything_and_the_model_stays_to_the_bit():
    class Own(nn.Module):
        """Its forward ends in a sigmoid, some of it is frozen, and some of it is in evaluation mode."""

        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
            self.fc = nn.Linear(8, len(LABELS))

        def forward(self, x):
            return {"probabilities": self.fc(self.body(x).mean((2, 3))).sigmoid()}

    torch.manual_seed(0)
    model = Own()
    model.body[1].eval()
    model.body[0].requires_grad_(False)
    images = torch.rand(4, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own, modes = model(images)["probabilities"], [module.training for module in model.modules()]
    modules, flags = [*model.modules()], [parameter.requires_grad for parameter in model.parameters()]
    with pytest.warns(UserWarning, match="frozen"):
        classifier = Classifier(model, LABELS, PREPROCESS, activation="sigmoid")
    answer = classifier.explain(photograph(1))
    with torch.no_grad():
        scores = model(PREPROCESS.tensor(Picture(photograph(1)), 10**6)[0][None])
    assert answer.probability == pytest.approx(float(scores[0].sigmoid().max()), abs=1e-6)
    classifier.close()
    classifier.close()
    assert torch.equal(model(images)["probabilities"], own)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert [*model.modules()] == modules and "forward" not in vars(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="closed"):
        classifier.explain(photograph(1))
    with pytest.raises(ValueError, match="closed"):
        classifier.explain_files([])


def test_a_model_that_cannot_be_explained_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid())
    with pytest.warns(UserWarning, match="frozen"), pytest.raises(UnsuitableModel):
        Classifier(model, preprocess=PREPROCESS)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_wrong_label_is_an_error_before_the_first_file(classifier, tmp_path):
    with pytest.raises(ValueError, match="no class has this label"):
        classifier.explain_files(tmp_path, target="horse")


def test_it_says_that_the_model_is_frozen_and_close_undoes_it():
    model = net()
    with pytest.warns(UserWarning, match="frozen"):
        classifier = Classifier(model, LABELS, PREPROCESS)
    assert "frozen" in repr(classifier)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    classifier.close()
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_probabilities_of_an_answer_are_the_models_own(classifier):
    picture = photograph(1)
    answer = classifier.explain(picture)
    tensor = PREPROCESS.tensor(Picture(picture), 10**6)[0]
    with torch.no_grad():
        theirs = net().eval()(tensor[None]).softmax(1)[0]
    for label, probability in answer.predictions:
        assert probability == pytest.approx(float(theirs[LABELS.index(label)]), abs=1e-6)
    assert answer.predictions[0][1] == pytest.approx(float(theirs.max()), abs=1e-6)


def test_a_target_may_be_a_label_and_each_picture_may_have_a_query_of_its_own(classifier):
    pictures = [photograph(1), photograph(2), photograph(3)]
    queries = [
        classifier.query(target="dog"),
        classifier.query("smoothgrad", target=2, samples=3),
        classifier.query("gradient"),
    ]
    answers = classifier.explain_all(pictures, queries)
    assert [answer.label for answer in answers[:2]] == ["dog", "bird"]
    for picture, query, answer in zip(pictures, queries, answers):
        alone = classifier.explain_all([picture], query)[0]
        assert np.abs(alone.map - answer.map).max() <= 1e-5 * np.abs(alone.map).max()
    with pytest.raises(ValueError, match="no class has this label"):
        classifier.query(target="horse")
    with pytest.raises(ValueError, match="as many queries"):
        classifier.explain_all(pictures, queries[:2])


def test_a_map_of_blocks_has_the_size_of_the_view(classifier):
    answer = classifier.explain(photograph(1), "smoothgrad", target=2, samples=5, resolution=5)
    side = answer.attribution.map.shape[0]
    assert side == -(-answer.map.shape[0] // 5)
    assert np.array_equal(answer.map[::5, ::5], answer.attribution.map.numpy())


def test_an_overlay_has_the_photographs_size_and_may_be_laid_over_another_copy(classifier):
    picture = photograph(1)
    answer = classifier.explain(picture)
    assert answer.overlay().size == picture.size
    grey = Image.new("RGB", (30, 24), (128, 128, 128))
    assert answer.overlay(grey).size == grey.size
    assert answer.overlay(opacity=0.0).tobytes() != answer.overlay(opacity=1.0).tobytes()


def test_files_of_a_folder_are_explained_with_progress_and_a_broken_one_does_not_end_it(classifier, tmp_path, capsys):
    for number in range(2):
        photograph(number).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not asked for")
    found = dict(classifier.explain_files(tmp_path))
    assert sorted(path.name for path in found) == ["0.png", "1.png", "broken.png"]
    assert isinstance(found[tmp_path / "broken.png"], Exception)
    assert found[tmp_path / "0.png"].map.shape == (32, 32)
    assert "3 of 3 pictures" in capsys.readouterr().err


def test_labels_that_do_not_fit_are_refused_and_leave_no_hook():
    model = net().eval().requires_grad_(False)
    with pytest.raises(ValueError, match="classes 0 to 2"):
        Classifier(model, ["one"], PREPROCESS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_of_one_score_needs_the_name_of_its_label_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))
    with Classifier(model.eval(), ["ill"], PREPROCESS, "sigmoid") as classifier:
        found = dict(classifier.explain(photograph(1)).predictions)
        assert set(found) == {"ill", "not ill"} and sum(found.values()) == pytest.approx(1)
        with pytest.raises(ValueError, match="least"):
            classifier.explain(photograph(1), least=0.5)
