"""The commands of ``vision``, put together.

This module decides what commands there are and how help groups them. A command is a function in a module of its
own that takes one of the records of `options`; register it here.
"""

from typing import Annotated

import typer

from vision_backends.cli.commands.ask import describe, detect, embed
from vision_backends.cli.commands.bench import ANYTHING, bench
from vision_backends.cli.commands.cache import cache
from vision_backends.cli.commands.configuration import config
from vision_backends.cli.commands.doctor import doctor
from vision_backends.cli.commands.models import models
from vision_backends.cli.commands.reset import reset
from vision_backends.cli.commands.sandbox import sandbox
from vision_backends.cli.commands.status import status
from vision_backends.cli.commands.trust import trust
from vision_backends.cli.commands.usage import usage
from vision_backends.cli.options import command

__all__ = ["app"]

ASK = "Ask about images"
MANAGE = "Manage the installation"
DEVELOP = "Develop"

app = typer.Typer(
    name="vision",
    help="Describe, embed and detect images with the best backend that can answer right now.",
    epilog="Exit codes: 0 answered, 2 usage or bad input, 3 no backend could answer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(rich_help_panel=ASK)(command(describe))
app.command(rich_help_panel=ASK)(command(detect))
app.command(rich_help_panel=ASK)(command(embed))
app.command(rich_help_panel=MANAGE)(command(status))
app.command(rich_help_panel=MANAGE)(command(usage))
app.command(rich_help_panel=MANAGE)(command(reset))
app.add_typer(cache, name="cache", rich_help_panel=MANAGE)
app.add_typer(models, name="models", rich_help_panel=MANAGE)
app.command(rich_help_panel=MANAGE)(command(doctor))
app.command(rich_help_panel=MANAGE)(command(config))
app.command(rich_help_panel=MANAGE)(command(trust))
app.command(rich_help_panel=DEVELOP)(sandbox)
app.command(rich_help_panel=DEVELOP, context_settings=ANYTHING)(bench)


def _print_version(asked: bool) -> None:  # noqa: FBT001 — Typer fixes the signature
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"vision {version('vision-backends')}")
        except PackageNotFoundError:
            typer.echo("vision, from a source tree that is not installed")
        raise typer.Exit


@app.callback()
def start(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
