"""The command `heatserve`. Each of its commands is imported when it is asked for, and needs click and rich alone to say
its `--help`."""

from __future__ import annotations

import signal
from importlib import import_module

import click
from click.shell_completion import get_completion_class

from heatserve import __version__

NAME = "heatserve"
COMMANDS = ("package", "inspect", "serve", "explain", "demo")
SHELLS = ("bash", "zsh", "fish")


class Commands(click.Group):
    """The group of commands, each one `main` of a module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        command = import_module(f"heatserve_tools.{cmd_name}").main
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=NAME)
def heatserve() -> None:
    """Package, serve and ask image classifiers that show which parts of a picture decided."""


@heatserve.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that lets the Tab key complete commands and options.

    \b
    bash, in ~/.bashrc:   eval "$(heatserve completion bash)"
    zsh, in ~/.zshrc:     eval "$(heatserve completion zsh)"
    fish, once:           heatserve completion fish > ~/.config/fish/completions/heatserve.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(heatserve, {}, NAME, "_HEATSERVE_COMPLETE").source())


def main() -> None:
    """Runs the command that the arguments name."""
    end_as_ctrl_c()
    heatserve(prog_name=NAME)


def end_as_ctrl_c() -> None:
    """Makes SIGTERM and SIGHUP end this process as Ctrl-C does: processes and temporary files are cleaned up.

    `nohup` ignores SIGHUP, and that stays.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) is signal.SIG_DFL:
        signal.signal(hang_up, signal.default_int_handler)
