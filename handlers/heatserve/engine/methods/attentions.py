"""Relevance in transformers, from their attention and its gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from ..method import AttentionSignal, Method
from .cams import as_it_is


def attention_relevance(signal: AttentionSignal) -> Tensor:
    """`R = R + E_h[(dy_c/dA * A)^+] R`, from `R = I`, over the blocks. Chefer, Gur, Wolf ICCV 2021, equations 5, 6.

    Gives (N, h, w): the class token's row of R, or the mean of the rows of all tokens that the classifier pools.
    """
    relevance = _identity(signal.attentions[0])
    for attention, gradient in zip(signal.attentions, signal.gradients):
        relevance = relevance + (gradient * attention).clamp_min(0).mean(1) @ relevance
    return signal.maps(signal.read(relevance))


def attention_rollout(signal: AttentionSignal) -> Tensor:
    """`R = (A/2 + I/2) R`, A the mean over heads, over the blocks, (N, h, w). Abnar and Zuidema 2020, equation 1."""
    identity = _identity(signal.attentions[0])
    relevance = identity
    for attention in signal.attentions:
        relevance = (attention.mean(1) + identity) / 2 @ relevance
    return signal.maps(signal.read(relevance))


def legrad(signal: AttentionSignal) -> Tensor:
    """`E_l E_h E_i[(ds^l/dA^l_hi)^+]`, (N, h, w): the mean over blocks, heads and rows. Bousselham et al. 2024.

    `s^l` is the explained score that the network's last norm and classifier give for the mean of all tokens behind
    block l, as in the authors' code, also where the network itself reads the class token alone. All blocks count.
    """
    of_blocks = [gradient.clamp_min(0).mean((1, 2)) for gradient in signal.gradients]
    return signal.maps(torch.stack(of_blocks).mean(0))


def _identity(attention: Tensor) -> Tensor:
    return torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)


_REFERENCE = "the authors' formula, from attention that the models' own libraries give"

ATTENTIONS = (
    Method(
        "legrad",
        "positive gradients of each block's own score in its attention, over all blocks; transformers",
        "Bousselham et al. 2024",
        "attention",
        legrad,
        as_it_is,
        display="maximum",
        layerwise=True,
        definition="mean over blocks l, heads h and rows i of ReLU(ds^l / dA^l_hi), s^l the score of the mean of all "
        "tokens behind block l",
        reference="torch-cam LeGrad; the authors' formula, from attention that the models' own libraries give",
        caveat="Each block's score comes from a classifier that was trained on what the network reads of the last "
        "block, in many the class token alone.",
    ),
    Method(
        "attention_relevance",
        "attention weighted by its gradient, multiplied over the blocks; transformers",
        "Chefer et al. 2021",
        "attention",
        attention_relevance,
        as_it_is,
        display="maximum",
        definition="R = R + E_h[ReLU(dy_c/dA * A)] R over the blocks; the rows of the tokens that the classifier reads",
        reference=_REFERENCE,
        caveat="Where the classifier pools tokens, each place also has its own start value 1 / (pooled tokens).",
    ),
    Method(
        "attention_rollout",
        "attention multiplied over the blocks, half of each token kept; transformers, no backward pass",
        "Abnar and Zuidema 2020",
        "attention",
        attention_rollout,
        as_it_is,
        display="maximum",
        needs_backward=False,
        definition="R = (E_h[A] + I) / 2 R over the blocks; the rows of the tokens that the classifier reads",
        reference=_REFERENCE,
        caveat="It does not depend on the class: every class of a picture has the same map.",
    ),
)
