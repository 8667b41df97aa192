"""Serves the archives of model_store/ in the foreground, configured by config.properties."""

from __future__ import annotations

import signal
from pathlib import Path

import click
from rich.console import Console

from heatserve_tools.packaging import servable
from heatserve_tools.paths import MODEL_STORE, ROOT
from heatserve_tools.torchserve import properties
from heatserve_tools.torchserve.ports import HOST
from heatserve_tools.torchserve.server import Server, ServerError
from heatserve_tools.torchserve.shipped import METRICS, SERVER_CONFIG

KEYS = ROOT / "key_file.json"
LOGS = ROOT / "logs"
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.option("--model", "names", multiple=True, metavar="NAME", help="Serve this one only; may be repeated.")
@click.option("--model-store", type=click.Path(path_type=Path, exists=True, file_okay=False), default=MODEL_STORE)
@click.option("--port", type=int, help="Inference port; management and metrics take the next two. [8080]")
@click.option("--grpc-port", type=int, help="gRPC inference port; gRPC management takes the next. [7070]")
@click.option("--open", "without_tokens", is_flag=True, help="Ask for no tokens; still on loopback only.")
def main(
    names: tuple[str, ...], model_store: Path, port: int | None, grpc_port: int | None, without_tokens: bool
) -> None:
    """Serve the archives of model_store/ until Ctrl-C.

    What cannot be served is named and left out, unless it was asked for by --model.
    """
    archives = {path.stem: path for path in sorted(model_store.glob("*.mar"))}
    unknown = [name for name in names if name not in archives]
    if unknown or not archives:
        there = f"there are: {', '.join(archives)}" if archives else "scripts/package makes one"
        raise click.ClickException(f"No archive {' '.join(unknown) or '*'}.mar in {model_store} ({there}).")
    chosen = {name: archives[name] for name in names or archives}
    troubles = {name: trouble for name, path in chosen.items() if (trouble := servable.trouble(path))}
    named = [f"{name}.mar {trouble}" for name, trouble in troubles.items()]
    if troubles and (names or len(troubles) == len(chosen)):
        raise click.ClickException("\n".join(["Nothing is served.", *named]))
    console = Console(emoji=False)
    for line in named:
        console.print(f"not served    {line}", highlight=False, markup=False, soft_wrap=True)
    chosen = {name: path for name, path in chosen.items() if name not in troubles}
    settings = properties.read(SERVER_CONFIG)
    settings.update(_changes(port, grpc_port, without_tokens))
    LOGS.mkdir(exist_ok=True)
    KEYS.unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = LOGS / "serve.log"
    env = {"LOG_LOCATION": str(LOGS), "METRICS_LOCATION": str(LOGS)}
    try:
        with console.status(f"Starting TorchServe with {', '.join(chosen)} (log: {log})") as status:
            server = Server(chosen, settings, env, log, cwd=ROOT, partly=not names).start()
            status.stop()
            try:
                _announce(console, server)
                server.wait()
            finally:
                server.stop()
        raise click.ClickException(f"TorchServe ended by itself; its log is {log}.")
    except KeyboardInterrupt:
        console.print("Stopped.")
    except ServerError as error:
        raise click.ClickException(str(error)) from None
    finally:
        KEYS.unlink(missing_ok=True)


def _changes(port: int | None, grpc_port: int | None, without_tokens: bool) -> dict[str, str]:
    changes = {"metrics_config": str(METRICS)}
    if not METRICS.exists():
        raise click.ClickException(f"{METRICS.name} is missing from the repository.")
    if port is not None:
        for offset, which in enumerate(("inference", "management", "metrics")):
            changes[f"{which}_address"] = f"http://{HOST}:{port + offset}"
    if grpc_port is not None:
        changes["grpc_inference_port"] = str(grpc_port)
        changes["grpc_management_port"] = str(grpc_port + 1)
    if without_tokens:
        changes["disable_token_authorization"] = "true"
    return changes


def _announce(console: Console, server: Server) -> None:
    model = next(name for name in server.models if name not in server.failed)
    for error in server.failed.values():
        reason = str(error).splitlines()[0]
        console.print(f"not served    {reason}", highlight=False, markup=False, soft_wrap=True)
    token = ""
    if server.key():
        read = 'import json; print(json.load(open("key_file.json"))["inference"]["key"])'
        token = f" -H \"Authorization: Bearer $(python3 -c '{read}')\""
    console.print(f"predictions   {server.inference}/predictions/NAME", highlight=False)
    console.print(f"explanations  {server.inference}/explanations/NAME", highlight=False)
    console.print(f"metrics       {server.metrics}/metrics", highlight=False)
    console.print(f"management    {server.management}/models", highlight=False)
    console.print("\nTry it, here in the repository:", highlight=False)
    console.print(
        f"  curl{token} {server.inference}/explanations/{model} -T PHOTO.jpg",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    console.print("\nCtrl-C stops the server.", highlight=False)


if __name__ == "__main__":
    main(prog_name="scripts/serve")
