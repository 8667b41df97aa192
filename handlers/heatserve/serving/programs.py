"""Files that hold a whole network, without its code: those of TorchScript, and of torch.export (`.pt2`)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import nn

from .integrity import ArchiveError
from .weights import not_finite


def program_in(path: Path) -> str | None:
    """The kind of the network in a file, "scripted" or "exported"; None for a file of weights, or of anything else."""
    try:
        with zipfile.ZipFile(path) as records:
            names = [name.partition("/")[2] or name for name in records.namelist()]
            names += records.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    if "models/model.json" in names or "serialized_exported_program.json" in names:
        return "exported"
    return "scripted" if any(name.startswith("code/") for name in names) and "data.pkl" in names else None


def load_program(path: Path, kind: str, device: torch.device) -> nn.Module:
    """The network of a file that `program_in` knows. Raises ArchiveError.

    kind: as `program_in` gives it.
    """
    try:
        model = _scripted(path, device) if kind == "scripted" else _exported(path, device)
    except Exception as error:  # both loaders raise many types
        text = " ".join(str(error).split())[:200]
        raise ArchiveError(
            f"the network in {path.name} cannot be loaded by torch {torch.__version__} [{type(error).__name__}: "
            f"{text}]: save it again with this version of torch, or package the network's code with its state dict"
        ) from error
    bad = not_finite(model.state_dict())
    if bad:
        raise ArchiveError(f"the weights in {path.name} are not finite numbers: {bad}; train or convert them again")
    return model


def _scripted(path: Path, device: torch.device) -> nn.Module:
    model: nn.Module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
    return model


def _exported(path: Path, device: torch.device) -> nn.Module:
    program = torch.export.load(path)
    if device.type != "cpu":
        # Operations that make tensors name the device that the network was exported on.
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()
