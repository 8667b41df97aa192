"""The command `scripts/release`: builds the wheel and the source distribution and checks them. It publishes nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from html.parser import HTMLParser
from pathlib import Path

import click
from packaging.metadata import ExceptionGroup, InvalidMetadata, Metadata

from devtools.paths import ROOT
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import root

VERSION_FILE = "handlers/heatserve/__init__.py"
#: The two packages of the wheel, beside the folder of its metadata.
PACKAGES = ("heatserve", "heatserve_tools")
HANDLER = "explain_handler.py"
#: The folder of the wheel that the handler is data in.
HANDLERS = "heatserve_tools/handlers"
BACKEND = (
    "from setuptools import build_meta; import sys; print(getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2]))"
)


class Unfit(Exception):
    """The release is not as it has to be. The message names the change to make."""


@dataclass(frozen=True)
class Release:
    """The two files of a release, not published."""

    wheel: Path
    sdist: Path


@click.command()
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "dist", show_default="dist/")
def main(output: Path) -> None:
    """Build heatserve's wheel and source distribution, check them, and write them to dist/.

    Nothing is published. Checked are: the version stands in one place, and CHANGELOG.md has an entry for it; the wheel
    holds every file of the two packages and the handler, and no other module; the source distribution builds the same
    wheel; the metadata is valid; the README renders as an index shows it, and its links lead somewhere from there.
    """
    try:
        version = version_of(ROOT)
        note = check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
        with tempfile.TemporaryDirectory(prefix="heatserve-release-") as scratch:
            source = checkout(ROOT, Path(scratch, "source"))
            check_one_version(source, version)
            release = build(source, Path(scratch, "built"))
            check(release, source, version)
            output.mkdir(parents=True, exist_ok=True)
            written = [shutil.copy(file, output) for file in (release.wheel, release.sdist)]
    except Unfit as reason:
        raise click.ClickException(str(reason)) from None
    for path in written:
        click.echo(f"built    {path}")
    click.echo("checked  version, changelog, contents, metadata, README")
    if note:
        click.echo(f"note     {note}")


def version_of(source: Path) -> str:
    """The version of the sources, read without importing them, as the packager reads it."""
    try:
        return root.version(root.archive_root(source / "handlers"))
    except ToolError as error:
        raise Unfit(str(error)) from None


def checkout(root: Path, target: Path) -> Path:
    """A copy of the files that git knows or would add. A wheel would also hold the files of an old build folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target


def build(source: Path, output: Path) -> Release:
    """The source distribution, and the wheel that it builds."""
    output.mkdir(parents=True, exist_ok=True)
    sdist = _built("sdist", source, output)
    with tempfile.TemporaryDirectory(prefix="heatserve-sdist-") as scratch:
        with tarfile.open(sdist) as members:
            members.extractall(scratch, filter="data")
        (unpacked,) = Path(scratch).iterdir()
        return Release(_built("wheel", unpacked, output), sdist)


def check(release: Release, source: Path, version: str) -> None:
    """Raises Unfit unless both files are as they have to be."""
    with tempfile.TemporaryDirectory(prefix="heatserve-wheel-") as scratch:
        direct = contents(_built("wheel", source, Path(scratch)))
    members = contents(release.wheel)
    if different := sorted(name for name in direct.keys() | members.keys() if direct.get(name) != members.get(name)):
        raise Unfit(f"The source distribution builds another wheel than the checkout: {', '.join(different)}.")
    check_contents(members, source)
    (metadata,) = (content for name, content in members.items() if name.endswith(".dist-info/METADATA"))
    try:
        Metadata.from_email(metadata, validate=True)
    except (InvalidMetadata, ExceptionGroup) as error:
        raise Unfit(f"The metadata is not valid: {error}") from None
    about = BytesParser().parsebytes(metadata)
    if about["Version"] != version:
        raise Unfit(f"The wheel's version is {about['Version']}, and {VERSION_FILE} says {version}.")
    check_readme(about)


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel by name."""
    with zipfile.ZipFile(wheel) as members:
        return {name: members.read(name) for name in members.namelist()}


def check_contents(names: Iterable[str], source: Path) -> None:
    """Raises Unfit unless the wheel holds the two packages, the handler as data of the tools, and nothing else."""
    handlers = source / "handlers"
    wanted = {f"{HANDLERS}/{HANDLER}"}
    for folder, base in ((handlers / "heatserve", handlers), (source / "heatserve_tools", source)):
        wanted |= {path.relative_to(base).as_posix() for path in folder.rglob("*") if path.is_file()}
    found = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    if missing := sorted(wanted - found):
        raise Unfit(f"The wheel lacks {', '.join(missing)}.")
    if strange := sorted(found - wanted):
        raise Unfit(f"The wheel holds {', '.join(strange)}.")


def check_changelog(text: str, version: str) -> str:
    """Raises Unfit unless the changelog has an entry for the version. Gives back a note if the entry has no date."""
    entry = re.search(rf"^## {re.escape(version)}(?![\w.])(.*)\n+(?!## )\S", text, re.MULTILINE)
    if entry is None:
        raise Unfit(f"CHANGELOG.md has no entry `## {version}`: write what changed.")
    return "" if re.search(r"\d{4}-\d\d-\d\d", entry[1]) else f"CHANGELOG.md gives {version} no date yet."


def check_one_version(source: Path, version: str) -> None:
    """Raises Unfit if another file than the package's own says the version."""
    files = [source / "pyproject.toml", source / "setup.py"]
    files += [file for folder in ("handlers", "heatserve_tools") for file in (source / folder).rglob("*.py")]
    quoted = re.compile(rf"""["']{re.escape(version)}["']""")
    places = {file.relative_to(source).as_posix() for file in files if quoted.search(file.read_text(encoding="utf-8"))}
    if others := sorted(places - {VERSION_FILE}):
        raise Unfit(f"The version stands in {', '.join(others)} as well as in {VERSION_FILE}.")


def check_readme(about: Message) -> None:
    """Raises Unfit unless the README renders as an index renders it, with links that lead somewhere from there."""
    import readme_renderer.markdown as markdown

    page = markdown.render(str(about.get_payload()))
    if about["Description-Content-Type"] != "text/markdown" or page is None:
        raise Unfit("An index cannot render the README.")
    links = _Links()
    links.feed(page)
    places = {f"#{place}" for place in links.places}
    if lost := sorted({target for target in links.targets if not target.startswith("https://")} - places):
        raise Unfit(f"Outside the repository the README's links lead nowhere: {', '.join(lost)}.")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.targets += [value or "" for name, value in attributes if name in ("href", "src")]
        self.places += [value or "" for name, value in attributes if name == "id"]


def _built(kind: str, source: Path, output: Path) -> Path:
    """A `wheel` or an `sdist` by setuptools, from this environment and without a network."""
    run = subprocess.run([sys.executable, "-c", BACKEND, kind, output], cwd=source, capture_output=True, text=True)
    if run.returncode:
        raise Unfit(f"setuptools could not build the {kind}:\n{run.stderr.strip()}")
    return output / run.stdout.splitlines()[-1]


if __name__ == "__main__":
    main(prog_name="scripts/release")
