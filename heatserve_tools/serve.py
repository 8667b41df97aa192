"""The command `heatserve serve`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
from rich.console import Console

from heatserve_tools import extras, tool
from heatserve_tools.errors import ToolError
from heatserve_tools.tool import Tool, working

if TYPE_CHECKING:
    from heatserve_tools.torchserve.server import Server

KEYS, LOGS = "key_file.json", "logs"
APIS = ("inference", "management", "metrics")


@click.command(cls=Tool, short_help="Serve archives with TorchServe.")
@click.option("--model", "names", multiple=True, metavar="NAME", help="Serve this one only; may be repeated.")
@tool.folder("--model-store", "model_store", "The folder with the archives.")
@tool.folder("--folder", ".", f"The folder that {KEYS} and {LOGS}/ are written to.")
@click.option(
    "--port",
    type=click.IntRange(1, 65533),
    metavar="PORT",
    help="Inference port; management and metrics take the next two. [8080]",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(1, 65534),
    metavar="PORT",
    help="gRPC inference port; gRPC management takes the next. [7070]",
)
@click.option("--open", "without_tokens", is_flag=True, help="Ask for no tokens; still on loopback only.")
@click.pass_context
def main(
    context: click.Context,
    names: tuple[str, ...],
    model_store: Path,
    folder: Path,
    port: int | None,
    grpc_port: int | None,
    without_tokens: bool,
) -> None:
    """Serve the archives of a folder with TorchServe until Ctrl-C.

    An archive that cannot be served is named and left out, unless --model asks for it.
    """
    extras.need(extras.MODEL, extras.SERVE)
    from heatserve_tools.torchserve.server import Server, ServerError

    console = Console(emoji=False)
    chosen = _chosen(console, names, model_store, context.command_path.removesuffix("serve") + "package")
    settings = _settings(port, grpc_port, without_tokens)
    _check_ports(settings)
    logs = folder / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "serve.log"
    environment = {"LOG_LOCATION": str(logs.resolve()), "METRICS_LOCATION": str(logs.resolve())}
    try:
        with _own(folder, log):
            with working(f"Starting TorchServe with {', '.join(chosen)} (log: {log})"):
                server = Server(chosen, settings, environment, log, cwd=folder, partly=not names).start()
            try:
                _announce(console, server, folder)
                server.wait()
            finally:
                server.stop()
        raise click.ClickException(f"TorchServe ended by itself; its log is {log}.")
    except KeyboardInterrupt:
        console.print("Stopped.")
    except (ServerError, ToolError) as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def _own(folder: Path, log: Path) -> Iterator[None]:
    """The time in which the log and the key file of a folder are this server's. The key file ends with it.

    Raises click.ClickException where another server has them. The lock ends with this process, however that ends.
    """
    import fcntl  # POSIX alone has it, and `heatserve explain` needs none

    with open(log, "ab") as locked:
        try:
            fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(
                f"Another server runs in the folder {folder.resolve()}; --folder names another."
            ) from None
        keys = folder / KEYS
        keys.unlink(missing_ok=True)
        try:
            yield
        finally:
            keys.unlink(missing_ok=True)


def _check_ports(settings: Mapping[str, str]) -> None:
    """Raises click.ClickException for the first port where TorchServe could not listen."""
    from heatserve_tools.torchserve import ports

    apis = [urlsplit(settings[f"{api}_address"]).port or 0 for api in APIS]
    grpc = [int(settings[f"grpc_{api}_port"]) for api in APIS[:2]]
    for option, own, others in (("--port", apis, grpc), ("--grpc-port", grpc, [])):
        for port in own:
            refusal = "is asked for twice" if port in others else ports.refusal(port)
            if refusal:
                raise click.ClickException(f"Port {port} {refusal}; {option} names another.")


def _chosen(console: Console, names: tuple[str, ...], model_store: Path, package: str) -> dict[str, Path]:
    """The archives to serve by their names. Raises click.ClickException where there is none.

    package: the command that makes an archive.
    """
    from heatserve_tools.packaging import servable

    archives = {path.stem: path for path in sorted(model_store.glob("*.mar"))}
    unknown = [name for name in names if name not in archives]
    if unknown or not archives:
        there = f"there are: {', '.join(archives)}" if archives else f"{package} makes one"
        raise click.ClickException(f"No archive {' '.join(unknown) or '*'}.mar in {model_store} ({there}).")
    chosen = {name: archives[name] for name in names or archives}
    troubles = {name: trouble for name, path in chosen.items() if (trouble := servable.trouble(path))}
    named = [f"{name}.mar {trouble}" for name, trouble in troubles.items()]
    if troubles and (names or len(troubles) == len(chosen)):
        raise click.ClickException("\n".join(["Nothing is served.", *named]))
    for line in named:
        console.print(f"not served    {line}", highlight=False, markup=False, soft_wrap=True)
    return {name: path for name, path in chosen.items() if name not in troubles}


def _settings(port: int | None, grpc_port: int | None, without_tokens: bool) -> dict[str, str]:
    """The shipped configuration with the changes that the options ask for."""
    from heatserve_tools.torchserve import properties
    from heatserve_tools.torchserve.ports import HOST
    from heatserve_tools.torchserve.shipped import METRICS, SERVER_CONFIG

    settings = {**properties.read(SERVER_CONFIG), "metrics_config": str(METRICS)}
    if port is not None:
        for offset, api in enumerate(APIS):
            settings[f"{api}_address"] = f"http://{HOST}:{port + offset}"
    if grpc_port is not None:
        settings["grpc_inference_port"] = str(grpc_port)
        settings["grpc_management_port"] = str(grpc_port + 1)
    if without_tokens:
        settings["disable_token_authorization"] = "true"
    return settings


def _announce(console: Console, server: Server, folder: Path) -> None:
    """Prints the models that failed, the addresses, and a line to try."""
    for error in server.failed.values():
        reason = str(error).splitlines()[0]
        console.print(f"not served    {reason}", highlight=False, markup=False, soft_wrap=True)
    token = ""
    if server.key():
        read = 'import json; print(json.load(open("key_file.json"))["inference"]["key"])'
        token = f" -H \"Authorization: Bearer $(python3 -c '{read}')\""
    served = [name for name in server.models if name not in server.failed]
    console.print(f"models        {', '.join(served)}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"predictions   {server.inference}/predictions/NAME", highlight=False)
    console.print(f"explanations  {server.inference}/explanations/NAME", highlight=False)
    console.print(f"metrics       {server.metrics}/metrics", highlight=False)
    console.print(f"management    {server.management}/models", highlight=False)
    here = folder.resolve() == Path.cwd()
    place = f", in {shlex.quote(str(folder.resolve()))}" if token and not here else ""
    console.print(f"\nTry it{place}:", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"  curl{token} {server.inference}/explanations/{served[0]} -T PHOTO.jpg",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    console.print("\nCtrl-C stops the server.", highlight=False)
