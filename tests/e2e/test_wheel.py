"""The wheel in new environments without this checkout, as `pip install heatserve` gives it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import torch
from PIL import Image

from devtools import release
from devtools.paths import ROOT
from tests.environments import Environment, make

pytestmark = pytest.mark.server

MODEL = """
import torch


class Small(torch.nn.Sequential):
    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(3, 8, 3, stride=4),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 3),
        )
"""
#: Prints the files of all modules of heatserve, with the tools, and of what they have imported of this checkout.
WHERE = """
import importlib, pkgutil, sys
import heatserve, heatserve_tools
for package in (heatserve, heatserve_tools):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith("heatserve_tools.demo.lite0.") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(*sorted(module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)), sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = release.checkout(ROOT, tmp_path_factory.mktemp("source"))
    return release.build(source, tmp_path_factory.mktemp("built")).wheel


@pytest.fixture(scope="module")
def serving(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with heatserve[serve]; a network, its weights and a picture lie in its home."""
    environment = make(tmp_path_factory.mktemp("serving"), wheel, ["serve"])
    home = environment.home
    (home / "network.py").write_text(MODEL)
    names: dict[str, type[torch.nn.Module]] = {}
    exec(MODEL, names)
    torch.manual_seed(0)
    torch.save(names["Small"]().state_dict(), home / "small.pt")
    (home / "labels.txt").write_text("cat\ndog\ncow\n")
    Image.effect_noise((320, 240), 60).convert("RGB").save(home / "noise.png")
    return environment


@pytest.fixture(scope="module")
def packaged(serving: Environment) -> Path:
    weights = (
        "--architecture",
        "network.py:Small",
        "--weights",
        "small.pt",
        "--labels",
        "labels.txt",
        "--activation",
        "softmax",
    )
    done = serving.run("heatserve", "package", "small", *weights)
    assert done.returncode == 0, done.stderr
    (archive,) = serving.home.rglob("small.mar")
    return archive


@contextlib.contextmanager
def server(environment: Environment) -> Iterator[str]:
    """`heatserve serve` on free ports, for as long as the `with` block takes. It gives the address."""
    port, grpc = neighbours(3), neighbours(2)
    command = environment.command("heatserve", "serve", "--open", "--port", port, "--grpc-port", grpc)
    with open(environment.home / "said.txt", "wb") as said:
        process = subprocess.Popen(
            command, cwd=environment.home, env=environment.variables, stdout=said, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while b"/explanations/small" not in (environment.home / "said.txt").read_bytes():
            assert process.poll() is None and time.monotonic() < deadline, (environment.home / "said.txt").read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        ended = process.wait(60)
    assert ended == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/ping", timeout=5)


def neighbours(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            sockets[0].bind(("127.0.0.1", 0))
            first = int(sockets[0].getsockname()[1])
            for offset, other in enumerate(sockets[1:], 1):
                other.bind(("127.0.0.1", first + offset))
            return first


def test_models_are_inspected_without_a_server_and_without_torchserve(
    wheel: Path, packaged: Path, serving: Environment, tmp_path: Path
) -> None:
    environment = make(tmp_path, wheel, ["model"])
    assert environment.run("python", "-c", "import ts").returncode == 1
    for target in (packaged, f"{serving.home / 'network.py'}:Small"):
        done = environment.run("heatserve", "inspect", target)
        assert done.returncode == 0, done.stderr
        assert "gradcam" in done.stdout and "smoothgrad" in done.stdout


def test_a_packaged_model_is_served_and_asked(serving: Environment, packaged: Path) -> None:
    with server(serving) as url:
        done = serving.run("heatserve", "explain", "noise.png", "--url", url, "--model", "small", "--method", "cam")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("noise.png: ") and "  cam of " in done.stdout
        (overlay,) = serving.home.glob("noise-small-cam-*.png")
        assert Image.open(overlay).size == (320, 240)
        code = f"import heatserve.client as c; print(c.Client({url!r}, 'small').explain('noise.png').map.shape)"
        assert serving.run("python", "-c", code).stdout.strip() == "(240, 320)"


def test_every_module_comes_from_the_new_environment(serving: Environment) -> None:
    done = serving.run("python", "-c", WHERE)
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    ours = [file for file in files if {"heatserve", "heatserve_tools", "devtools"} & set(file.parts)]
    assert len(ours) > 80
    assert all(file.is_relative_to(serving.folder) for file in ours)
    sources = (ROOT / "handlers", ROOT / "heatserve_tools", ROOT / "devtools")
    assert not [file for file in files if any(file.is_relative_to(source) for source in sources)]


def test_the_archive_is_the_one_that_the_checkout_makes(serving: Environment, packaged: Path, tmp_path: Path) -> None:
    import sys

    home = serving.home
    weights = ("--architecture", home / "network.py:Small", "--weights", home / "small.pt")
    command = [sys.executable, "-m", "heatserve_tools", "package", "small", *weights]
    command += ["--activation", "softmax", "--labels", home / "labels.txt", "--export-path", tmp_path]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "small.mar").read_bytes() == packaged.read_bytes()


@pytest.fixture(scope="module")
def client(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with heatserve and no extra: torch is not there."""
    return make(tmp_path_factory.mktemp("client"), wheel)


def test_a_mere_client_asks_without_torch(client: Environment) -> None:
    assert client.run("python", "-c", "import torch").returncode == 1
    assert client.run("python", "-c", "import heatserve.client").returncode == 0
    for arguments in (["--help"], ["explain", "--help"]):
        done = client.run("heatserve", *arguments)
        assert done.returncode == 0 and "Usage: heatserve" in done.stdout
    done = client.run("heatserve", "explain", "none.png", "--model", "m", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1 and "none.png: No such file" in done.stderr


@pytest.mark.parametrize("command", ["package", "inspect", "serve", "demo"])
def test_a_command_whose_extra_is_missing_says_how_to_get_it(client: Environment, command: str) -> None:
    (client.home / "a.pt").write_bytes(b"")
    arguments = {
        "package": ["net", "--architecture", "torchvision.models:resnet18", "--weights", "a.pt"],
        "inspect": ["torchvision.models:resnet18"],
    }
    done = client.run("heatserve", command, *arguments.get(command, []))
    assert done.returncode not in (0, 2)
    extra = {"inspect": "model", "demo": "all"}.get(command, "serve")
    assert "Traceback" not in done.stderr and f"pip install 'heatserve[{extra}]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
