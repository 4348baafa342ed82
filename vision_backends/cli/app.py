"""The commands of ``vision``, put together.

This module decides what commands there are, and how help groups and names them. A command is a function in a module of
its own that takes one of the records of `options`, made for Typer by `options.command`; name it here.
"""

from typing import Annotated

import typer

from vision_backends.cli.lazy_command import LazyCommand, lazy_group

__all__ = ["app"]

COMMANDS = {
    "Ask about images": (
        ("describe", "describe", "Describe images in words."),
        ("ask", "ask", "Ask one question about one or several images together."),
        ("detect", "detect", "Find objects in images, each with a box and a score."),
        ("embed", "embed", "Turn images or texts into vectors that can be compared."),
    ),
    "Find photos": (
        ("index", "search", "Make photos searchable: those in folders and all folders below them."),
        ("search", "search", "Search the indexed photos by words, or by a photo."),
        ("dedupe", "search", "List photos that exist more than once; nothing is removed."),
    ),
    "Manage the installation": (
        (
            "init",
            "init",
            "Look at what is available, propose a ladder with the reason for every rung, and write it to a file.",
        ),
        (
            "status",
            "status",
            "Show the state of backends, gates and budgets; with --task, what would happen now, and why.",
        ),
        (
            "usage",
            "usage",
            "Show calls, tokens, cost, cache hits and fallbacks by day (UTC) and model, and how far budgets are spent.",
        ),
        ("logs", "logs", "Show what was asked and said, where logs.enabled = true keeps it."),
        ("reset", "reset", "Ask a backend, or all of them, again immediately: after topping up or correcting a key."),
        ("doctor", "doctor", "Check the installation, and name the command that fixes what is missing."),
        (
            "config",
            "config",
            "Print every setting in force as TOML for vision.toml, without secrets, with its default and its origin.",
        ),
        ("trust", "trust", "Let a vision.toml that you have read set everything, until its content changes."),
        ("cache", "cache", "Show or clear the cached answers."),
        ("models", "models", "List, fetch, check and remove models."),
    ),
    "Develop": (
        (
            "sandbox",
            "sandbox",
            "Run a local OpenAI-compatible server that answers for free and fails on demand, until Ctrl-C.",
        ),
        ("new-backend", "new_backend", "Write a backend of your own and its tests, as a package to begin with."),
        ("bench", "bench", "Measure how much worse, slower and cheaper the fallback is, on your own images."),
    ),
}
"""The panels of the help, and what it says of each command: name, module and the first sentence of its own help."""

app = typer.Typer(
    name="vision",
    cls=lazy_group(
        LazyCommand(name, f"vision_backends.cli.commands.{module}:{name.replace('-', '_')}", help=sentence, panel=panel)
        for panel, rows in COMMANDS.items()
        for name, module, sentence in rows
    ),
    help="Describe, embed and detect images with the best backend that can answer right now.",
    epilog="Exit codes: 0 answered, 2 usage or bad input, 3 no backend could answer, 4 only some inputs were answered.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
