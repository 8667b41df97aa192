"""The weights of a model as an archive holds them: a state dict that loads without running any code."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import checkpoint, pickled

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pth.tar", ".safetensors")
#: The endings under which an archive holds a file as it is.
_KEPT = (".pt", ".pth")


@dataclass(frozen=True)
class Choice:
    """The user's choice of one state dict of a checkpoint.

    key: of the member; None for the usual ones.
    averaged: whether it is the moving average of the weights.
    """

    key: str | None = None
    averaged: bool = False


@dataclass(frozen=True)
class Weights:
    """The weights by their name in the archive. remarks: on what was chosen and changed, each half a sentence."""

    name: str
    content: Union[Path, bytes]
    remarks: tuple[str, ...] = ()


def for_archive(
    path: Path, choice: Choice = Choice(), network: Callable[[], Iterable[str] | None] = lambda: None
) -> Weights:
    """The weights of an archive. Raises ToolError for a file without a state dict.

    network: gives the names of the network's own state dict; it is asked where names have a prefix.
    """
    _refuse_program(path)
    if not path.name.endswith(SUFFIXES):
        raise ToolError(f"The weights {path.name} are none of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ToolError(f"There are no weights {path}.")
    safe = path.suffix == ".safetensors"
    content = _from_safetensors(path) if safe else load(path)
    state, remarks = checkpoint.pick(path.name, content, choice.key, choice.averaged)
    named, changes = checkpoint.without_prefixes(path.name, state, network)
    _check(path.name, named)
    remarks += changes
    if path.suffix in _KEPT and named is content:
        return Weights(path.name, path, tuple(remarks))
    # The optimiser and whatever else a training run saved stay out of the archive.
    ending = next(suffix for suffix in SUFFIXES if path.name.endswith(suffix))
    name = path.name if path.suffix in _KEPT else f"{path.name.removesuffix(ending)}.pt"
    return Weights(name, _saved(named), tuple(remarks))


def _saved(state: Mapping[str, Any]) -> bytes:
    """The state dict as a file. A view of a larger tensor is saved by itself."""
    import torch

    buffer = io.BytesIO()
    torch.save({name: state[name].detach().clone() for name in sorted(state)}, buffer)
    return buffer.getvalue()


def _refuse_program(path: Path) -> None:
    """Refuses a file that holds a whole network. Raises ToolError."""
    from heatserve.serving.programs import program_in

    kind = program_in(path)
    if kind is not None:
        form = "TorchScript" if kind == "scripted" else "torch.export"
        raise ToolError(
            f"The weights {path.name} are a whole network of {form}, with its own code: leave the architecture out to "
            "serve it as it is, with the methods that need no layer, or save model.state_dict() and give that file."
        )


def load(path: Path) -> Any:
    """The content of a file that torch.save wrote, without running any code of it. Raises ToolError."""
    import torch

    from heatserve.serving.weights import damage

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, by the kind of the file
        broken = damage(path, error)
        if broken:
            raise ToolError(f"The weights {path.name} are {broken}: copy or save them again.", str(error)) from None
        raise ToolError(pickled.refusal(path), str(error)) from None


def _from_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise ToolError(f"Reading {path.name} needs the package safetensors: pip install safetensors.") from None
    try:
        return load_file(path)
    except Exception as error:
        raise ToolError(f"The weights {path.name} are not a readable safetensors file.", str(error)) from None


def _check(name: str, state: Mapping[str, Any]) -> None:
    from heatserve.serving.weights import not_finite

    bad = not_finite(state)
    if bad:
        raise ToolError(f"The weights {name} are not finite numbers: {bad}. Train or convert them again.")
