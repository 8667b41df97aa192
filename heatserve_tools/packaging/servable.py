"""The reasons why TorchServe cannot start with an archive, told from the file alone.

Some archives never load. One whose configuration is empty, or no mapping, ends the whole server with exit code 0.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from heatserve.serving.integrity import MANIFEST

#: The names of models that TorchServe takes.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]*")


class Unservable(ValueError):
    """TorchServe cannot serve a file. The message goes on after the file's name: `is no zip file`."""


def config(content: bytes) -> dict[str, Any]:
    """The settings of a model-config.yaml. Raises Unservable where TorchServe could not read it, or would end."""
    try:
        read = yaml.safe_load(content)
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or an impossible date
        raise Unservable(f"is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(read, dict):
        found = "is empty" if read is None else f"is a {type(read).__name__}"
        raise Unservable(f"{found}, not a mapping of settings; TorchServe would end over it")
    for key in read:
        if not isinstance(key, str):
            raise Unservable(f"has the key {key!r}, which is no text; TorchServe would end over it")
    return read


def trouble(archive: Path) -> str | None:
    """The reason why TorchServe cannot serve an archive, as words after its name; None where there is none."""
    if not NAME.fullmatch(archive.stem):
        return "has a name that TorchServe does not take: letters, digits, '-', '_' and '.' are allowed"
    try:
        with zipfile.ZipFile(archive) as members:
            _check(members)
    except Unservable as error:
        return str(error)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return "is no zip file, or not a whole one"
    except (OSError, RuntimeError, NotImplementedError) as error:
        return f"cannot be read: {error}"
    return None


def _check(members: zipfile.ZipFile) -> None:
    damaged = members.testzip()
    if damaged:
        raise Unservable(f"is damaged: its member {damaged} does not match its checksum")
    names = set(members.namelist())
    if MANIFEST not in names:
        raise Unservable(f"has no {MANIFEST}")
    try:
        manifest = json.loads(members.read(MANIFEST))
    except (ValueError, RecursionError):
        raise Unservable(f"has a {MANIFEST} that is not JSON") from None
    model = manifest.get("model") if isinstance(manifest, dict) else None
    if not isinstance(model, dict):
        raise Unservable(f"has a {MANIFEST} that names no model")
    handler = model.get("handler")
    if not isinstance(handler, str) or not handler:
        raise Unservable(f"has a {MANIFEST} that names no handler")
    module = handler.partition(":")[0]
    if module not in names and f"{module}.py" not in names and not _stock(module):
        raise Unservable(f"names the handler {handler}, which is not in it")
    for kind, key in (("configuration", "configFile"), ("weights", "serializedFile")):
        named = model.get(key)
        if named and named not in names:
            raise Unservable(f"names the {kind} {named}, which {'is' if key == 'configFile' else 'are'} not in it")
    if model.get("configFile"):
        try:
            config(members.read(model["configFile"]))
        except Unservable as error:
            raise Unservable(f"has a {model['configFile']} that {error}") from None


def _stock(module: str) -> bool:
    """Whether TorchServe brings this handler along."""
    spec = find_spec("ts")
    return bool(spec and spec.origin and (Path(spec.origin).parent / "torch_handler" / f"{module}.py").is_file())
