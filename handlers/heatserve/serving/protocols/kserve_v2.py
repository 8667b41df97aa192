"""The Open Inference Protocol, which is KServe's second: typed tensors in and out.

Specification: the REST part of kserve/open-inference-protocol, version 2.0. An input of datatype BYTES holds encoded
pictures as base64. An input of datatype FP32 holds the model's view itself, (C, H, W) or (N, C, H, W) with its C
channels, normalised as the model expects it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..answers import Answer, Envelope, Part, TensorParts, json_bytes, json_text, ok, refused
from ..errors import Refusal, printable
from ..model_info import ModelInfo
from .protocol import MOST, Input, enveloped, members

#: Parameters of the protocol and of its usual clients, which are no options of an explanation.
_NO_OPTIONS = ("binary_data", "binary_data_size", "binary_data_output", "content_type", "explain")
#: Datatype, shape and data of an output.
_Tensor = tuple[str, Sequence[int], Any]
OUTPUT_TENSORS = ("prediction", "heatmap", "heatmap_instance", "overlay")


class KServeV2:
    """Several pictures in, several typed tensors out.

    prediction: a JSON text for each picture.
    heatmap: all maps, or pictures of them.
    heatmap_instance: for each map the index of its picture.
    overlay: a picture beside each map, for clients that ask for it.
    """

    envelope = Envelope.TENSORS

    def __init__(self, body: Mapping[Any, Any], explains: bool, http: bool) -> None:
        self.explains, self.http = explains, http
        self._id = body.get("id")
        wanted = _wanted(body.get("outputs"))
        self._wanted = OUTPUT_TENSORS if isinstance(wanted, Refusal) else wanted
        found = [Input(refusal=wanted)] if isinstance(wanted, Refusal) else [*_inputs(body)]
        if len(found) > MOST:
            found = [Input(refusal=Refusal(413, f"inputs: at most {MOST} pictures in one request"))]
        self.inputs: Sequence[Input] = found

    def encode(self, parts: Sequence[Part], model: ModelInfo) -> Answer:
        if len(parts) == 1 and isinstance(parts[0], Refusal):
            return self.refused(parts[0], model)
        return enveloped(self._document(_tensors([_tensor_parts(part) for part in parts]), model), parts)

    def refused(self, refusal: Refusal, model: ModelInfo) -> Answer:
        if self.http:
            return refused(refusal, kserve=True)
        # The frontend's own gRPC service of this protocol fails on an answer without an id, or without outputs.
        return ok(self._document({"prediction": _bytes([json_text(refusal.body(kserve=True))])}, model))

    def _document(self, outputs: Mapping[str, _Tensor], model: ModelInfo) -> bytes:
        """The answer's JSON text, with those of the outputs that the client wants."""
        head = {"model_name": model.name, "model_version": model.version}
        if isinstance(self._id, str) and len(self._id) <= 500:
            head["id"] = self._id
        elif not self.http:
            head["id"] = ""
        # Only wanted outputs are turned into text: a map is half a megabyte of it.
        # Where no label is present there is no map, and an answer without outputs would be no answer.
        wanted = [name for name in outputs if name in self._wanted] or ["prediction"]
        named = [_encoded(name, *outputs[name]) for name in wanted]
        return json_bytes(head)[:-1] + b', "outputs": [' + b", ".join(named) + b"]}"


def _tensor_parts(part: Part) -> TensorParts:
    """A part as tensors; a refusal has a text and no maps."""
    if isinstance(part, Refusal):
        return TensorParts(json_text(part.body(kserve=True)))
    assert isinstance(part, TensorParts)  # envelope TENSORS
    return part


def _tensors(parts: Sequence[TensorParts]) -> dict[str, _Tensor]:
    """The outputs of all pictures together, by name. Raises Refusal 400 for maps and pictures together."""
    maps = [each for part in parts for each in part.maps]
    pictures = [each for part in parts for each in part.pictures]
    overlays = [each for part in parts for each in part.overlays]
    owners = [index for index, part in enumerate(parts) for _ in range(part.count)]
    if maps and pictures:
        raise Refusal(400, "output: one for all inputs of a request, a picture or a map")
    outputs: dict[str, _Tensor] = {"prediction": _bytes([part.about for part in parts])}
    if maps:
        outputs["heatmap"] = ("FP32", [len(maps), *maps[0].shape], np.stack(maps))
    if pictures:
        outputs["heatmap"] = _bytes(pictures)
    if owners:
        outputs["heatmap_instance"] = ("INT32", [len(owners)], owners)
    if overlays:
        outputs["overlay"] = _bytes(overlays)
    return outputs


def refuse_binary(headers: Mapping[str, Any]) -> Refusal | None:
    """The refusal of a row that uses the protocol's binary extension, which puts tensors behind the JSON."""
    if any(isinstance(name, str) and name.lower() == "inference-header-content-length" for name in headers):
        return Refusal(400, "the binary tensor extension is not supported; send JSON (binary_data=False)")
    return None


def _wanted(outputs: Any) -> Sequence[str] | Refusal:
    """The names of the outputs that the client wants; all of them for a client that names none."""
    if outputs is None or outputs == []:
        return OUTPUT_TENSORS
    if not isinstance(outputs, list) or not all(isinstance(entry, Mapping) for entry in outputs):
        return Refusal(400, 'outputs must be a list of {"name": ...}')
    names: list[str] = []
    for name in (entry.get("name") for entry in outputs):
        if not isinstance(name, str) or name not in OUTPUT_TENSORS:
            return Refusal(400, f"there is no output {printable(name)!r}; there are: {', '.join(OUTPUT_TENSORS)}")
        names.append(name)
    return names


def _inputs(body: Mapping[Any, Any]) -> Iterator[Input]:
    """The pictures of all inputs, in their order."""
    inputs = members("inputs", body["inputs"])
    if isinstance(inputs, Refusal):
        yield Input(refusal=inputs)
        return
    shared = _parameters(body.get("parameters"))
    for entry in inputs:
        if not isinstance(entry, Mapping):
            yield Input(refusal=Refusal(400, "an input must be an object with name, datatype, shape and data"))
            continue
        own = _parameters(entry.get("parameters"))
        if isinstance(shared, Refusal):
            yield Input(refusal=shared)
        elif isinstance(own, Refusal):
            yield Input(refusal=own)
        else:
            yield from _pictures(entry, {**shared, **own})


def _parameters(given: Any) -> Mapping[str, Any] | Refusal:
    """The options among parameters, or the refusal of parameters that are none."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return Refusal(400, "parameters must be an object")
    return {str(name): value for name, value in given.items() if name not in _NO_OPTIONS}


def _pictures(entry: Mapping[Any, Any], options: Mapping[str, Any]) -> Iterator[Input]:
    """The pictures of one input, as many as its shape says."""
    shape, data, datatype = _shape(entry.get("shape")), entry.get("data"), entry.get("datatype")
    if not shape:
        yield Input(refusal=Refusal(400, "shape must be a list of 1 to 4 whole numbers above 0"))
    elif not isinstance(data, list):
        yield Input(refusal=Refusal(400, "data must be a list"))
    elif datatype == "BYTES":
        flat = [each for part in data for each in (part if isinstance(part, list) else [part])]
        if math.prod(shape) != len(flat):
            yield Input(refusal=Refusal(400, "data must hold as many pictures as shape says"))
        elif len(flat) > MOST:
            yield Input(refusal=Refusal(413, f"inputs: at most {MOST} pictures in one request"))
        else:
            yield from (Input(image, options) for image in flat)
    elif datatype == "FP32":
        yield from _views(shape, data, options)
    else:
        yield Input(refusal=Refusal(400, "datatype must be BYTES (encoded pictures) or FP32 (the model's view)"))


def _shape(given: Any) -> list[int]:
    """A tensor's shape; empty for anything that is no shape."""
    if not isinstance(given, list) or not 0 < len(given) <= 4:
        return []
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 < n < 2**31 for n in given)
    return given if whole else []


def _views(shape: list[int], data: list[Any], options: Mapping[str, Any]) -> Iterator[Input]:
    """The views of one input, (C, H, W) or (N, C, H, W). The request's parser compares C, H and W with the model's."""
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] > MOST):
        yield Input(refusal=Refusal(400, f"shape must be (C, H, W), or (N, C, H, W) with N of at most {MOST}"))
        return
    if math.prod(shape) > MOST * 4_000_000:
        yield Input(refusal=Refusal(413, "the tensor is too large"))
        return
    try:
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # a number that is too large becomes infinite, and is refused
            values = np.asarray(data, np.float32).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        yield Input(refusal=Refusal(400, "data must be numbers"))
        return
    if values.size != math.prod(shape):
        yield Input(refusal=Refusal(400, "data must hold as many numbers as shape says"))
        return
    for view in values.reshape(-1, *shape[-3:]):
        yield Input(tensor=view, shape=tuple(shape[-3:]), options=options)


def _bytes(texts: Sequence[str]) -> _Tensor:
    """An output of texts."""
    return "BYTES", [len(texts)], texts


def _encoded(name: str, datatype: str, shape: Sequence[int], data: Any) -> bytes:
    """An output as JSON."""
    numbers = _numbers(data) if datatype == "FP32" else json_bytes(data)
    return json_bytes({"name": name, "datatype": datatype, "shape": shape})[:-1] + b', "data": ' + numbers + b"}"


def _numbers(values: NDArray[np.float32]) -> bytes:
    """A map as JSON numbers of seven digits, which keep all bits of a float32 but the last; infinities and NaN as 0."""
    flat = np.nan_to_num(values, posinf=0.0, neginf=0.0).ravel()
    return ("[" + ", ".join(["%.7g"] * flat.size) % tuple(flat.tolist()) + "]").encode("ascii")
