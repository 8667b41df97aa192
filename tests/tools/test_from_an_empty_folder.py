"""The whole way of a user from an empty folder, without a checkout: package, inspect, serve, ask, and Ctrl-C."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
import torch
from PIL import Image

from tests.tools.test_command import PATH, run
from tests.tools.test_inspect import CONFIG, NET
from tests.tools.test_serve import neighbours


def photo():
    """A picture of one colour."""
    picture = io.BytesIO()
    Image.new("RGB", (40, 40), (90, 120, 60)).save(picture, "PNG")
    return picture.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder with a model file, its weights and its configuration."""
    (tmp_path / "model.py").write_text(NET)
    (tmp_path / "config.yaml").write_text(CONFIG)
    names = {}
    exec(NET, names)
    torch.save(names["Net"]().state_dict(), tmp_path / "weights.pt")
    return tmp_path


PACKAGE = ["package", "net", "--architecture", "model.py:Net", "--weights", "weights.pt", "--config", "config.yaml"]
PACKAGE += ["--activation", "softmax"]


def started(folder, *arguments, **environment):
    """The command, running in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "heatserve_tools", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": PATH, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(condition, patience=120):
    """Waits until a condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.server
def test_a_model_is_packaged_inspected_served_and_asked(folder):
    packaged = run(folder, *PACKAGE)
    assert packaged.returncode == 0, packaged.stderr
    assert "\nServe it with: heatserve serve --open\n" in packaged.stdout
    assert sorted(path.name for path in (folder / "model_store").iterdir()) == ["net.mar"]
    inspected = run(folder, "inspect", "model_store/net.mar", "--json")
    assert inspected.returncode == 0 and json.loads(inspected.stdout)["description"]["archive"]["verified"]

    inference, grpc = neighbours(3), neighbours(2)
    server = started(folder, "serve", "--port", str(inference), "--grpc-port", str(grpc))
    lines = []
    try:
        for line in server.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C stops the server."):
                break
        keys = json.loads((folder / "key_file.json").read_text())
        address = f"http://127.0.0.1:{inference}/explanations/net"
        headers = {"Authorization": f"Bearer {keys['inference']['key']}", "Content-Type": "image/png"}
        with urllib.request.urlopen(urllib.request.Request(address, photo(), headers), timeout=60) as answer:
            explanation = json.load(answer)["explanations"][0]
        assert explanation["method"] == "gradcam"
        assert any(line.startswith(f"predictions   http://127.0.0.1:{inference}/") for line in lines)
        assert (folder / "logs" / "serve.log").is_file()
    finally:
        os.killpg(server.pid, signal.SIGINT)
        rest = server.communicate(timeout=60)[0]
    assert server.returncode == 0 and rest.endswith("Stopped.\n"), [*lines, rest]
    assert not (folder / "key_file.json").exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments", [PACKAGE, ["inspect", "model.py:Net", "--config", "config.yaml"]])
def test_ctrl_c_and_an_end_from_outside_leave_nothing(folder, tmp_path_factory, arguments, sent):
    loaded = tmp_path_factory.mktemp("seen") / "loaded"
    (folder / "model.py").write_text(f"{NET}\nimport time\nopen({str(loaded)!r}, 'w').close()\ntime.sleep(600)\n")
    temporary = folder / "tmp"
    temporary.mkdir()
    before = {*folder.iterdir()}
    process = started(folder, *arguments, TMPDIR=str(temporary))
    until(loaded.exists)
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.terminate()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and said.strip().endswith("Aborted!") and "Traceback" not in said
    store = folder / "model_store"
    assert {*folder.iterdir()} - before <= {store} and [*temporary.iterdir()] == []
    assert not store.exists() or [*store.iterdir()] == []
