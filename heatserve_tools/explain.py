"""The command `heatserve explain`: asks a server about pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from heatserve.client import Client, HeatserveError
from heatserve_tools.overlays import Run, explain_all, printable
from heatserve_tools.tool import FOLDER, Tool

#: The options that the command needs for itself, with the reason that it gives.
RESERVED = {
    "output": "the command writes overlays, and --json prints the answer",
    "stream": "the command waits for the whole answer",
    "picture": "pictures are arguments",
    "self": "the server has no such option",
}


def _options(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE; --describe lists the options.")
        if name in RESERVED:
            raise click.BadParameter(f"{name} cannot be set: {RESERVED[name]}.")
        if name in options:
            raise click.BadParameter(f"{name} is given twice.")
        options[name] = value
    return options


@click.command(cls=Tool, short_help="Ask a server about pictures.")
@click.argument("paths", nargs=-1, metavar="[PICTURE]...", type=click.Path(path_type=Path))
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server's address.")
@click.option("--model", metavar="NAME", help="The model's name. `heatserve serve` prints the names.")
@click.option("--version", help="The model's version.  [default: the server's choice]")
@click.option("--token", envvar="HEATSERVE_TOKEN", help="TorchServe's inference key.")
@click.option("--method", help="gradcam, cam, gradient, smoothgrad and others.")
@click.option("--target", help="A class index or label, predicted, top1 to top10, or present.")
@click.option("--samples", help="The number of noisy copies to average.")
@click.option(
    "-o", "--option", "options", multiple=True, metavar="NAME=VALUE", callback=_options, help="Any other; repeatable."
)
@click.option(
    "--output",
    type=FOLDER,
    metavar="FOLDER",
    help="The folder to write to.  [default: beside the picture]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answers, one a line, and write nothing.")
@click.option("--describe", is_flag=True, help="Print what the model can be asked for.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds to wait without a byte from the server.",
)
def main(
    paths: tuple[Path, ...],
    url: str,
    model: str | None,
    version: str | None,
    token: str | None,
    method: str | None,
    target: str | None,
    samples: str | None,
    options: dict[str, str],
    output: Path | None,
    as_json: bool,
    describe: bool,
    timeout: float,
) -> None:
    """Ask a server for the classes of pictures, and for the parts of them that decided.

    PICTURE is a JPEG, PNG, WebP, GIF, BMP or TIFF file, or a folder of them. The overlay is written beside it as
    PICTURE-MODEL-METHOD-CLASS.png. The overlays of a folder go to its subfolder `explained`. No file is overwritten:
    a new one gets a number.

    A picture that cannot be explained is named at the end, and the exit code is then 1.

    The token may also stand in the environment variable HEATSERVE_TOKEN, which hides it from other users of the
    machine.
    """
    if model is None:
        raise click.UsageError("Which model? Name it by --model NAME; `heatserve serve` prints the names.")
    if not paths and not describe:
        raise click.UsageError("Which picture? Only --describe needs none.")
    named = {"method": method, "target": target, "samples": samples}
    options.update({name: value for name, value in named.items() if value is not None})
    token = token.strip() or None if token else None
    try:
        client = Client(url, model, token, version=version, timeout=timeout)
        if describe:
            click.echo(json.dumps(client.describe(), indent=1))
        run = Run(client, "-".join(part for part in (model, version) if part), options, output, as_json)
        complete = explain_all(run, paths)
    except HeatserveError as error:
        raise click.ClickException(printable(f"{error}\n{_way_out(error, token)}", keep="\n")) from None
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        sys.exit(130)
    if not complete:
        sys.exit(1)


def _way_out(error: HeatserveError, token: str | None) -> str:
    if error.code in (401, 403) or "Token Authorization" in error.message:
        place = "the inference key in key_file.json, in the folder where the server was started"
        if token:
            return f"The server does not take this token. Keys end after an hour, or with the server: see {place}."
        return f"Give a token by HEATSERVE_TOKEN or --token: {place}. `heatserve serve --open` asks for none."
    if error.code == 404:
        return "--model names a model that the server has, and --version its version."
    if error.code == 400:
        return "--describe prints what the model can be asked for."
    return "`heatserve serve` starts a server, and --url names its address."
