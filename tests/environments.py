"""New environments that hold a wheel of heatserve and the packages that it declares, and not this checkout."""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


@dataclass(frozen=True)
class Environment:
    """An environment: its folder, and an empty folder in which its commands run."""

    folder: Path
    home: Path

    @property
    def variables(self) -> dict[str, str]:
        """This process's environment without its packages."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEATSERVE"))}
        return {**kept, "HOME": str(self.home), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}

    def command(self, name: str, *arguments: object) -> list[str]:
        return [str(self.folder / "bin" / name), *map(str, arguments)]

    def run(self, name: str, *arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment, which may fail, and gives back all that it said."""
        return subprocess.run(
            self.command(name, *arguments),
            cwd=self.home,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


def make(folder: Path, wheel: Path, extras: Sequence[str] = ()) -> Environment:
    """Installs the wheel into a new environment, beside links to the packages that it and its extras declare."""
    venv.create(folder / "env", with_pip=True)
    environment = Environment(folder / "env", folder / "home")
    environment.home.mkdir()
    done = environment.run("python", "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    (installed,) = (folder / "env" / "lib").glob("python*/site-packages")
    (found,) = metadata.distributions(name="heatserve", path=[str(installed)])
    (folder / "packages").mkdir()
    for name in sorted(declared(found, extras)):
        link(metadata.distribution(name), folder / "packages")
    (installed / "packages.pth").write_text(f"{folder / 'packages'}\n")
    return environment


def declared(distribution: metadata.Distribution, extras: Sequence[str]) -> set[str]:
    """The names of the packages that pip would install beside this one, as far as they are installed here."""
    found: set[str] = set()
    waiting = [(distribution, "")] + [(distribution, extra) for extra in extras]
    seen: set[tuple[str, str]] = set()
    while waiting:
        current, extra = waiting.pop()
        if (current.name, extra) in seen:
            continue
        seen.add((current.name, extra))
        for line in current.requires or ():
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.name == distribution.name:
                needed = distribution
            else:
                needed = metadata.distribution(requirement.name)
                found.add(needed.name)
            waiting += [(needed, one) for one in ("", *requirement.extras)]
    return found


def link(distribution: metadata.Distribution, folder: Path) -> None:
    """Links the modules and the metadata of an installed package into a folder."""
    for name in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."} - {"__pycache__"}:
        if not (folder / name).exists():
            (folder / name).symlink_to(Path(str(distribution.locate_file(name))))
