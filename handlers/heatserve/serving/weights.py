"""The weights of an archive: a whole state dict that loads without running code, and holds finite numbers."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .integrity import ArchiveError

_COMPUTES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a state dict into the network, `weights_only`. Raises ArchiveError."""
    if not path.is_file():
        raise ArchiveError(f"the weights {path.name} are not in the archive: package it again")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        broken = damage(path, error)
        if broken:
            raise ArchiveError(
                f"the weights {path.name} are {broken}: copy or save them again, and package them"
            ) from error
        raise ArchiveError(
            f"the weights {path.name} cannot be loaded with weights_only=True: save a plain state dict "
            f"(torch.save(model.state_dict(), ...)) [{type(error).__name__}]"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ArchiveError(f"the weights {path.name} hold a {type(state).__name__}, not a state dict")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ArchiveError(
            f"the weights {path.name} do not fit {type(model).__name__}: {_misfit(model, state, error)}"
        ) from error
    bad = not_finite(model.state_dict())
    if bad:
        raise ArchiveError(f"the weights {path.name} are not finite numbers: {bad}; train or convert them again")


def _misfit(model: nn.Module, state: Mapping[str, Tensor], error: RuntimeError) -> str:
    """The difference between a state dict and the network's own: numbers of names, and the first of each kind.

    error: that load_state_dict raised.
    """
    names = model.state_dict().keys()
    kinds = (
        ("of the network's tensors are missing", [name for name in names if name not in state]),
        ("of the file's tensors are not the network's", [name for name in state if name not in names]),
    )
    said = [f"{len(found)} {kind}, the first is {found[0]}" for kind, found in kinds if found]
    sizes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
    if sizes:
        said.append(f"{len(sizes)} have another shape, the first: {sizes[0].rstrip('.')}")
    return "; ".join(said)[:500] or " ".join(str(error).split())[:300]


def damage(path: Path, error: BaseException) -> str | None:
    """The damage of a file that torch.load failed on; None where the file is whole and holds something else.

    error: that torch.load raised.
    """
    with open(path, "rb") as file:
        start = file.read(2)
    if not start:
        return "empty"
    if start == b"PK":
        try:
            with zipfile.ZipFile(path) as records:
                return "damaged" if records.testzip() else None
        except Exception:  # zipfile raises many types, according to the damage
            return "truncated or damaged"
    if start[:1] != b"\x80":
        return "not a file that torch.save wrote, or damaged"
    cut = isinstance(error, EOFError) or any(
        words in str(error) for words in ("unexpected EOF", "Ran out of input", "truncated")
    )
    return "truncated" if cut else None


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """A sentence on the first tensor with NaNs or infinities, and their number; None where there is none.

    A tensor of zeros and minus infinities is allowed: it is a mask of attention, which is added to scores.
    """
    for name, tensor in state.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        values = tensor if tensor.dtype in _COMPUTES else tensor.float()
        # A sum needs no memory of the tensor's size, and is finite only where every summand is.
        if values.sum().isfinite():
            continue
        finite = values.isfinite()
        if finite.all() or _is_mask(values):
            continue
        return f"{int((~finite).sum())} of {values.numel()} values of {name} are NaN or infinite"
    return None


def _is_mask(values: Tensor) -> bool:
    kept = values == 0
    return not values.is_complex() and bool(kept.any()) and bool((kept | (values == -torch.inf)).all())
