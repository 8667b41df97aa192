"""The plain paths: `pytest --plain-paths` takes every shortcut of the product away, and the same tests have to pass.

Python imports this module at its start where this folder is on `PYTHONPATH`, in servers that tests start too. It
changes a module of heatserve when that has been executed, before another one imports its names.

| shortcut | how it is turned off |
|---|---|
| folded, padded, NHWC and packed convolutions | `optimize` changes nothing |
| the gradient in front of a linear head in closed form | autograd's, but for `cam`, which is the head's weights |
| targets of a picture that share draws, means or passes of draws | each explanation is alone |
| rows of a pass by a slice | they are picked by their numbers |
| passes of fixed sizes, captured, in two streams | of any size, not captured, in one stream |
| noise of many samples in one launch; pinned memory; one copy for all answers | one by one, in ordinary memory |
| threads for pictures and answers | none |
| chunks whose size is learned | one image in each chunk, where one is learned |
| a file that is opened once for header and pixels | it is opened twice |
| the photograph only where it is shown, reduced in two steps | always, in Pillow's one step |
| maps straight onto the photograph, with two weights for each pixel | over the view, with all weights |
| PNG files with one fixed filter | Pillow's |
"""

from __future__ import annotations

import importlib.abc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import PathFinder
from io import BytesIO
from math import isinf
from pathlib import Path
from typing import Any

FOLDER = str(Path(__file__).parent)


def _png(pixels: Any, text: Any) -> bytes:
    from PIL import Image, PngImagePlugin

    chunks, stream = PngImagePlugin.PngInfo(), BytesIO()
    for name, value in text.items():
        chunks.add_text(name, value.encode("latin-1", "replace"))
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=chunks)
    return stream.getvalue()


def _weights(count: int, positions: Any) -> Any:
    import numpy as np

    kernel = np.clip(1.0 - np.abs(positions[:, None] - (np.arange(count) + 0.5)), 0.0, None)
    return kernel / kernel.sum(1, keepdims=True)


#: By module: attributes, dots included, each with a function from its old value to its new one.
CHANGES: dict[str, dict[str, Callable[[Any], Any]]] = {
    "engine.optimize": {"_optimize": lambda _: lambda *_: sys.modules["heatserve.engine.optimize"].Optimized(),
                        "_pack": lambda _: lambda *_: ()},
    "engine.sharing": {"alike": lambda _: lambda every: [[number] for number in range(len(every))]},
    "engine.smoothdiff": {"begun": lambda of: lambda image, query, made=None, beside=(): of(image, query, made)},
    "engine.wave": {"Wave.of": lambda _: lambda wave, values: values[wave.rows]},
    "engine.sizes": {"sizes_of": lambda _: lambda device: ()},
    "engine.captured": {"CapturedPasses.capture": lambda _: lambda *_: False,
                        "CapturedPasses.passes": lambda _: lambda own, images, asked, *precision: own._network.passes(
                            images, asked, *precision, closed_form="cam" in {q.method for row in asked for q in row})},
    "engine.launch": {"launches_of": lambda _: lambda device: sys.modules["heatserve.engine.launch"].Eager()},
    "engine.noise": {"keys_work": lambda _: lambda device: False},
    "engine.upload": {"upload": lambda _: lambda table, device: table.to(device)},
    "engine.transfer": {"fetched": lambda _: lambda tensors: [one.cpu() for one in tensors]},
    "serving.pool": {"automatic": lambda _: lambda: 0},
    "serving.scheduling": {"Policy.size": lambda _: lambda own, most: most if isinf(own.patience) else 1},
    "serving.admission": {"Admission._moved": lambda _: lambda own, image: image.to(own._device)},
    "imaging.decode": {"Picture.shown": lambda of: lambda picture, most, pixels: of(picture, most, True),
                       "decode": lambda of: lambda data, most, alpha=False, file=None: of(data, most, alpha)},
    "imaging.reduce": {"reduced": lambda _: lambda image, size: image.resize(size, 3, reducing_gap=2.0)},
    "imaging.resampling": {"_linear_weights": lambda _: _weights, "product": lambda _: lambda one, other: one @ other},
    "imaging.png_write": {"png_bytes": lambda _: _png},
    "serving.drawing": {"draw": lambda of: lambda photograph, geometry, view, side: of(
        photograph, geometry, replace(view, source=view.values), side)},
}  # fmt: skip


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        package, _, inner = name.partition(".")
        spec = PathFinder.find_spec(name, path) if package == "heatserve" and inner in CHANGES else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def changed(module: Any) -> None:
                execute(module)
                for name, change in CHANGES[inner].items():
                    *outer, last = name.split(".")
                    owner = getattr(module, outer[0]) if outer else module
                    setattr(owner, last, change(getattr(owner, last)))

            spec.loader.exec_module = changed  # type: ignore[method-assign]
        return spec


def installed() -> bool:
    return any(type(finder).__name__ == _Finder.__name__ for finder in sys.meta_path)


def install() -> None:
    """Turns the shortcuts off in this process, which has not imported heatserve, and in those that it starts."""
    if installed():
        return
    assert "heatserve.engine" not in sys.modules and "heatserve.imaging" not in sys.modules
    sys.meta_path.insert(0, _Finder())
    os.environ["PYTHONPATH"] = _path(os.environ)
    start: Any = subprocess.Popen.__init__

    def started(self: Any, *args: Any, env: Any = None, **named: Any) -> None:
        start(self, *args, env=None if env is None else {**env, "PYTHONPATH": _path(env)}, **named)

    subprocess.Popen.__init__ = started  # type: ignore[method-assign]


def _path(environment: Any) -> str:
    found = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    return os.pathsep.join(dict.fromkeys([*found, FOLDER]))


if __name__ == "sitecustomize":
    install()
