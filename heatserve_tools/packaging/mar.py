"""The file of a model archive: a zip whose bytes follow from its content alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

from heatserve.serving import integrity

Content = Union[bytes, Path]

_STORED = (".pt", ".pth")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def sha256(content: Content) -> str:
    """The SHA-256 of bytes or of a file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else integrity.sha256(content)


def sealed(manifest: Mapping[str, Any], members: Mapping[str, Content]) -> bytes:
    """The manifest as a file, with the hashes of these members and of itself in its block `heatserve`."""
    hashes = {name: sha256(members[name]) for name in sorted(members)}
    block = {**manifest["heatserve"], "members": hashes}
    block["contents_sha256"] = integrity.contents_sha256({**manifest, "heatserve": block})
    return json.dumps({**manifest, "heatserve": block}, indent=2).encode()


def write(path: Path, members: Mapping[str, Content]) -> None:
    """Writes the archive with sorted names, times and permissions fixed. Weights are stored: they do not shrink."""
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


def lay_out(folder: Path, members: Mapping[str, Content]) -> None:
    """Writes the members into a folder, as an unpacked archive has them."""
    for name, content in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copyfile(content, path)


def temporary(beside: Path) -> Path:
    """A new empty file in the folder of `beside`. It can take that name in one step."""
    handle, name = tempfile.mkstemp(prefix=f".{beside.name}.", dir=beside.parent)
    os.close(handle)
    os.chmod(name, 0o644)
    return Path(name)
