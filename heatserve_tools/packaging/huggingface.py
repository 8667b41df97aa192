"""A model's folder of Hugging Face transformers: the recipe of an archive with its network, weights and labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import preprocessing
from heatserve_tools.packaging.configuration import completed
from heatserve_tools.packaging.recipe import Recipe

#: The member that has the network's own configuration. transformers wants a folder with this file.
CONFIG = "huggingface/config.json"
MODEL_FILE = "huggingface_model.py"
_WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
_PREPROCESSOR = "preprocessor_config.json"
_ACTIVATIONS = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid", "regression": "none"}
_REMARK = (
    "the network is built by transformers {version} from config.json: have that version on the server, as others may "
    "name its tensors otherwise"
)
#: The model file of the archive. It needs neither the network's weights nor a connection.
_MODEL = f'''"""The network that {CONFIG} describes. Written by heatserve package."""

from pathlib import Path

from transformers import AutoConfig, AutoModelForImageClassification


def model():
    """The network with random weights; those of the archive are loaded over them."""
    config = AutoConfig.from_pretrained(Path(__file__).parent / "{Path(CONFIG).parent}", local_files_only=True)
    return AutoModelForImageClassification.from_config(config).float()
'''


def read(folder: Path, scratch: Path, recipe: Recipe) -> Recipe:
    """The recipe with the parts of the folder, where it has none of its own. Raises ToolError.

    scratch: a folder that outlives the recipe's use.
    """
    _need_transformers()
    config = _json(folder / "config.json")
    _check(folder.name, config)
    given = recipe.weights or next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if given is None:
        raise ToolError(f"{folder} has neither {' nor '.join(_WEIGHTS[:2])}: name the file by --weights.")
    model = scratch / MODEL_FILE
    model.write_text(_MODEL, encoding="utf-8")
    settings = {} if _says_preprocess(recipe.config) else {"preprocess": _preprocess(folder)}
    return replace(
        recipe,
        architecture=f"{model}:model",
        weights=recipe.weights or _weights(folder, scratch),
        given=given,
        labels=recipe.labels or _labels(config, scratch),
        config=completed(recipe.config, settings, scratch),
        activation=recipe.activation or _ACTIVATIONS.get(str(config.get("problem_type"))),
        carried={CONFIG: folder / "config.json", **recipe.carried},
        remarks=(*recipe.remarks, _REMARK.format(version=_version())),
    )


def _version() -> str:
    import transformers

    return str(transformers.__version__)


def _weights(folder: Path, scratch: Path) -> Path:
    """The folder's weights under the names that transformers has for them here, as a file. Raises ToolError.

    The files of a folder may have the names of another version, or of a library before it.
    """
    import torch
    from transformers import AutoModelForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        network, found = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises many types
        reason = " ".join(str(error).split())[:300]
        raise ToolError(f"transformers cannot load the weights in {folder}: {reason}") from None
    # It gives random numbers to tensors that the files lack.
    lacking = sorted(map(str, [*found["missing_keys"], *found.get("mismatched_keys", ())]))
    if lacking:
        raise ToolError(
            f"The weights in {folder} lack {len(lacking)} tensors of the network, the first is {lacking[0]}: train the "
            "classifier and save it again."
        )
    path = scratch / "model.pt"
    torch.save(network.state_dict(), path)
    return path


def _need_transformers() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise ToolError("--huggingface needs the package transformers: pip install 'heatserve[huggingface]'.") from None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ToolError(f"There is no {path.name} in {path.parent}: --huggingface needs a model's folder.") from None
    except ValueError as error:
        raise ToolError(f"{path} is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ToolError(f"{path} is no mapping of settings.")
    return content


def _check(name: str, config: Mapping[str, Any]) -> None:
    """Refuses a model that is no image classifier of transformers. Raises ToolError."""
    from transformers import AutoConfig, AutoModelForImageClassification

    if "auto_map" in config:
        raise ToolError(
            f"The model {name} needs code of its own (auto_map in config.json), which would have to be fetched: write "
            "a model.py and package it by --architecture."
        )
    kind = str(config.get("model_type"))
    named = [str(architecture) for architecture in config.get("architectures") or []]
    try:
        known = type(AutoConfig.for_model(kind)) in AutoModelForImageClassification._model_mapping
    except ValueError:
        known = False
    if not known:
        raise ToolError(f"The model {name} is of the type {kind}, of which transformers here has no image classifier.")
    if named and not any("ImageClassification" in architecture for architecture in named):
        raise ToolError(
            f"The model {name} is a {named[0]}, not an image classifier: its weights have no classes. Train a "
            "classifier on it first."
        )


def _labels(config: Mapping[str, Any], scratch: Path) -> Path | None:
    """The names of `id2label` as a file; None where there are none, or only `LABEL_0`, `LABEL_1`."""
    named = config.get("id2label")
    if not isinstance(named, dict) or all(str(name) == f"LABEL_{index}" for index, name in named.items()):
        return None
    path = scratch / "index_to_name.json"
    path.write_text(json.dumps({str(index): str(name) for index, name in named.items()}), encoding="utf-8")
    return path


def _says_preprocess(config: Path | None) -> bool:
    from heatserve_tools.packaging.configuration import read_file

    return "preprocess" in read_file(config)


def _preprocess(folder: Path) -> dict[str, Any]:
    """The block `preprocess` of the folder's processor, with the defaults of transformers. Raises ToolError."""
    from transformers import AutoImageProcessor

    if not (folder / _PREPROCESSOR).is_file():
        raise ToolError(
            f"{folder} has no {_PREPROCESSOR}: say the training's preprocessing in the block preprocess of a "
            "model-config.yaml (--config)."
        )
    try:
        settings = AutoImageProcessor.from_pretrained(folder, local_files_only=True).to_dict()  # type: ignore[no-untyped-call]
    except Exception as error:  # transformers raises many types
        reason = " ".join(str(error).split())[:200]
        raise ToolError(f"transformers cannot read {folder / _PREPROCESSOR}: {reason}") from None
    return preprocessing.from_huggingface(settings)
