"""The questions, what heatserve answers and why, who answers otherwise, and a figure for each."""

from __future__ import annotations

from dataclasses import dataclass

from devtools.disagreements import figures


@dataclass(frozen=True)
class Row:
    """A question that libraries answer differently.

    question, follows, otherwise: cells of the table.
    figure: gives the cell with the measured example.
    """

    question: str
    follows: str
    otherwise: str
    figure: figures.Figure


ROWS = (
    Row(
        "Which score is explained?",
        "The score before softmax or sigmoid, as Grad-CAM and Simonyan have it: a saturated probability has no "
        "gradient, and a softmax mixes every other class into the map.",
        "pytorch-grad-cam offers `ClassifierOutputSoftmaxTarget`; Captum and torch-cam explain what `forward` gives, "
        "which may be a softmax.",
        figures.of_the_score,
    ),
    Row(
        "Is the absolute value taken before or after the mean of SmoothGrad?",
        "After it. Noise cancels in the mean of signed gradients, which is what smoothing is for.",
        "Captum's `NoiseTunnel` over `Saliency`, whose `abs` is True by default, takes it before.",
        figures.of_the_mean,
    ),
    Row(
        "How do three channels become one?",
        "By the largest absolute value, as Simonyan et al. have it.",
        "PAIR `saliency` sums the absolute values.",
        figures.of_the_channels,
    ),
    Row(
        "What is the unit of noise?",
        "The range of the picture, as Smilkov et al. have it: 0.15 is 15 % of it.",
        "Captum's `stdevs` are absolute numbers, 1 by default.",
        figures.of_noise,
    ),
    Row(
        "Which value is black?",
        "0. Where a map is small everywhere, it stays grey.",
        "pytorch-grad-cam and torch-cam subtract the smallest value of the map.",
        figures.of_black,
    ),
    Row(
        "Which value is white?",
        "The maximum for maps of a layer. For gradients it is the 99th percentile, as Smilkov et al. have it: a single "
        "pixel would leave the rest black.",
        "pytorch-grad-cam and torch-cam scale by the maximum; Captum leaves out the outermost 2 % of the sum.",
        figures.of_white,
    ),
    Row(
        "How is a small map made large?",
        "Bilinear with `align_corners=False`: each value stays in the middle of the patch that it describes.",
        "pytorch-grad-cam does the same for a map, but aligns corners for Score-CAM's masks; Captum's "
        "`LayerAttribution.interpolate` is `nearest` by default.",
        figures.of_enlarging,
    ),
    Row(
        "What is added to Grad-CAM++'s denominator?",
        "Nothing: equation 19 with its fraction cancelled by the squared gradient.",
        "pytorch-grad-cam adds 1e-6 to a denominator of the size of a squared gradient; torch-cam divides a copy, so "
        "that its weight is the cubed gradient.",
        figures.of_gradcam_plus_plus,
    ),
    Row(
        "What is added to XGrad-CAM's denominator?",
        "Nothing; a channel whose sum is 0 has no weight.",
        "pytorch-grad-cam adds 1e-7 and torch-cam 1e-8 to the sum of a channel.",
        figures.of_xgradcam,
    ),
    Row(
        "Which sign has Eigen-CAM's component?",
        "The sign with which it rises with the sum of the channels. Channels are centred over the places.",
        "pytorch-grad-cam centres them too, and keeps the sign that LAPACK happens to give. The paper's formula "
        "does not centre.",
        figures.of_eigencam,
    ),
    Row(
        "How do several nearest classes count in Finer-CAM?",
        "Their mean score is subtracted, at full strength. The nearest are those with the smallest difference in "
        "score. Probabilities as weights would let the first class count alone, and would bring in the softmax's own "
        "gradient.",
        "pytorch-grad-cam and the authors' code weigh each class by its probability, whose gradient enters the map; "
        "torch-cam subtracts 0.6 of the mean by default.",
        figures.of_finer_cam,
    ),
    Row(
        "Is Grad-CAM rectified?",
        "Yes, by the last ReLU of equation 2.",
        "Captum's `LayerGradCam` has `relu_attributions=False` by default.",
        figures.of_gradcam,
    ),
    Row(
        "Is HiResCAM rectified?",
        "Yes, as pytorch-grad-cam has it, so that all maps of a layer read alike.",
        "The paper's sum has both signs.",
        figures.of_hirescam,
    ),
    Row(
        "How are several layers fused?",
        "By the mean of the maps, each scaled to a maximum of 1.",
        "pytorch-grad-cam subtracts the smallest value of each map first; torch-cam's LayerCAM follows the method's "
        "paper: the largest of tanh(2 M).",
        figures.of_fusion,
    ),
    Row(
        "How does Score-CAM make and judge its masks?",
        "Masks are enlarged as maps are, scaled from 0 to 1, and judged by the score before softmax.",
        "pytorch-grad-cam aligns the corners of the masks.",
        figures.of_score_cam,
    ),
    Row(
        "Which functions does guided backpropagation guide?",
        "Every rectifier that it is seen to pass.",
        "Captum and pytorch-grad-cam guide modules of the type `nn.ReLU`, and nothing says that others were left out.",
        figures.of_guided_backpropagation,
    ),
    Row(
        "Which rule integrates along the path?",
        "The middles of equal pieces: all points count alike, so that a deadline may end the path early.",
        "Captum takes `gausslegendre` by default.",
        figures.of_the_rule,
    ),
    Row(
        "How many points has a path?",
        "50, with the `completeness_error` that they leave.",
        "Captum has 50 too, and gives `convergence_delta` where it is asked for.",
        figures.of_the_points,
    ),
    Row(
        "How does guided Grad-CAM enlarge Grad-CAM?",
        "Bilinearly, as the paper has it.",
        "Captum's default is `nearest`.",
        figures.of_guided_gradcam,
    ),
)
