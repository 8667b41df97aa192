"""One batch of predictions and explanations of every kind: each row gets the answer it would get alone."""

import pytest
import torch
from heatserve.engine import Query

from tests.engine.networks import (
    LAYERS,
    LINEAR_HEADS,
    NAMES,
    captum_gradcam,
    captum_gradient,
    distance,
    explainer,
    oracle,
    pictures,
    weights_times_activations,
)

TOLERANCE = 2e-4


def mixed(name):
    """The queries of nine rows; where CAM is not possible Grad-CAM stands in."""
    cam = "cam" if name in LINEAR_HEADS else "gradcam"
    earlier = LAYERS[name][1]
    return [
        [],
        [Query()],
        [Query(cam, target=3)],
        [Query(rank=0), Query(rank=1), Query(rank=2)],
        [Query(target=2, contrast=5)],
        [Query(target=6, layer=earlier)],
        [Query("gradient", target=4), Query("gradient", contrast=1)],
        [],
        [
            Query("gradient", rank=2),
            Query(cam, target=7, contrast=1),
            Query(rank=1, layer=earlier),
            Query(target=8),
            Query("smoothgrad", target=0),
        ],
    ]


def expected(name, image, query, ranked):
    """A library's answer for one image alone."""
    target = ranked[query.rank] if query.target is None else query.target
    if query.method in ("gradient", "smoothgrad"):
        return target, captum_gradient(oracle(name), image[None], target, query.contrast)[0]
    if query.method == "cam":
        return target, weights_times_activations(name, image[None], target, query.contrast)[0]
    return target, captum_gradcam(name, image[None], target, query.contrast, query.layer or "")[0]


@pytest.mark.parametrize("kinds", ["all", "layers", "last layer"])
@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_a_mixed_batch_equals_a_librarys_answer_for_it_alone(name, kinds):
    queries = mixed(name)
    if kinds != "all":  # without the input's gradient the graph is cut; with the last layer alone there may be none
        queries = [[q for q in row if q.method not in ("gradient", "smoothgrad")] for row in queries]
    if kinds == "last layer":
        queries = [[q for q in row if q.layer is None] for row in queries]
    images = pictures(len(queries), seed=21)
    logits, answers = explainer(name).run(images, queries)
    scores = oracle(name)(images)
    assert distance(logits, scores) < TOLERANCE
    assert [len(row) for row in answers] == [len(row) for row in queries]
    wrong_rows, told_apart, compared = torch.roll(images, 1, 0), 0, 0
    for row, asked in enumerate(queries):
        ranked = scores[row].argsort(descending=True).tolist()
        for query, answer in zip(asked, answers[row]):
            target, theirs = expected(name, images[row], query, ranked)
            assert answer.query.target == target
            assert (answer.query.method, answer.query.layer) == (query.method, query.layer)
            assert distance(answer.values, theirs) < TOLERANCE, (row, query)
            # The oracle would notice a wrong row and a wrong class.
            other_row = expected(name, wrong_rows[row], query, ranked)[1]
            other_class = expected(name, images[row], Query(**{**vars(query), "target": (target + 1) % 10}), ranked)[1]
            compared += 2
            told_apart += sum(distance(theirs, other) > 50 * TOLERANCE for other in (other_row, other_class))
    assert told_apart > 0.8 * compared


@pytest.mark.parametrize("name", NAMES)
def test_a_rows_maps_do_not_change_with_its_mates(name):
    images, mates = pictures(4, seed=1), pictures(4, seed=2)
    query = [Query("gradient"), Query(), Query(layer=LAYERS[name][1])]
    one = explainer(name)
    alone = one.run(images[:1], [query])[1][0]
    crowd = one.run(torch.cat([mates, images[:1]]), [[], [Query("gradient")], query, [Query(rank=3)], query])[1][4]
    for first, second in zip(alone, crowd):
        assert first.query == second.query
        assert distance(second.values, first.values) < 1e-5


def test_at_equal_batch_shape_a_rows_maps_are_equal_to_the_bit_whatever_its_mates():
    one, images = explainer("resnet18"), pictures(3, seed=1)
    other_mates = torch.cat([images[:1], pictures(2, seed=2)])
    for method in ("gradient", "gradcam", "cam"):
        queries = [[Query(method, target=3)]] * 3
        first, second = (one.run(batch, queries)[1][0][0].values for batch in (images, other_mates))
        assert torch.equal(first, second)


def test_a_batch_without_questions_gets_scores_and_no_maps():
    images = pictures(2)
    logits, answers = explainer("in_place").run(images, [[], []])
    assert answers == [[], []]
    assert distance(logits, oracle("in_place")(images)) < 1e-5
