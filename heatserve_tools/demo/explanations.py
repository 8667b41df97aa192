"""The explanations of the demo: the answers of all methods for each photograph, and one panel that shows them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from heatserve_tools.demo import asking
from heatserve_tools.demo.asking import METHODS
from heatserve_tools.demo.photographs import photographs


def show(address: str, output: Path, console: Console) -> None:
    """Prints the predictions, and writes the overlay, the panel and the answers of each photograph to `output`."""
    for name, image in photographs().items():
        with console.status(f"Explaining {name}.png by {len(METHODS)} methods"):
            prediction = asking.predict(address, image)
            overlay = asking.overlay(address, image)
            answers = {
                method: asking.explain(address, image, method, overlay="true", boxes="true") for method in METHODS
            }
        best = ", ".join(f"{label} {probability:.2f}" for label, probability in list(prediction.items())[:3])
        console.print(f"[bold]{name}[/]: {best}")
        (output / f"{name}.png").write_bytes(image)
        (output / f"{name}-overlay.png").write_bytes(overlay)
        (output / f"{name}.json").write_text(json.dumps({"prediction": prediction, **answers}, indent=1))
        panel(Image.open(io.BytesIO(image)).convert("RGB"), answers).save(output / f"{name}-panel.png")


def panel(photograph: Image.Image, answers: dict[str, dict[str, Any]], width: int = 360) -> Image.Image:
    """The photograph and the overlay of each method side by side, with the box of the class activation maps."""
    height = round(width * photograph.height / photograph.width)
    tiles = [("photograph", photograph.resize((width, height)))]
    for method, answer in answers.items():
        explanation = answer["explanations"][0]
        tile = Image.open(io.BytesIO(base64.b64decode(explanation["overlay"]["data"]))).convert("RGB")
        tile = tile.resize((width, height))
        if METHODS[method]["method"] in ("gradcam", "cam"):
            scale = width / answer["image"]["width"]
            for box in explanation["boxes"]:
                corners = [round(box[key] * scale) for key in ("x0", "y0", "x1", "y1")]
                ImageDraw.Draw(tile).rectangle(corners, outline="white", width=2)
        tiles.append((f"{method}: {explanation['target']['label']}", tile))
    caption, gap, columns = 26, 8, 4
    rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + caption + gap) + gap), "white")
    for index, (text, tile) in enumerate(tiles):
        left = gap + (index % columns) * (width + gap)
        top = gap + (index // columns) * (height + caption + gap)
        ImageDraw.Draw(canvas).text((left, top + 4), text, fill="black", font=ImageFont.load_default(16))
        canvas.paste(tile, (left, top + caption))
    return canvas
