"""``vision models``: what is known of the models, from their cards.

This module decides how a card reads. It must not know how a model is run.
"""

from dataclasses import asdict

import typer

from vision_backends.catalog import ModelCard, asset, model_cards
from vision_backends.cli.exits import exit_codes
from vision_backends.cli.options import Debug, Json
from vision_backends.cli.text import dump_json, print_table

__all__ = ["models"]


def models(*, as_json: Json = False, debug: Debug = False) -> None:
    """List the models: task, backend, licence, size, published quality, and whether they are installed."""
    with exit_codes(debug=debug):
        cards = model_cards()
        if as_json:
            for card in cards:
                typer.echo(dump_json({**asdict(card), "installed": _is_installed(card)}))
            return
        print_table(
            ("model", "tasks", "backend", "licence", "size in MB", "installed"),
            [
                (card.name, ", ".join(card.tasks), card.backend, card.licence, _megabytes(card), _installed(card))
                for card in cards
            ],
        )
        typer.echo()
        for card in cards:
            if card.quality is not None:
                quality = card.quality
                typer.echo(f"{card.name}: {quality.metric}: {quality.value:g} ({quality.source})")


def _is_installed(card: ModelCard) -> bool | None:
    """Return whether a shipped file is there; None for a model that is downloaded when it is needed."""
    return None if card.file is None else asset(card.file).is_file()


def _installed(card: ModelCard) -> str:
    return {True: "yes", False: "no", None: "on first use"}[_is_installed(card)]


def _megabytes(card: ModelCard) -> str:
    return "?" if card.size_bytes is None else f"{card.size_bytes / 1e6:.1f}"
