"""The comparison of an unpacked archive's files with the hashes in its manifest.

The hashes find accidents: a damaged disk, a file that was changed or added. They are no signature: a person who can
change a file can change its hash as well. This module needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "MAR-INF/MANIFEST.json"
LABELS = "index_to_name.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Integrity:
    """The result of the comparison.

    verified: whether every file that the archive runs or reads is as it was packaged; False for a manifest without
    hashes.
    weights: the member with the weights.
    weights_sha256: of that member as it lies here.
    """

    verified: bool
    weights: str | None
    weights_sha256: str | None


class ArchiveError(ValueError):
    """An archive that cannot be served. The message is a sentence that says why and what to do."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def contents_sha256(manifest: Mapping[str, Any]) -> str:
    """One hash over the whole content of an archive. Two archives with the same hash hold the same.

    It is the SHA-256 of the manifest without its own entry `heatserve.contents_sha256`, as JSON with sorted keys, no
    spaces and ASCII alone. So it covers the model's name and version, the architecture, the versions of heatserve and
    of the manifest's format, and the hash of the weights as they were given. By `heatserve.members` it covers the name
    and the SHA-256 of every other file.
    """
    block = {name: value for name, value in manifest.get("heatserve", {}).items() if name != "contents_sha256"}
    text = json.dumps({**manifest, "heatserve": block}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check(folder: Path, manifest: Mapping[str, Any]) -> Integrity:
    """Compares an unpacked archive with its manifest. Raises ArchiveError."""
    ours = manifest.get("heatserve") or {}
    weights = manifest.get("model", {}).get("serializedFile")
    members = ours.get("members")
    if not members:
        there = weights is not None and (folder / weights).is_file()
        return Integrity(False, weights, sha256(folder / weights) if there else None)
    if not isinstance(members, dict) or ours.get("contents_sha256") != contents_sha256(manifest):
        raise ArchiveError(f"the archive's member {MANIFEST} is not what was packaged: package it again")
    found = {}
    for name, expected in sorted(members.items()):
        if not (folder / name).is_file():
            raise ArchiveError(f"the archive's member {name} is missing: package it again")
        found[name] = sha256(folder / name)
        if found[name] != expected:
            raise ArchiveError(
                f"the archive's member {name} is not what was packaged (sha256 {found[name]} instead of {expected}): "
                "package it again"
            )
    for name in _others(folder):
        if name not in members and (name == LABELS or _importable(name)):
            raise ArchiveError(
                f"the archive's member {name} was added after it was packaged: package it again "
                "(heatserve package --include-package carries a package along)"
            )
    return Integrity(True, weights, found.get(str(weights)))


def _others(folder: Path) -> Iterator[str]:
    """Names of the files that could be members, without those that Python and TorchServe leave in the folder."""
    for place, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if name != "__pycache__")
        if "pyvenv.cfg" in files:  # the virtual environment that TorchServe makes for a model with `useVenv`
            below.clear()
            continue
        for name in sorted(files):
            yield Path(place, name).relative_to(folder).as_posix()


def _importable(name: str) -> bool:
    """Whether an import statement can reach the file. It could then replace a module of that name."""
    *folders, file = name.split("/")
    suffixes = tuple(importlib.machinery.all_suffixes())
    return file.endswith(suffixes) and all(part.isidentifier() for part in [*folders, file.split(".")[0]])
