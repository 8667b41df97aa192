"""Explains pictures one after another: reads them, asks the server, writes the overlays and reports the answers."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from heatserve.client import Client, HeatserveError, Result

#: The files of a folder that are taken for pictures.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
#: The folder for the overlays of a folder's pictures. A second run does not take them for pictures.
EXPLAINED = "explained"
#: The statuses that every picture of a run would get: no server, a wrong option or token, an unknown model.
OF_EVERY_PICTURE = (0, 400, 401, 403, 404)
#: The bytes of an overlay's name without its number and suffix. File systems take 255 with them.
LONGEST = 240

#: A picture, and the folder that its overlays are written to.
Source = tuple[Path, Path]


class Unusable(Exception):
    """A file cannot be sent, or an answer cannot be drawn. The message says why."""


@dataclass(frozen=True)
class Run:
    """One model that is asked about many pictures in the same way.

    model: the model's name and version, for the names of files.
    options: the server's options by name.
    output: the folder that overlays are written to; None for one beside each picture.
    as_json: whether answers are printed and nothing is written.
    """

    client: Client
    model: str
    options: dict[str, str]
    output: Path | None
    as_json: bool


def explain_all(run: Run, paths: tuple[Path, ...]) -> bool:
    """Explains every picture, and names those that failed at the end. Gives back whether all were explained.

    Raises HeatserveError for a fault that every picture would meet, and OSError if an overlay cannot be written.
    """
    failed: dict[Path, str] = {}
    sources = [*_sources(paths, run.output, failed)]
    try:
        with _progress(sources) as (console, shown):
            for picture, folder in shown:
                try:
                    lines = _answer(run, picture) if run.as_json else _overlays(run, picture, folder)
                except (HeatserveError, Unusable) as error:
                    if isinstance(error, HeatserveError) and error.code in OF_EVERY_PICTURE:
                        raise
                    failed[picture] = str(error)
                else:
                    for line in lines:
                        console.print(line)
    finally:
        for path, reason in failed.items():
            click.echo(f"not explained  {_shown(path)}: {printable(reason)}", err=True)
    return not failed


def printable(text: str, keep: str = "") -> str:
    """The text without control characters: a server's words must not steer the terminal."""
    return "".join(character if character.isprintable() or character in keep else "?" for character in text)


def _sources(paths: tuple[Path, ...], output: Path | None, failed: dict[Path, str]) -> Iterator[Source]:
    """The pictures of files and folders. Folders without a picture are added to `failed`."""
    for path in paths:
        if not path.is_dir():
            yield path, output or path.parent
            continue
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES and file.is_file()]
        pictures = [file for file in files if not file.name.startswith(".")]
        if not pictures:
            failed[path] = f"no file in this folder ends in {', '.join(SUFFIXES)}"
        for picture in pictures:
            yield picture, output or path / EXPLAINED


def _answer(run: Run, picture: Path) -> list[str]:
    """The answer as one line of JSON."""
    result = _explain(run, picture, {"overlay": "false", **run.options})
    return [json.dumps({"picture": str(picture), **result.answer})]


def _overlays(run: Run, picture: Path, folder: Path) -> list[str]:
    """Writes the overlays of one picture. Gives back the lines that report them."""
    result = _explain(run, picture, {"boxes": "true", **run.options, "overlay": "true"})
    try:
        pictures = [_png(result, index) for index in range(len(result.explanations))]
    except (OSError, ValueError) as error:
        raise Unusable(f"the answer's overlay cannot be read: {error}") from None
    ranking = ", ".join(f"{entry.label} {entry.number:.2f}" for entry in result.predictions[:3])
    none = "" if pictures else " (no label is above the threshold)"
    lines = [f"{_shown(picture)}: {printable(ranking)}{none}"]
    for found, content in zip(result.explanations, pictures):
        written = write_new(folder, picture.stem, f"-{run.model}-{found.method}-{found.target.index}", content)
        margin = "" if found.standard_error is None else f", standard error {found.standard_error:.2f} of the map"
        about = printable(f"{found.method} of {found.target.label}")
        colours = ", red speaks for it and blue against it" if found.signed else ""
        lines.append(f"  {about}: {_shown(written)}{margin}{colours}{' (empty map)' if found.empty else ''}")
    return lines


def _explain(run: Run, picture: Path, options: dict[str, str]) -> Result:
    try:
        content = picture.read_bytes()
    except OSError as error:
        raise Unusable(error.strerror or str(error)) from None
    if not content:
        raise Unusable("the file is empty")
    # `overlay` is a parameter of its own, which takes the word as well.
    return run.client.explain(content, **options)  # type: ignore[arg-type]


def _png(result: Result, index: int) -> bytes:
    content = io.BytesIO()
    result.explanations[index].overlay.save(content, "PNG")
    return content.getvalue()


def write_new(folder: Path, stem: str, end: str, content: bytes) -> Path:
    """Writes the PNG file `stem` + `end` and gives back its path. A stem that is too long for a name is shortened.

    A file of that name stays, and the new name gets a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem, end = (re.sub(r"[^\w.-]", "_", part) for part in (stem, end))
    room = max(0, LONGEST - len(end.encode()))
    safe = stem.encode()[:room].decode(errors="ignore") + end
    for number in itertools.count(1):
        path = folder / (f"{safe}.png" if number == 1 else f"{safe}-{number}.png")
        with suppress(FileExistsError), open(path, "xb") as file:
            file.write(content)
            return path
    raise AssertionError("the numbers do not end")


@contextmanager
def _progress(sources: Sequence[Source]) -> Iterator[tuple[Console, Iterable[Source]]]:
    """A console for the lines of the report, and the pictures, which move a bar if people wait for several.

    The bar shares the console of the lines if that is a terminal, so that neither overwrites the other. Else it goes to
    the error stream, and the lines are alone in their file.
    """
    lines = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    console = lines if lines.is_terminal else Console(stderr=True)
    if len(sources) < 2 or not console.is_terminal:
        yield lines, sources
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        yield lines, bar.track(sources, description="Explaining")


def _shown(path: Path) -> str:
    return printable(click.format_filename(path))
