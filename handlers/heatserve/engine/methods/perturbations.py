"""Changes of the image, and what they do to the score: masks, windows and activations as masks."""

from __future__ import annotations

from torch import Tensor

from ..method import LayerSignal, Method, ScoreSignal
from .cams import as_it_is
from .occlusion import MOST, Windows
from .rise import RandomMasks
from .scorecam import Channels

#: The draws of a method that would take any number: as many as an archive allows that sets no limit of its own.
_SAMPLES = 200


def score(signal: ScoreSignal) -> Tensor:
    """The explained score, (N)."""
    return signal.scores


def activations(signal: LayerSignal) -> Tensor:
    """The activations, (N, K, h, w)."""
    return signal.activations


PERTURBATIONS: tuple[Method, ...] = (
    Method(
        "rise",
        "covariance of the score with random masks over the image; no backward pass",
        "Petsiuk et al. 2018",
        "score",
        score,
        as_it_is,
        draws=RandomMasks,
        statistic="covariance",
        samples=_SAMPLES,
        min_samples=2,
        display="maximum",
        signed=True,
        definition="sum_n (y_c(x * m_n) - mean_n y_c(x * m_n)) (m_n - 1/2) / ((n - 1) / 2), m_n of 7 x 7 cells",
        reference="the authors' formula in numpy, closed form for linear networks",
        caveat="it is the paper's map less a constant, the mean score under masks, without the noise of that constant",
    ),
    Method(
        "occlusion",
        "the drop of the score where a window of the image is set to 0; no backward pass",
        "Zeiler and Fergus 2014",
        "score",
        score,
        as_it_is,
        draws=Windows,
        statistic="combined",
        samples=MOST,
        min_samples=2,
        display="maximum",
        signed=True,
        definition="mean of y_c(x) - y_c(x without w) over the windows w that cover a pixel",
        reference="Captum Occlusion",
        caveat="windows are 1/7 of the view's side, one every 1/14; a sample more is the image itself",
    ),
    Method(
        "scorecam",
        "activations weighted by the scores of the image under each of them; no backward pass",
        "Wang et al. 2020",
        "score",
        score,
        as_it_is,
        draws=Channels,
        statistic="combined",
        prepare=activations,
        samples=_SAMPLES,
        display="maximum",
        definition="ReLU(sum_k w_k A_k), w = softmax_k(y_c(x * s(A_k))), s enlarges A_k and scales it to 0 to 1",
        reference="pytorch-grad-cam ScoreCAM, with the enlarging of the authors' code",
        caveat="it takes a sample for each channel, of which the first `samples` are done: see `share_done`",
    ),
)
