"""TorchServe's continuous batching: rows that come, stay and go, in the calls of one worker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from devtools.recorded.archives import Scene
from devtools.recorded.cases import protocols, refusals
from devtools.recorded.cases.case import Case
from devtools.recorded.pictures import noise, picture, plain, two_tone
from devtools.recorded.rows import Row, b64, body, form, grpc, member, pictures, raw, tensors

SERVER = {"continuousBatching": True, "minWorkers": 1, "maxWorkers": 1, "batchSize": 64}


def _scene(network: str = "Linear", seconds_per_row: float = 0.0, **changed: Any) -> Scene:
    return Scene(network, server=SERVER, fresh=True, seconds_per_row=seconds_per_row, **changed)


STILL = _scene()
#: Each row of a forward pass takes ten milliseconds.
TICKING = _scene(seconds_per_row=0.01)
SLOW = replace(Scene(), fresh=True, seconds_per_row=0.01)


def cases() -> list[Case]:
    image = picture()
    found = []
    for scene, clock in ((STILL, "still"), (TICKING, "ticking"), (SLOW, "ordinary-ticking")):
        rows = _rows(image)
        found += [Case(f"continuous-{clock}/{name}", scene, {"row": row}) for name, row in rows.items()]
        found.append(Case(f"continuous-{clock}/together", scene, rows))
        found += [Case(f"continuous-{clock}/{name}", scene, rows) for name, rows in _stories(image).items()]
    found += [Case(f"continuous-busy/{name}", scene, rows) for name, (scene, rows) in _busy(image).items()]
    faulty = _scene("Faulty", preprocess=refusals.FAULTY.preprocess)
    found += [Case(f"continuous-faults/{name}", faulty, rows) for name, rows in _faults().items()]
    every = {case.name.replace("/", "-"): case.rows["row"] for case in protocols.cases() if "row" in case.rows}
    names = list(every)
    for start in range(0, len(names), 30):
        rows = {name: every[name] for name in names[start : start + 30]}
        found.append(Case(f"continuous-protocols/{start}", STILL, rows))
    return found


def _rows(image: bytes) -> dict[str, Row]:
    smooth: dict[str, Any] = {"method": "smoothgrad", "samples": 40}
    return {
        "prediction": raw(image, False),
        "gradcam": raw(image),
        "cam": member(image, method="cam", target=2, output="npy"),
        "gradient": member(image, method="gradient", target="top3", output="npy"),
        "smoothgrad": member(image, **smooth, output="npy"),
        "vargrad": member(image, method="vargrad", samples=7, output="npy", seed=3),
        "soft": member(image, samples=5, target="top2", output="npy"),
        "png": member(image, method="cam", output="png"),
        "wrong": member(image, method="lime"),
        "broken": raw(b"not an image"),
        "stream": member(image, **smooth, stream=True),
        "stream-top2": member(image, method="vargrad", samples=20, target="top2", stream=True),
        "stream-at-once": member(image, method="cam", stream=True),
        "stream-grpc": grpc(image, explain="true", method="smoothgrad", samples="20", stream="true"),
        "stream-deadline": member(image, **smooth, stream=True, deadline_ms=150),
        "deadline": member(image, **smooth, deadline_ms=100),
        "deadline-short": member(image, method="smoothgrad", samples=200, deadline_ms=1),
        "deadline-top2": member(image, samples=30, target="top2", deadline_ms=200),
        "deadline-vargrad": member(image, method="vargrad", samples=100, deadline_ms=50),
        "deadline-error": member(image, method="smoothgrad", standard_error=0.01, deadline_ms=300),
        "error-reached": member(image, method="smoothgrad", standard_error=0.5),
        "grpc": grpc(image),
        "grpc-explain": grpc(image, explain="true", method="smoothgrad", samples="9"),
        "v1": body({"instances": [{"data": b64(image), "samples": 5}, {"data": "!"}, b64(image)]}),
        "v2": tensors(pictures(image, picture(seed=1), method="smoothgrad", samples=6)),
        "form": form(image, method="smoothgrad", samples="4"),
        "describe": raw(b"", True, "describe"),
    }


def _stories(image: bytes) -> dict[str, dict[str, Row]]:
    smooth = member(image, method="smoothgrad", samples=60)
    predictions = {f"p{index}": replace(raw(picture(seed=index), False), arrives=2 * index) for index in range(12)}
    large, costly = noise(700, 500), picture(3000, 2000, 3, "JPEG")
    return {
        "predictions-beside-one": {"smooth": smooth, **predictions},
        "late-smooth": {**predictions, "smooth": replace(smooth, arrives=3), "second": replace(smooth, arrives=9)},
        "hangs-up": {"smooth": replace(smooth, leaves=4), "other": smooth, **predictions},
        "hangs-up-streaming": {
            "stream": replace(member(image, method="smoothgrad", samples=200, stream=True), leaves=30),
            "p": replace(raw(image, False), arrives=40),
        },
        "deadlines-first": {
            "patient": smooth,
            "hurried": replace(member(image, method="smoothgrad", samples=60, deadline_ms=400), arrives=1),
            "most-hurried": replace(member(image, method="smoothgrad", samples=60, deadline_ms=200), arrives=2),
        },
        "gradients-are-chunks": {
            f"g{index}": member(picture(seed=index), method="gradient", output="npy") for index in range(12)
        },
        "large-pictures": {
            **{f"l{index}": raw(large, index % 2 == 1) for index in range(6)},
            **predictions,
        },
        "costly-pictures": {
            "smooth": smooth,
            **{f"l{index}": raw(costly, index % 2 == 1) for index in range(4)},
            "v1": body({"instances": [b64(costly), b64(image), b64(costly)], "top_k": 1}, False),
            **predictions,
            "broken": replace(raw(costly[: len(costly) // 2]), arrives=2),
        },
        "many": {
            **{f"s{index}": member(image, method="smoothgrad", samples=5 + index, seed=index) for index in range(8)},
            **{f"g{index}": replace(raw(picture(seed=index)), arrives=index) for index in range(6)},
            "v1": replace(body({"instances": [b64(image)] * 40}, False), arrives=2),
        },
    }


def _busy(image: bytes) -> dict[str, tuple[Scene, dict[str, Row]]]:
    smooth = member(image, method="smoothgrad", samples=30)
    rows = {"a": smooth, "b": smooth, "c": replace(smooth, arrives=3), "p": raw(image, False), "g": raw(image)}
    images = [b64(picture(seed=index)) for index in range(64)]
    many = {
        "first": member(image, method="smoothgrad", samples=200),
        "many": replace(body({"instances": images[:6], "method": "smoothgrad"}), arrives=1),
    }
    return {
        "max_explanations": (_scene(explain={"max_explanations": 2}), rows),
        "max_batch_work": (_scene(explain={"max_samples": 30, "max_batch_work": 100}, seconds_per_row=0.1), rows),
        "max_waiting_bytes": (_scene(explain={"max_waiting_bytes": len(image) * 3 // 2}), rows),
        "beside-others": (STILL, many),
        "sixty-four": (STILL, {"many": body({"instances": images, "method": "gradient"})}),
        "sixty-four-smooth": (STILL, {"many": body({"instances": images, "method": "smoothgrad", "samples": 50})}),
    }


def _faults() -> dict[str, dict[str, Row]]:
    image, white, black, green = picture(), plain(255, 255, 255), plain(0, 0, 0), plain(0, 255, 0)
    # The clean picture passes, and some of its noisy copies do not.
    near_white, near_black = two_tone(255, 229), two_tone(0, 26)
    noisy: dict[str, Any] = {"method": "smoothgrad", "samples": 100, "noise_level": 1}
    smooth: dict[str, Any] = {"method": "smoothgrad", "samples": 20, "noise_level": 0.01}
    return {
        "together": {"white": raw(white), "black": raw(black), "good": raw(image), "p": raw(image, False)},
        "smooth": {
            "white": member(white, **smooth),
            "black": member(black, **smooth),
            "good": member(image, **smooth),
        },
        "copies": {
            "white": member(near_white, **noisy),
            "black": member(near_black, **noisy),
            "good": member(image, **noisy),
            "p": raw(near_white, False),
        },
        "copies-stream": {"white": member(near_white, **noisy, stream=True), "good": member(image, **noisy)},
        "copies-top2": {"black": member(near_black, **{**noisy, "samples": 50}, target="top2", contrast=1)},
        "gradients": {
            name: member(content, method="gradient", output="npy")
            for name, content in (("white", white), ("good", image), ("black", black), ("again", image))
        },
        "stream": {"good": member(image, **smooth, stream=True), "black": replace(raw(black), arrives=4)},
        "device-lost": {
            "stream": member(image, **{**smooth, "samples": 200}, stream=True),
            "p": raw(image, False),
            "lost": replace(raw(green), arrives=30),
            "late": replace(raw(image, False), arrives=30),
        },
    }
