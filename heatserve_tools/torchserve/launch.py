"""The start of a TorchServe: its directory, configuration, command line and environment."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from heatserve_tools.errors import ToolError
from heatserve_tools.torchserve import ports, properties
from heatserve_tools.torchserve.java import java_home
from heatserve_tools.torchserve.ports import HOST
from heatserve_tools.torchserve.shipped import METRICS, SERVER_CONFIG

#: Turns that a thread of PyTorch's OpenMP spins for before it sleeps: some 0.1 ms, which is longer than the gaps within
#: a pass. By itself it spins 30 times as long, and keeps other processes from the processors that its own threads need.
SPINS = "10000"
#: The variables by which an operator decides on that.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def check() -> None:
    """Raises ToolError where TorchServe or its Java is missing."""
    java_home()
    _torchserve_home()


def archives(models: Mapping[str, Path] | Path) -> dict[str, Path]:
    """The archives by the names of their models. models: such a mapping, or a folder of archives."""
    if isinstance(models, Path):
        return {archive.stem: archive for archive in sorted(models.glob("*.mar"))}
    return {name: Path(path) for name, path in models.items()}


def directory() -> Path:
    """A new directory for one server. Its path is short, for a worker's Unix socket lies in it."""
    return Path(tempfile.mkdtemp(prefix="heatserve-", dir=None if len(tempfile.gettempdir()) < 50 else "/tmp"))


def configuration(store: Path, overrides: Mapping[str, str]) -> dict[str, str]:
    """The settings of a private server on free ports that serves all of a folder.

    overrides: settings above those. The folder and its archives cannot be overridden.
    """
    inference, management, metrics, grpc, grpc_management = ports.free(5)
    private = {
        "inference_address": f"http://{HOST}:{inference}",
        "management_address": f"http://{HOST}:{management}",
        "metrics_address": f"http://{HOST}:{metrics}",
        "grpc_inference_address": HOST,
        "grpc_inference_port": str(grpc),
        "grpc_management_address": HOST,
        "grpc_management_port": str(grpc_management),
        "disable_token_authorization": "true",
        "default_workers_per_model": "1",
        "metrics_mode": "prometheus",
        "metrics_config": str(METRICS),
        # The collector of system metrics is another Python process, at the start and every minute.
        "disable_system_metrics": "true",
        # The memory that the shipped server has: a test or a measurement should not find more.
        "vmargs": properties.read(SERVER_CONFIG)["vmargs"],
    }
    always = {
        "model_store": str(store),
        "load_models": ",".join(f"{path.stem}={path.name}" for path in sorted(store.iterdir())),
    }
    return {**private, **overrides, **always}


def command(directory: Path, vmargs: str, jvm: Sequence[str]) -> list[str]:
    """The command line that starts the frontend with `config.properties` of a directory.

    vmargs: the setting of that name; the `torchserve` launcher reads it, and here Java gets it directly.
    jvm: further options for Java.
    """
    home = _torchserve_home()
    return [
        str(java_home() / "bin" / "java"),
        f"-Dmodel_server_home={home}",
        f"-Djava.io.tmpdir={directory / 'tmp'}",
        *vmargs.split(),
        *jvm,
        "-cp",
        str(home / "ts" / "frontend" / "*"),
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "-f",
        str(directory / "config.properties"),
        "-ncs",
    ]


def environment(directory: Path, changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of the server and its workers. changes: variables above those of this process.

    Where neither says how a worker's threads wait for each other, they spin for `SPINS`.
    """
    # A worker must import the modules of the archive, not those of a checkout. The file alone configures the server.
    ours = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "TS_CONFIG_FILE")}
    logs = str(directory / "logs")
    waiting = {} if any(name in {**ours, **changes} for name in WAITING) else {"GOMP_SPINCOUNT": SPINS}
    return {
        **ours,
        **waiting,
        "JAVA_HOME": str(java_home()),
        "TMPDIR": str(directory / "tmp"),
        "LOG_LOCATION": logs,
        "METRICS_LOCATION": logs,
        **changes,
    }


def _torchserve_home() -> Path:
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise ToolError("The package torchserve is not installed.")
    return Path(spec.origin).parent.parent
