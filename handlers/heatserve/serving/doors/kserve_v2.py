"""The Open Inference Protocol, which is KServe's second: typed tensors in and out.

Specification: the REST part of kserve/open-inference-protocol, version 2.0. An input of datatype BYTES holds encoded
pictures as base64, one of FP32 the model's view itself, (3, H, W) or (N, 3, H, W), normalised as the model expects it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Refusal, printable
from .door import MOST, Instance, members

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..responses import Answer, Pieces, Writer

#: Parameters of the protocol and of its usual clients, which are no options of an explanation.
_PROTOCOL = ("binary_data", "binary_data_size", "binary_data_output", "content_type", "explain")
#: Datatype, shape and data of an output.
_Tensor = tuple[str, Sequence[int], Any]
OUTPUTS = ("prediction", "heatmap", "heatmap_instance", "overlay")


class KServeV2:
    """Several pictures; outputs `prediction` (a JSON text for each), `heatmap`, and which instance each map is of."""

    plain = False
    pictures = True

    def __init__(self, body: Mapping[Any, Any], explains: bool, http: bool) -> None:
        self.explains, self.http = explains, http
        self._id = body.get("id")
        wanted = _wanted(body.get("outputs"))
        self._wanted = OUTPUTS if isinstance(wanted, Refusal) else wanted
        found = [Instance(refusal=wanted)] if isinstance(wanted, Refusal) else [*_instances(body)]
        if len(found) > MOST:
            found = [Instance(refusal=Refusal(413, f"inputs: at most {MOST} pictures in one request"))]
        self.instances: Sequence[Instance] = found

    def answer(self, writer: Writer, exchanges: Sequence[Exchange]) -> Answer:
        pieces = [writer.pieces(exchange, len(exchanges)) for exchange in exchanges]
        faults = [piece.refusal for piece in pieces if piece.refusal is not None]
        if faults and len(pieces) == 1:
            return self.refused(writer, faults[0])
        return writer.enveloped(self._document(writer, pieces), exchanges)

    def refused(self, writer: Writer, refusal: Refusal) -> Answer:
        if self.http:
            return writer.refused(refusal, kserve=True)
        # The frontend's own gRPC service of this protocol fails on an answer without an id, or without outputs.
        return writer.ok(self._envelope(writer, {"prediction": _bytes([writer.text(refusal.body(kserve=True))])}))

    def _document(self, writer: Writer, pieces: Sequence[Pieces]) -> bytes:
        maps = [each for piece in pieces for each in piece.maps]
        pictures = [each for piece in pieces for each in piece.pictures]
        overlays = [each for piece in pieces for each in piece.overlays]
        owners = [index for index, piece in enumerate(pieces) for _ in range(piece.count)]
        if maps and pictures:
            raise Refusal(400, "output: one for all inputs of a request, a picture or a map")
        outputs: dict[str, _Tensor] = {"prediction": _bytes([piece.about for piece in pieces])}
        if maps:
            outputs["heatmap"] = ("FP32", [len(maps), *maps[0].shape], np.stack(maps))
        if pictures:
            outputs["heatmap"] = _bytes(pictures)
        if owners:
            outputs["heatmap_instance"] = ("INT32", [len(owners)], owners)
        if overlays:
            outputs["overlay"] = _bytes(overlays)
        return self._envelope(writer, outputs)

    def _envelope(self, writer: Writer, outputs: Mapping[str, _Tensor]) -> bytes:
        head = {"model_name": writer.report.model.name, "model_version": writer.report.model.version}
        if isinstance(self._id, str) and len(self._id) <= 500:
            head["id"] = self._id
        elif not self.http:
            head["id"] = ""
        # Only what is asked for is turned into text: a map is half a megabyte of it.
        named = [_encoded(writer, name, *outputs[name]) for name in outputs if name in self._wanted]
        return writer.json(head)[:-1] + b', "outputs": [' + b", ".join(named) + b"]}"


def refuse_binary(headers: Mapping[str, Any]) -> Refusal | None:
    """The protocol's extension that puts tensors behind the JSON."""
    if any(isinstance(name, str) and name.lower() == "inference-header-content-length" for name in headers):
        return Refusal(400, "the binary tensor extension is not supported; send JSON (binary_data=False)")
    return None


def _wanted(outputs: Any) -> Sequence[str] | Refusal:
    """The outputs that are asked for; all where a request does not say."""
    if outputs is None or outputs == []:
        return OUTPUTS
    if not isinstance(outputs, list) or not all(isinstance(entry, Mapping) for entry in outputs):
        return Refusal(400, 'outputs must be a list of {"name": ...}')
    names: list[str] = []
    for name in (entry.get("name") for entry in outputs):
        if not isinstance(name, str) or name not in OUTPUTS:
            return Refusal(400, f"there is no output {printable(name)!r}; there are: {', '.join(OUTPUTS)}")
        names.append(name)
    return names


def _instances(body: Mapping[Any, Any]) -> Iterator[Instance]:
    inputs = members("inputs", body["inputs"], MOST)
    if isinstance(inputs, Refusal):
        yield Instance(refusal=inputs)
        return
    shared = _parameters(body.get("parameters"))
    for entry in inputs:
        if not isinstance(entry, Mapping):
            yield Instance(refusal=Refusal(400, "an input must be an object with name, datatype, shape and data"))
            continue
        own = _parameters(entry.get("parameters"))
        if isinstance(shared, Refusal) or isinstance(own, Refusal):
            yield Instance(refusal=shared if isinstance(shared, Refusal) else own if isinstance(own, Refusal) else None)
            continue
        yield from _pictures(entry, {**shared, **own})


def _parameters(given: Any) -> Mapping[str, Any] | Refusal:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return Refusal(400, "parameters must be an object")
    return {str(name): value for name, value in given.items() if name not in _PROTOCOL}


def _pictures(entry: Mapping[Any, Any], options: Mapping[str, Any]) -> Iterator[Instance]:
    """The instances of one input, as its shape says."""
    shape, data, datatype = _shape(entry.get("shape")), entry.get("data"), entry.get("datatype")
    if not shape:
        yield Instance(refusal=Refusal(400, "shape must be a list of 1 to 4 whole numbers above 0"))
    elif not isinstance(data, list):
        yield Instance(refusal=Refusal(400, "data must be a list"))
    elif datatype == "BYTES":
        flat = [each for part in data for each in (part if isinstance(part, list) else [part])]
        if math.prod(shape) != len(flat):
            yield Instance(refusal=Refusal(400, "data must hold as many pictures as shape says"))
        elif len(flat) > MOST:
            yield Instance(refusal=Refusal(413, f"inputs: at most {MOST} pictures in one request"))
        else:
            yield from (Instance(image, options) for image in flat)
    elif datatype == "FP32":
        yield from _views(shape, data, options)
    else:
        yield Instance(refusal=Refusal(400, "datatype must be BYTES (encoded pictures) or FP32 (the model's view)"))


def _shape(given: Any) -> list[int]:
    """A tensor's shape; empty where it is none."""
    if not isinstance(given, list) or not 0 < len(given) <= 4:
        return []
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 < n < 2**31 for n in given)
    return given if whole else []


def _views(shape: list[int], data: list[Any], options: Mapping[str, Any]) -> Iterator[Instance]:
    """(3, H, W), or (N, 3, H, W). Whether these are the model's H and W is for the reader to say."""
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] > MOST):
        yield Instance(refusal=Refusal(400, f"shape must be (3, H, W), or (N, 3, H, W) with N of at most {MOST}"))
        return
    if math.prod(shape) > MOST * 4_000_000:
        yield Instance(refusal=Refusal(413, "the tensor is too large"))
        return
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, and is refused
            values = np.asarray(data, np.float32).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        yield Instance(refusal=Refusal(400, "data must be numbers"))
        return
    if values.size != math.prod(shape):
        yield Instance(refusal=Refusal(400, "data must hold as many numbers as shape says"))
        return
    for view in values.reshape(-1, *shape[-3:]):
        yield Instance(tensor=view, shape=tuple(shape[-3:]), options=options)


def _bytes(texts: Sequence[str]) -> _Tensor:
    return "BYTES", [len(texts)], texts


def _encoded(writer: Writer, name: str, datatype: str, shape: Sequence[int], data: Any) -> bytes:
    """An output as JSON."""
    numbers = _numbers(data) if datatype == "FP32" else writer.json(data)
    return writer.json({"name": name, "datatype": datatype, "shape": shape})[:-1] + b', "data": ' + numbers + b"}"


def _numbers(values: NDArray[np.float32]) -> bytes:
    """Seven digits say a float32 to its last bit but one; what is not finite counts as 0."""
    flat = np.nan_to_num(values, posinf=0.0, neginf=0.0).ravel()
    return ("[" + ", ".join(["%.7g"] * flat.size) % tuple(flat.tolist()) + "]").encode("ascii")
