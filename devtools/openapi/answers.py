"""The schemas of answers: predictions, explanations, refusals, and KServe's envelopes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from devtools.openapi.options import Schema, ref
from heatserve.engine import ACTIVATIONS, METHODS
from heatserve.serving.errors import STATUSES
from heatserve.serving.protocols import MOST
from heatserve.serving.protocols.kserve_v2 import OUTPUT_TENSORS
from heatserve.serving.states import STAGES

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": ["number", "null"], "description": "null for a number of the model that is not finite"}
BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
PNG: Schema = {**BASE64, "contentMediaType": "image/png"}
#: An answer has one of them: a value where the archive's activation is none.
_NUMBERS: Schema = {"probability": NUMBER, "value": NUMBER}
_LAYOUT: Schema = {
    "layout": {**TEXT, "type": ["string", "null"], "description": "nchw, nhwc or tokens:PREFIX:HxW of the activation"},
    "layout_proved": {
        "type": ["boolean", "null"],
        "description": "whether changed pictures have shown it; else an operator declared it, or none shows it",
    },
}
_ONE_NUMBER: Schema = {"oneOf": [{"required": [name]} for name in _NUMBERS]}


def a_list(of: Schema, least: int = 1, most: int | None = None) -> Schema:
    return {"type": "array", "items": of, "minItems": least, **({} if most is None else {"maxItems": most})}


def exactly(members: Mapping[str, Any], optional: Mapping[str, Any] | None = None, said: str = "") -> Schema:
    """An object of these members and no others."""
    return {
        "type": "object",
        **({"description": said} if said else {}),
        "required": [*members],
        "properties": {**members, **(optional or {})},
        "additionalProperties": False,
    }


def or_null(of: Schema) -> Schema:
    return {**of, "type": [of["type"], "null"]}


def schemas() -> dict[str, Schema]:
    """The components of kind `schemas` that answers are made of."""
    prediction = {"index": COUNT, "label": TEXT}
    size = {"format": {"const": "png"}, "width": COUNT, "height": COUNT, "data": PNG}
    entry = {"method": {"enum": [*METHODS]}, "target": ref("Target"), "parameters": ref("Parameters"),
             "quality": ref("Quality")}  # fmt: skip
    own = {"boxes": a_list(ref("Box"), 0),
           "approximates": {"const": "smoothgrad", "description": "smoothdiff approximates this method, with a bias"},
           "signed": {"const": True, "description": "grey 128 is zero, 255 the scale and 1 its negative"}}  # fmt: skip
    document = {"predictions": a_list(ref("Ranked")), "image": ref("Image"), "model": ref("Model"),
                "timing_ms": exactly({stage: {"type": "number"} for stage in STAGES})}  # fmt: skip
    return {
        "Prediction": {
            "type": "object",
            "description": "the likeliest classes by label with their probability, as the stock image_classifier "
            "answers; the largest values of a regression",
            "additionalProperties": NUMBER,
            "minProperties": 1,
        },
        "Explanation": exactly({**document, "explanations": a_list(ref("Map"), 0)}),
        "Ranked": exactly(prediction, _NUMBERS) | _ONE_NUMBER,
        "Target": exactly({**prediction, "score": NUMBER}, _NUMBERS,
                          "the class that was explained; score: before softmax or sigmoid") | _ONE_NUMBER,
        "Map": exactly({**entry, "heatmap": ref("Heatmap")}, {"overlay": ref("Picture"), **own}),
        "Heatmap": exactly({**size, "scale": NUMBER}, said="8-bit grey, upright; scale: the attribution at grey 255"),
        "Picture": exactly(size, said="the map laid over the photograph"),
        "Parameters": exactly(
            {"layer": or_null(TEXT), **_LAYOUT, "samples": COUNT, "noise_level": or_null({"type": "number"}),
             "seed": or_null(COUNT), "contrast": {"type": ["integer", "string", "null"]}},
            {"standard_error": or_null({"type": "number"}), "precision": TEXT, "resolution": or_null(COUNT),
             "generator": or_null(TEXT), "nearest": {"type": "array", "items": COUNT}},
            "the options that made the map. nearest: the classes that `contrast: nearestK` stands for. resolution: "
            "null for a map whose method has no blocks. "
            "generator: of the random numbers, which are others on CUDA; absent where there are none",
        ),
        "Quality": exactly(
            {"empty": {"type": "boolean"}, "samples_used": COUNT, "standard_error": NUMBER,
             "converged": {"type": ["boolean", "null"]}},
            {"completeness_error": NUMBER, "share_done": {"type": "number", "minimum": 0, "maximum": 1}},
            "standard_error: of the mean attribution, relative to the true one's size (L2); null if the mean "
            "is no larger than its noise, and for a map without random samples. completeness_error: of "
            "integrated_gradients, |sum of the attribution - difference of the scores of image and baseline|, relative "
            "to that difference; null where the difference is 0. share_done: of the method's own samples, for "
            "occlusion and scorecam",
        ),
        "Box": exactly({"x0": WHOLE, "y0": WHOLE, "x1": WHOLE, "y1": WHOLE, "score": NUMBER}),
        "Image": exactly(
            {"width": COUNT, "height": COUNT, "seen": a_list(WHOLE, 4, 4)},
            said="the photograph as a viewer shows it; seen: the part of it that the model's crop showed",
        ),
        "Model": exactly({"name": TEXT, "version": TEXT, "activation": {"enum": [*ACTIVATIONS]}}, dict.fromkeys(
            ("weights_sha256", "contents_sha256"), or_null(TEXT))),
        "Description": {
            "type": "object",
            "description": "the methods, options, layers and limits of this archive",
            "required": ["model", "archive", "methods", "options", "layers", "classes", "limits", "versions"],
            "properties": {
                "model": ref("Model"),
                "archive": exactly(
                    {"verified": {"type": "boolean"}, "weights": exactly(dict.fromkeys(
                        ("member", "member_sha256", "source_sha256"), or_null(TEXT)))},
                    said="verified: the files are those that were packaged. The hashes are of the weights in the "
                    "archive and of the weights that heatserve package was given",
                ),
                "methods": a_list({"enum": [*METHODS]}),
                "options": {"type": "object", "additionalProperties": exactly(
                    {"summary": TEXT, "allowed": TEXT, "default": {}})},
                "layers": a_list(TEXT, 0),
                "layouts": {"type": "object", "additionalProperties": exactly(_LAYOUT)},
                "classes": COUNT,
                "limits": {"type": "object", "additionalProperties": WHOLE},
                "versions": {"type": "object", "additionalProperties": TEXT},
            },
        },
        "Error": _error({}),
        "KServeError": _error({"error": TEXT}),
        "V1Predictions": exactly({"predictions": _each("Prediction")}),
        "V1Explanations": exactly({"explanations": _each("Explanation")}),
        # Beside an array of maps an entry speaks of its map and has no picture.
        "V2About": exactly({**document, "explanations": a_list(exactly({**entry, "scale": NUMBER}, own), 0)}),
        "V2Answer": exactly(
            {"model_name": TEXT, "model_version": TEXT, "outputs": a_list(ref("V2Output"))},
            {"id": TEXT},
            "prediction: for each picture a Prediction, V2About or KServeError as a JSON text",
        ),
        "V2Output": _output(),
    }  # fmt: skip


def _error(more: Schema) -> Schema:
    types = ", ".join(name for name, _ in STATUSES.values())
    return exactly({"code": WHOLE, "type": TEXT, "message": TEXT, **more}, {"retry_after": WHOLE}) | {
        "description": f"type: of the handler {types}; of TorchServe's frontend a name that ends in Exception"
    }


def _each(name: str) -> Schema:
    return a_list({"anyOf": [ref(name), ref("KServeError")]}, 1, MOST)


def _output() -> Schema:
    """An output of the second protocol: how many values there are is the shape's to say."""
    kinds = {
        "prediction": ("BYTES", 1, TEXT),
        "heatmap": ("FP32", 3, {"type": "number"}),
        "heatmap_instance": ("INT32", 1, COUNT),
        "overlay": ("BYTES", 1, PNG),
    }
    assert [*kinds] == [*OUTPUT_TENSORS]
    pictures = _tensor("heatmap", "BYTES", 1, BASE64)
    return {"oneOf": [*(_tensor(name, *kind) for name, kind in kinds.items()), pictures]}


def _tensor(name: str, datatype: str, dimensions: int, data: Schema) -> Schema:
    shape = a_list({"type": "integer", "minimum": 1}, dimensions, dimensions)
    return exactly({"name": {"const": name}, "datatype": {"const": datatype}, "shape": shape, "data": a_list(data)})
