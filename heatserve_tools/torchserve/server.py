"""One TorchServe server of one's own: its process, ports and files, from start to end.

The frontend's jar is started directly. The `torchserve` launcher would put another Python process between us
and Java (which outlives it), and leave a process-id file where all servers of a machine look for it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from heatserve_tools.torchserve import ports, properties, server_log
from heatserve_tools.torchserve.java import java_home
from heatserve_tools.torchserve.ports import HOST
from heatserve_tools.torchserve.processes import ProcessGroup
from heatserve_tools.torchserve.shipped import METRICS, SERVER_CONFIG

#: Seconds that the processes of a server that has ended may take to write their last lines.
LAST_WORDS = 10.0


class ServerError(RuntimeError):
    """TorchServe did not start, or a model of it did not load. The message carries the log's useful lines."""


class Server:
    """A TorchServe that runs while the `with` block does, on free loopback ports and in its own directory.

    Args:
        models: names and their archives (or unpacked archives), or a folder of archives.
        config_overrides: settings of `config.properties`, above those for a private server.
        env: environment variables for the server and its workers, above this process's own.
        log_to: where the log is written and stays; by default it lies in the server's own directory.
        cwd: where TorchServe writes `key_file.json` when tokens are on; by default its own directory.
        start_timeout: seconds until every model must be ready.
        jvm: options for Java.
        partly: whether to go on without models that do not load, as long as one does; `failed` says which and why.
            TorchServe tries them again by itself, with growing pauses.
    """

    def __init__(
        self,
        models: Mapping[str, Path] | Path,
        config_overrides: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        log_to: Path | None = None,
        *,
        cwd: Path | None = None,
        start_timeout: float = 180.0,
        jvm: tuple[str, ...] = (),
        partly: bool = False,
    ):
        self.models = _archives(models)
        self._overrides = dict(config_overrides or {})
        self._env = dict(env or {})
        self._log_to = log_to
        self._cwd = cwd
        self._start_timeout = start_timeout
        self._jvm = jvm
        self._partly = partly
        self.failed: dict[str, ServerError] = {}
        self._group: ProcessGroup | None = None
        self._last_log = ""

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Server:
        """Starts the server and waits until every model is ready; ServerError with the reason otherwise."""
        try:
            try:
                self._launch()
            except _PortTaken:
                self.stop()
                self._launch()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends the server and its workers and removes its directory. Harmless when repeated."""
        if self._group is None:
            return
        self._group.stop()
        self._last_log = self.log()
        self._group = None
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.stop)

    @property
    def inference(self) -> str:
        """The address of predictions and explanations."""
        return self.config["inference_address"]

    @property
    def management(self) -> str:
        """The address of the management API. Never ask it for `?customized=true` (continuous batching)."""
        return self.config["management_address"]

    @property
    def metrics(self) -> str:
        """The address of the metrics API; the metrics themselves are at /metrics."""
        return self.config["metrics_address"]

    @property
    def grpc_inference(self) -> int:
        """The port of the gRPC inference service."""
        return int(self.config["grpc_inference_port"])

    @property
    def pid(self) -> int:
        """The process id of the frontend (Java)."""
        return self._running().pid

    def log(self) -> str:
        """All that the server and its workers have written so far."""
        if self._group is None:
            return self._last_log
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def worker_pids(self, model: str) -> list[int]:
        """The process ids of a model's workers."""
        return [int(worker["pid"]) for worker in self._workers(model)]

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value, summed over the samples that have these labels; 0 where there is none yet."""
        text = requests.get(f"{self.metrics}/metrics", timeout=10).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return float(sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items()))

    def key(self, of: str = "inference") -> str | None:
        """The token of an API (`inference`, `management` or `API`), None where authorization is off."""
        if self.config.get("disable_token_authorization") == "true":
            return None
        keys = json.loads((self._working_directory / "key_file.json").read_text())
        return str(keys[of]["key"])

    def wait_ready(self, model: str, timeout: float = 60.0) -> None:
        """Waits until all workers of a model are ready.

        Raises ServerError when the server has ended, the model failed to load, or the time is over. A failure
        counts while the server starts: later TorchServe starts a worker again, and the time alone decides.
        """
        deadline = time.monotonic() + timeout
        ask, loads = 0.0, 0
        while True:
            log = self.log()
            # The log says at no cost when it is worth asking; every question is a line in the access log.
            loaded = server_log.loads(log, model)
            if loaded != loads or time.monotonic() > ask:
                if self._is_ready(model):
                    self._started.add(model)
                    return
                ask, loads = time.monotonic() + 1.0, loaded
            if not self._running().alive():
                # What it wrote last came after the log was read, or comes from what it started.
                self._running().wait_for_all(LAST_WORDS)
                log = self.log()
                failure = _PortTaken if "Address already in use" in log else ServerError
                raise failure(server_log.explain("TorchServe ended while it was starting", log))
            if model not in self._started and server_log.load_failed(log, model):
                raise ServerError(server_log.explain(f"Model {model!r} did not load", self._quiet_log(), model=model))
            if time.monotonic() > deadline:
                late = f"Model {model!r} was not ready after {timeout:.0f} s"
                raise ServerError(server_log.explain(late, log, model=model))
            time.sleep(0.05)

    def _quiet_log(self) -> str:
        """The log, once nothing has been written for a moment: a traceback's last lines come after the failure does."""
        deadline, log = time.monotonic() + LAST_WORDS, ""
        while log != (log := self.log()) and time.monotonic() < deadline:
            time.sleep(0.3)
        return log

    def wait(self) -> None:
        """Waits until the server ends of itself."""
        while self._running().alive():
            time.sleep(0.2)

    def _launch(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="heatserve-", dir=_short_temporary_folder()))
        self._working_directory = self._cwd or self.directory
        self._log_path = (self._log_to or self.directory / "server.log").resolve()
        self._started: set[str] = set()
        for folder in ("models", "tmp", "logs"):
            (self.directory / folder).mkdir()
        for name, archive in self.models.items():
            suffix = "" if archive.is_dir() else ".mar"
            (self.directory / "models" / f"{name}{suffix}").symlink_to(archive.resolve())
        self.config = self._configuration()
        properties.write(self.directory / "config.properties", self.config)
        # Before the process exists: an interrupt in between must find somebody who cleans up.
        atexit.register(self.stop)
        deadline = time.monotonic() + self._start_timeout
        with open(self._log_path, "wb") as output:
            self._group = ProcessGroup(
                self._command(),
                output=output,
                cwd=self._working_directory,
                env=self._environment(),
                scratch=self.directory,
            )
        self.failed = {}
        for model in self.models:
            try:
                self.wait_ready(model, deadline - time.monotonic())
            except ServerError as error:
                self.failed[model] = error
                if not (self._partly and self._running().alive()):
                    raise
        # TorchServe tries again by itself, and may have succeeded while the other models were waited for.
        late = {model for model in self.failed if self._is_ready(model)}
        self._started |= late
        self.failed = {model: error for model, error in self.failed.items() if model not in late}
        if self.failed and len(self.failed) == len(self.models):
            raise [*self.failed.values()][-1]

    def _configuration(self) -> dict[str, str]:
        inference, management, metrics, grpc, grpc_management = ports.free(5)
        store = self.directory / "models"
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
            # The collector of system metrics is another Python process, at the start and every minute.
            "disable_system_metrics": "true",
        }
        # The memory that the shipped server has: a test or a measurement should not find more.
        if vmargs := properties.read(SERVER_CONFIG).get("vmargs"):
            private["vmargs"] = vmargs
        if METRICS.exists():
            private["metrics_config"] = str(METRICS)
        always = {
            "model_store": str(store),
            "load_models": ",".join(f"{path.stem}={path.name}" for path in sorted(store.iterdir())),
        }
        return {**private, **self._overrides, **always}

    def _command(self) -> list[str]:
        spec = find_spec("ts")
        if spec is None or spec.origin is None:
            raise ServerError("The package torchserve is not installed.")
        home = Path(spec.origin).parent.parent
        # `vmargs` is the launcher's to read; here Java gets them directly.
        return [
            str(java_home() / "bin" / "java"),
            f"-Dmodel_server_home={home}",
            f"-Djava.io.tmpdir={self.directory / 'tmp'}",
            *self.config.get("vmargs", "").split(),
            *self._jvm,
            "-cp",
            str(home / "ts" / "frontend" / "*"),
            "org.pytorch.serve.ModelServer",
            "--python",
            sys.executable,
            "-f",
            str(self.directory / "config.properties"),
            "-ncs",
        ]

    def _environment(self) -> dict[str, str]:
        # A worker must import what is in the archive, not this checkout; only our file configures the server.
        ours = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "TS_CONFIG_FILE")}
        logs = str(self.directory / "logs")
        return {
            **ours,
            "JAVA_HOME": str(java_home()),
            "TMPDIR": str(self.directory / "tmp"),
            "LOG_LOCATION": logs,
            "METRICS_LOCATION": logs,
            **self._env,
        }

    def _running(self) -> ProcessGroup:
        if self._group is None:
            raise ServerError("The server is not running.")
        return self._group

    def _describe(self, model: str) -> dict[str, Any] | None:
        with contextlib.suppress(requests.RequestException, ValueError, OSError):
            key = self.key("management")
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            answer = requests.get(f"{self.management}/models/{model}", headers=headers, timeout=5)
            if answer.ok:
                return dict(answer.json()[0])
        return None

    def _workers(self, model: str) -> list[dict[str, Any]]:
        description = self._describe(model)
        return list(description["workers"]) if description else []

    def _is_ready(self, model: str) -> bool:
        description = self._describe(model)
        if description is None:
            return False
        workers = description["workers"]
        return len(workers) >= max(1, int(description["minWorkers"])) and all(
            worker["status"] == "READY" for worker in workers
        )


class _PortTaken(ServerError):
    pass


def _archives(models: Mapping[str, Path] | Path) -> dict[str, Path]:
    if isinstance(models, Path):
        models = {archive.stem: archive for archive in sorted(models.glob("*.mar"))}
    missing = [str(path) for path in models.values() if not Path(path).exists()]
    if missing:
        raise ServerError(f"There is no archive {', '.join(missing)}.")
    return {name: Path(path) for name, path in models.items()}


def _short_temporary_folder() -> str | None:
    # The path of a worker's Unix socket lies in here and may have some hundred characters.
    return None if len(tempfile.gettempdir()) < 50 else "/tmp"
