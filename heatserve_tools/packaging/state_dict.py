"""The weights of a model: a state dict that loads without running any code."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, Union

from heatserve_tools.errors import ToolError

SUFFIXES = (".pt", ".pth", ".safetensors")


def for_archive(path: Path) -> tuple[str, Union[Path, bytes]]:
    """The name and content of the weights in an archive. Raises ToolError for a file that is no state dict."""
    if path.suffix not in SUFFIXES:
        raise ToolError(f"The weights {path.name} are none of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ToolError(f"There are no weights {path}.")
    if path.suffix == ".safetensors":
        return f"{path.stem}.pt", _from_safetensors(path)
    _check(path.name, _load(path))
    return path.name, path


def _load(path: Path) -> Any:
    import torch

    from heatserve.serving.weights import damage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript, which is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, by the kind of the file
        broken = damage(path, error)
        if broken:
            raise ToolError(f"The weights {path.name} are {broken}: copy or save them again.", str(error)) from None
        raise ToolError(
            f"The weights {path.name} do not load with torch.load(weights_only=True): they are a pickle or TorchScript "
            "file that holds code. Save model.state_dict() and give that file.",
            str(error),
        ) from None


def _from_safetensors(path: Path) -> bytes:
    import torch

    try:
        from safetensors.torch import load_file
    except ImportError:
        raise ToolError(f"Reading {path.name} needs the package safetensors: pip install safetensors.") from None
    try:
        state = load_file(path)
    except Exception as error:
        raise ToolError(f"The weights {path.name} are not a readable safetensors file.", str(error)) from None
    _check(path.name, state)
    buffer = io.BytesIO()
    torch.save({name: state[name] for name in sorted(state)}, buffer)
    return buffer.getvalue()


def _check(name: str, state: Any) -> None:
    import torch

    from heatserve.serving.weights import not_finite

    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ToolError(f"The weights {name} are a {type(state).__name__}, not a state dict.")
    other = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if other or not state:
        found = f"members that are no tensors ({', '.join(other[:5])})" if other else "no tensors"
        raise ToolError(f"The weights {name} have {found}: give a file with the state dict alone.")
    bad = not_finite(state)
    if bad:
        raise ToolError(f"The weights {name} are not finite numbers: {bad}. Train or convert them again.")
