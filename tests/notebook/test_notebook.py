"""The notebook's classifier, on a small network and small pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

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
