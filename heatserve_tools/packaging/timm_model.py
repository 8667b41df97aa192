"""A model of timm by its name: the recipe of an archive with its network, and the preprocessing of its training."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import preprocessing
from heatserve_tools.packaging.configuration import completed, read_file
from heatserve_tools.packaging.recipe import Recipe

MODEL_FILE = "timm_model.py"
_MODEL = '''"""A network of timm. Written by heatserve package."""

import timm


def model():
    """The network with random weights; those of the archive are loaded over them."""
    return timm.create_model({name!r}, pretrained=False, num_classes={classes})
'''


def read(name: str, classes: int, scratch: Path, recipe: Recipe) -> Recipe:
    """The recipe with the network of this name. Raises ToolError.

    scratch: a folder that outlives the recipe's use.
    """
    try:
        import timm
    except ImportError:
        raise ToolError("--timm needs the package timm: pip install 'heatserve[timm]'.") from None
    base = name.partition(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), 3)
        raise ToolError(f"timm has no model {name!r} here{': do you mean ' + ', '.join(near) if near else ''}.")
    model = scratch / MODEL_FILE
    model.write_text(_MODEL.format(name=name, classes=classes), encoding="utf-8")
    settings, remarks = {}, [f"the network is built by timm {timm.__version__}: have that version on the server"]
    if "preprocess" not in read_file(recipe.config):
        trained = timm.models.get_pretrained_cfg(name)
        if trained is None:
            raise ToolError(
                f"timm knows no preprocessing of {name}: say the training's in the block preprocess of a "
                "model-config.yaml (--config)."
            )
        settings["preprocess"] = preprocessing.from_timm(trained.to_dict())  # type: ignore[no-untyped-call]
        remarks.append(
            f"the preprocessing is that of timm's own weights {name if '.' in name else trained.architecture}"
            f"{'.' + trained.tag if trained.tag and '.' not in name else ''}: where yours were trained on another one, "
            "say it in the block preprocess (--config)"
        )
    return replace(
        recipe,
        architecture=f"{model}:model",
        config=completed(recipe.config, settings, scratch),
        remarks=(*recipe.remarks, *remarks),
    )
