"""One private TorchServe: its process, ports and files, from start to end.

The frontend's jar is started directly. The `torchserve` launcher would put another Python process between this one
and Java, which outlives it, and leave a process-id file in a place that all servers of a machine share.
"""

from __future__ import annotations

import atexit
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heatserve_tools.torchserve import launch, management, properties, server_log
from heatserve_tools.torchserve.processes import ProcessGroup

#: Seconds that the processes of a server that has ended may take to write their last lines.
LAST_WORDS = 10.0


class ServerError(RuntimeError):
    """TorchServe did not start, or one of its models did not load. The message carries the log's useful lines."""


class Server:
    """A TorchServe that runs while the `with` block does, on free loopback ports and in its own directory.

    models: names and their archives (or unpacked archives), or a folder of archives.
    config_overrides: settings of `config.properties`, above those of a private server.
    env: environment variables for the server and its workers, above those of this process.
    log_to: the path of the log, which stays; by default the log lies in the server's own directory and ends with it.
    cwd: the folder of `key_file.json` when tokens are on; by default the server's own directory.
    start_timeout: the seconds until every model must be ready.
    jvm: options for Java.
    partly: whether to go on without the models that do not load, as long as one does. `failed` has them and the
        reasons. TorchServe tries them again by itself, with growing pauses.
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
        self.models = launch.archives(models)
        missing = [str(path) for path in self.models.values() if not path.exists()]
        if missing:
            raise ServerError(f"There is no archive {', '.join(missing)}.")
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
        return [int(worker["pid"]) for worker in management.workers(self._description(model))]

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
                # Its last lines came after the log was read, or come from processes that it started.
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
        launch.check()
        self.directory = launch.directory()
        self._working_directory = self._cwd or self.directory
        self._log_path = (self._log_to or self.directory / "server.log").resolve()
        self._started: set[str] = set()
        for folder in ("models", "tmp", "logs"):
            (self.directory / folder).mkdir()
        for name, archive in self.models.items():
            suffix = "" if archive.is_dir() else ".mar"
            (self.directory / "models" / f"{name}{suffix}").symlink_to(archive.resolve())
        self.config = launch.configuration(self.directory / "models", self._overrides)
        properties.write(self.directory / "config.properties", self.config)
        # Before the process exists: an interrupt in between must not leave it behind.
        atexit.register(self.stop)
        deadline = time.monotonic() + self._start_timeout
        with open(self._log_path, "wb") as output:
            self._group = ProcessGroup(
                self._command(),
                output=output,
                cwd=self._working_directory,
                env=launch.environment(self.directory, self._env),
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

    def _command(self) -> list[str]:
        return launch.command(self.directory, self.config["vmargs"], self._jvm)

    def _running(self) -> ProcessGroup:
        if self._group is None:
            raise ServerError("The server is not running.")
        return self._group

    def _description(self, model: str) -> dict[str, Any] | None:
        try:
            token = self.key("management")
        except (OSError, ValueError):  # the server has not written its keys yet
            return None
        return management.description(self.management, model, token)

    def _is_ready(self, model: str) -> bool:
        log = self.log()
        # Another server may answer at this address until this one finds its port taken.
        ours = server_log.bound(log) and server_log.loads(log, model) > 0 and self._running().alive()
        return ours and management.is_ready(self._description(model))


class _PortTaken(ServerError):
    """Another process took one of the ports meanwhile."""
