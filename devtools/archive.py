"""A model archive as a file: a zip whose bytes follow from its content alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Union

Content = Union[bytes, Path]

_STORED = (".pt", ".pth")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def sha256(content: Content) -> str:
    """The SHA-256 of bytes or of a file, in hexadecimal."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    with open(content, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def contents_sha256(members: Mapping[str, Content]) -> str:
    """One hash over all members: of the lines `name, NUL, sha256`, sorted by name."""
    lines = (f"{name}\0{sha256(members[name])}\n" for name in sorted(members))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write(path: Path, members: Mapping[str, Content]) -> None:
    """Writes the archive: names sorted, times and permissions fixed, weights (which do not shrink) stored."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            content = members[name]
            if isinstance(content, bytes):
                archive.writestr(entry, content)
                continue
            entry.file_size = content.stat().st_size
            with open(content, "rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def temporary(beside: Path) -> Path:
    """A new empty file in the folder of `beside`, from where it can take that name in one step."""
    handle, name = tempfile.mkstemp(prefix=f".{beside.name}.", dir=beside.parent)
    os.close(handle)
    os.chmod(name, 0o644)
    return Path(name)
