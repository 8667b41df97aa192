"""The structure of a pickle that holds code, read without running any of it, and the lines that convert it."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

_PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "tuple"): tuple,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
_COMMON = ("builtins", "__builtin__", "torch", "torchvision", "numpy")
#: The globals of a file of tensors alone.
_TENSORS = ("torch._utils", "torch.storage", "torch", "torch.nn.parameter", "torch.serialization")


class Stub:
    """Stands for an object of a class that is not imported."""

    origin = ""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    # A pickle fills objects in these ways.
    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **named: Any) -> Stub:
        return Stub()


class _Reader(pickle.Unpickler):
    """Reads a pickle with a stub in the place of every class and function of it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        self.foreign: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if module not in _TENSORS:
            self.foreign.append(f"{module}.{name}")
        return type("Stub", (Stub,), {"origin": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        # The older format saves a module's class so, with its source.
        return pid[1] if isinstance(pid, tuple) and pid[0] == "module" else Stub()


def refusal(path: Path) -> str:
    """The sentence about a file that only runs as code, with the two lines that make weights of it.

    The lines are for a person who trusts the file. They are made from its structure.
    """
    try:
        content, foreign = _read(path)
    except Exception:  # a pickle may hold anything
        content, foreign = None, []
    held = _held(content)
    # The user's own classes come first: those of Python and torch tell little.
    named = sorted(set(foreign), key=lambda name: (name.partition(".")[0] in _COMMON, name))
    code = ", ".join(named[:3]) if named else "objects other than tensors"
    load = f'torch.load("{path.name}", map_location="cpu", weights_only=False)'
    if held is None:
        lines = "import torch\n  " + f"print({load})  # find the state dict in it, and torch.save that alone"
    else:
        lines = "import torch\n  " + f'torch.save({load}{held}, "weights.pth")'
    where = " where its classes can be imported" if foreign else ""
    return (
        f"The weights {path.name} do not load with torch.load(weights_only=True): they hold {code}, and such a file "
        f"can run any code when it is loaded; if you trust it, run these two lines{where}, and give weights.pth:"
        f"\n  {lines}"
    )


def _read(path: Path) -> tuple[Any, list[str]]:
    """The structure of the file, and the names of what it would import."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as records:
            name = next(name for name in records.namelist() if name.endswith("data.pkl"))
            with records.open(name) as file:
                reader = _Reader(file)
                return reader.load(), reader.foreign
    with open(path, "rb") as file:
        found: Any = None
        foreign: list[str] = []
        for _ in range(4):  # torch's older format: a number, its version, facts of the system, then the object
            reader = _Reader(file)
            found = reader.load()
            foreign = reader.foreign
            if not isinstance(found, (int, Mapping)) or (isinstance(found, Mapping) and "little_endian" not in found):
                break
        return found, foreign


def _held(content: Any) -> str | None:
    """The Python behind the loaded file that gives its state dict; None where none is seen."""
    if isinstance(content, Mapping):
        if _is_state(content):
            return ""
        for key in ("state_dict", "model_state_dict", "model", "net", "network", "module", "ema", *content):
            inner = _held(content[key]) if key in content and key != "optimizer" else None
            if inner is not None:
                return f"[{key!r}]".replace("'", '"') + inner
        return None
    if isinstance(content, Stub) and _is_module(content):
        return ".state_dict()"
    return None


def _is_state(content: Mapping[Any, Any]) -> bool:
    tensors = (isinstance(v, Stub) and v.origin.startswith("torch._utils._rebuild") for v in content.values())
    return bool(content) and all(isinstance(key, str) for key in content) and all(tensors)


def _is_module(stub: Stub) -> bool:
    state = getattr(stub, "state", None)
    return isinstance(state, Mapping) and "_parameters" in state and "_modules" in state
