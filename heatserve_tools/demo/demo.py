"""The command `scripts/demo`: the main job, end to end, on real weights and real photographs."""

from __future__ import annotations

import base64
import io
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import requests
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track
from rich.table import Table

from heatserve_tools.demo import lite0
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.paths import ROOT
from heatserve_tools.torchserve.server import Server

#: What is shown: a name, and the options that ask for it.
METHODS = {
    "gradcam": {"method": "gradcam"},
    "cam": {"method": "cam"},
    "gradient": {"method": "gradient"},
    "smoothgrad": {"method": "smoothgrad"},
    "smoothgrad_squared": {"method": "smoothgrad_squared"},
    "vargrad": {"method": "vargrad"},
    "gradcam, 10 samples": {"method": "gradcam", "samples": "10"},
}
TIMEOUT = 300


@click.command()
@click.option("--keep", is_flag=True, help="Leave the server running until Ctrl-C and print curl lines.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "demo",
    show_default="demo/",
    help="Where pictures and answers are written.",
)
@click.option("--repeat", default=3, show_default=True, help="How often each method is timed.")
def main(keep: bool, output: Path, repeat: int) -> None:
    """Package EfficientNet-Lite0, serve it with TorchServe, and ask what it sees and where it looked.

    Writes for each photograph the overlay, one panel with all the methods, and the JSON answers.
    """
    console = Console(highlight=False, soft_wrap=True)
    output.mkdir(parents=True, exist_ok=True)
    archives = {}
    for name in ("lite0", "lite0_live"):
        with console.status(f"Packaging {name}.mar and proving it"):
            packaged = lite0.build(name=name, continuous=name == "lite0_live")
        console.print(f"packaged {packaged.path.name}: layer {packaged.trial.layer}")
        archives[name] = packaged.path
    with console.status("Starting TorchServe"):
        server = Server(archives).start()
    try:
        console.print(f"TorchServe answers at {server.inference}\n")
        explain_photographs(server, output, console)
        console.print(timings(server, repeat, console))
        console.print(beside_smoothgrad(server, console))
        console.print(f"\nPictures and answers are in {_shown(output)}: look at chelsea-panel.png first.")
        if keep:
            wait(server, console)
    finally:
        server.stop()


def explain_photographs(server: Server, output: Path, console: Console) -> None:
    """Predictions to the terminal; overlay, panel and answers of each photograph to `output`."""
    for name, image in photographs().items():
        (output / f"{name}.png").write_bytes(image)
        prediction = _post(server, "predictions", image).json()
        best = ", ".join(f"{label} {probability:.2f}" for label, probability in list(prediction.items())[:3])
        console.print(f"[bold]{name}[/]: {best}")
        overlay = _post(server, "explanations", image, {"X-Explain-Output": "png"})
        (output / f"{name}-overlay.png").write_bytes(overlay.content)
        answers = {method: _explained(server, image, method) for method in METHODS}
        (output / f"{name}.json").write_text(json.dumps({"prediction": prediction, **answers}, indent=1))
        panel(Image.open(io.BytesIO(image)).convert("RGB"), answers).save(output / f"{name}-panel.png")


def _explained(server: Server, image: bytes, method: str) -> dict[str, Any]:
    headers = {**_options(method), "X-Explain-Overlay": "true", "X-Explain-Boxes": "true"}
    answer: dict[str, Any] = _post(server, "explanations", image, headers).json()
    return answer


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


def timings(server: Server, repeat: int, console: Console) -> Table:
    """The latency of a prediction and of each method through the server, as medians and multiples."""
    image = photographs()["chelsea"]
    seconds: dict[str, list[float]] = {what: [] for what in ("prediction", *METHODS)}
    rounds = track(range(repeat), "Timing each method", console=console, transient=True)
    for _ in rounds:
        for what, found in seconds.items():
            started = time.perf_counter()
            if what == "prediction":
                _post(server, "predictions", image)
            else:
                _post(server, "explanations", image, _options(what))
            found.append(time.perf_counter() - started)
    table = Table("asked for", "median", "x prediction", title="chelsea.png, one request at a time")
    plain = statistics.median(seconds["prediction"])
    for what, found in seconds.items():
        median = statistics.median(found)
        table.add_row(what, f"{1000 * median:.0f} ms", f"{median / plain:.2f}")
    return table


def beside_smoothgrad(server: Server, console: Console) -> Table:
    """What a prediction waits while a SmoothGrad runs: TorchServe's ordinary mode, and continuous batching."""
    image = photographs()["chelsea"]
    table = Table("archive", "quiet", "beside a SmoothGrad", "asked", title="a prediction, median and longest")
    for name in ("lite0", "lite0_live"):
        with console.status(f"Predictions beside a SmoothGrad: {name}"), ThreadPoolExecutor(1) as pool:
            quiet = [_prediction(server, name, image) for _ in range(10)]
            running = pool.submit(_post, server, "explanations", image, _options("smoothgrad"), name)
            time.sleep(0.3)
            beside = [_prediction(server, name, image)]
            while not running.done():
                beside.append(_prediction(server, name, image))
        table.add_row(name, _milliseconds(quiet), _milliseconds(beside), str(len(beside)))
    return table


def _prediction(server: Server, model: str, image: bytes) -> float:
    started = time.perf_counter()
    _post(server, "predictions", image, model=model)
    return time.perf_counter() - started


def _milliseconds(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f} ms, {1000 * max(seconds):.0f} ms"


def wait(server: Server, console: Console) -> None:
    """Prints how to ask, and waits for Ctrl-C."""
    photograph = _shown(ROOT / "demo" / "chelsea.png")
    console.print("\nThe server stays until Ctrl-C. Ask it:")
    console.print(f"  curl {server.inference}/predictions/lite0 -T {photograph}")
    console.print(f"  curl {server.inference}/explanations/lite0 -T {photograph}")
    console.print(
        f"  curl {server.inference}/explanations/lite0/1.0/smoothgrad -T {photograph} "
        "-H 'Accept: image/png' -o heat.png"
    )
    console.print(
        f"  curl -N {server.inference}/explanations/lite0_live/1.0/smoothgrad -T {photograph} "
        "-H 'Accept: application/x-ndjson'"
    )
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("\nstopping")


def _options(shown: str) -> dict[str, str]:
    return {f"X-Explain-{name}": value for name, value in METHODS[shown].items()}


def _post(
    server: Server, what: str, image: bytes, headers: dict[str, str] | None = None, model: str = "lite0"
) -> requests.Response:
    response = requests.post(f"{server.inference}/{what}/{model}", data=image, headers=headers, timeout=TIMEOUT)
    if response.status_code != 200:
        sys.exit(f"{what}: {response.status_code} {response.text[:500]}")
    return response


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    main(prog_name="scripts/demo")
