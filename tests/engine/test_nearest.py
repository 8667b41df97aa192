"""The nearest classes of a query are those of the picture itself, whatever is drawn in its place."""

import pytest
import torch

from heatserve.engine import METHODS, Explainer, Query
from heatserve.engine.ranking import nearest, ranking

from .networks import pictures

#: A fan of classes: their scores cross where the picture changes a little.
CLASSES = 24


class Crossing(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.nn.Parameter(torch.randn((CLASSES, 3 * 24 * 36), generator=generator) / 10)

    def forward(self, x):
        return (x.flatten(1) @ self.weight.T).sin() * 3


@pytest.mark.parametrize("method", ["smoothgrad", "integrated_gradients", "expected_gradients", "rise", "occlusion"])
@pytest.mark.parametrize("target", [None, 5])
def test_the_nearest_classes_are_those_of_the_picture_for_each_draw(method, target):
    images = pictures(2, (24, 36), seed=5)
    net = Crossing()
    one = Explainer(net, images[:1])
    found = one.explain(images, Query(method, target=target, nearest=1, samples=12))
    for image, answer in zip(images, found):
        with torch.no_grad():
            scores = net(image[None])
        explained = int(ranking(scores[0])[0]) if target is None else target
        away = (scores[0] - scores[0, explained]).abs()
        away[explained] = torch.inf
        contrast = int(away.argmin())
        (expected,) = one.explain(image[None], Query(method, target=explained, contrast=contrast, samples=12))
        torch.testing.assert_close(
            answer.values, expected.values, rtol=1e-4, atol=1e-5 * float(expected.values.abs().max())
        )
        # The draws would have ranked the classes otherwise: the test can see what it is about.
        draws = METHODS[method].drawn.of(image, Query(method, samples=12).sampling).draw(0, 12)
        with torch.no_grad():
            there = nearest(net(draws), torch.full((12,), explained), 1)
        assert method == "occlusion" or int((there != contrast).sum()) > 3
