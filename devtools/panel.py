"""The README's picture: `python -m devtools.panel` draws it from the files that `scripts/demo` wrote."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from PIL import Image, ImageDraw, ImageFont

from devtools.paths import ROOT

PHOTOGRAPH = "astronaut"
#: The methods shown, and whether the box is drawn.
METHODS = {"gradcam": True, "smoothgrad": False}
SIDE, CAPTION, GAP = 300, 24, 6


def panel(photograph: Image.Image, answers: Mapping[str, Any]) -> Image.Image:
    """The photograph and one overlay for each of `METHODS`, side by side, each under a caption."""
    tiles = {"the photograph": photograph.convert("RGB")}
    for method, boxed in METHODS.items():
        found = answers[method]["explanations"][0]
        tile = Image.open(io.BytesIO(base64.b64decode(found["overlay"]["data"]))).convert("RGB")
        if boxed:
            scale = tile.width / answers[method]["image"]["width"]
            for box in found["boxes"]:
                corners = [round(box[key] * scale) for key in ("x0", "y0", "x1", "y1")]
                ImageDraw.Draw(tile).rectangle(corners, outline="white", width=3)
        tiles[f"{method} of {found['target']['label']}"] = tile
    height = round(SIDE * photograph.height / photograph.width)
    canvas = Image.new("RGB", (len(tiles) * (SIDE + GAP) - GAP, height + CAPTION), "white")
    for index, (caption, tile) in enumerate(tiles.items()):
        left = index * (SIDE + GAP)
        ImageDraw.Draw(canvas).text((left, 2), caption, fill="black", font=ImageFont.load_default(15))
        canvas.paste(tile.resize((SIDE, height), Image.Resampling.LANCZOS), (left, CAPTION))
    return canvas


@click.command()
@click.option("--demo", type=click.Path(path_type=Path, exists=True, file_okay=False), default=ROOT / "demo")
def main(demo: Path) -> None:
    """Draw docs/panel.jpg from the answers in the demo's folder."""
    answers = json.loads((demo / f"{PHOTOGRAPH}.json").read_text(encoding="utf-8"))
    photograph = Image.open(demo / f"{PHOTOGRAPH}.png")
    panel(photograph, answers).save(ROOT / "docs" / "panel.jpg", quality=85)


if __name__ == "__main__":
    main()
