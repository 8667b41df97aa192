"""A file that holds a whole network: TorchScript's, or torch.export's `.pt2`."""

from __future__ import annotations

from pathlib import Path

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import state_dict
from heatserve_tools.packaging.state_dict import Weights

_FORMS = {"scripted": "TorchScript", "exported": "torch.export"}


def for_archive(path: Path) -> Weights:
    """The file as an archive carries it. Raises ToolError for a file that holds no network."""
    from heatserve.serving.programs import program_in

    if not path.is_file():
        raise ToolError(f"There are no weights {path}.")
    kind = program_in(path)
    if kind is None:
        if path.suffix != ".safetensors" and path.name.endswith(state_dict.SUFFIXES):
            state_dict.load(path)  # a pickled network is refused by name, with the lines that make weights of it
        raise ToolError(
            f"{path.name} is no network of TorchScript or torch.export, so the network's code is needed: name it by "
            "--architecture package.module:callable or model.py:Class."
        )
    return Weights(
        path.name,
        path,
        (
            f"{path.name} is a network of {_FORMS[kind]}: it answers the methods that need no layer; Grad-CAM needs "
            "the network's code and its state dict",
        ),
    )
