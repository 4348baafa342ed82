"""How a model reads: as a row of a table, as a paragraph, and as JSON.

This module decides what people and programs are told of a model. It must not know any command.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from vision_backends.cli.rendering.text import bytes_text, one_line, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.backends.local.hub.listing import Offer
    from vision_backends.backends.local.installed import Holding
    from vision_backends.cli.inventory import Entry

__all__ = ["SHORT_REVISION", "about_json", "print_models", "print_paragraph"]

SHORT_REVISION = 12

WIDE = 130
"""Columns of a terminal that shows all columns of the table of models side by side."""

WIDTH = 12

Lines = list[tuple[str, str]]
"""What a paragraph says, each with what it is about."""


def print_models(models: Sequence[tuple[Entry, Holding]]) -> None:
    """Print one row per model, and below the table what licences forbid.

    On a narrow terminal names stay whole, so that they can be copied; what they are configured as comes below, and
    revisions are left to ``vision models show``.
    """
    is_narrow = sys.stdout.isatty() and shutil.get_terminal_size().columns < WIDE
    header = ("model", "tasks", "licence", "size", "here", "revision", "configured as")
    rows = [
        (
            entry.name,
            ", ".join(entry.card.tasks) if entry.card else "-",
            _licence(entry),
            _size(entry, held),
            _here(entry, held) if not is_narrow or entry.source else "yes",
            (held.revision or "-")[:SHORT_REVISION],
            ", ".join(entry.roles) or "-",
        )
        for entry, held in models
    ]
    columns = slice(5 if is_narrow else None)
    print_table(header[columns], [row[columns] for row in rows], whole=("model",))
    if is_narrow:
        for entry, _ in models:
            for role in entry.roles:
                typer.echo(one_line(f"{role} = {entry.name}"))
    cards = {entry.card.name: entry.card for entry, _ in models if entry.card and entry.card.restriction}
    for card in cards.values():
        typer.echo(f"* {card.name}: {card.restriction}")


def print_paragraph(entry: Entry, lines: Lines, *, err: bool = False) -> None:
    """Print a name and, indented, what there is to say about it."""
    typer.echo(one_line(entry.name), err=err)
    for about, text in lines:
        typer.echo(f"  {about:<{WIDTH}}{one_line(text)}", err=err)


def lines_of_card(entry: Entry) -> Lines:
    """Return what is known of a model wherever it is."""
    card = entry.card
    lines = [("configured", f"as {entry.named_by}")] if entry.roles else []
    if card is None:
        return lines
    lines += [("for", ", ".join(card.tasks)), ("licence", card.licence)]
    if card.restriction:
        lines.append(("beware", card.restriction))
    facts = {
        "parameters": card.parameters and f"{card.parameters / 1e6:,.0f} million",
        "input": card.input_px and f"{card.input_px} px",
        "vectors": card.dimension and f"{card.dimension} components",
        "memory": card.memory_bytes and f"about {bytes_text(card.memory_bytes)}, in 32-bit floats",
        "download": card.size_bytes and card.file is None and f"about {bytes_text(card.size_bytes)}",
    }
    lines += [(about, text) for about, text in facts.items() if text]
    lines += [("quality", f"{each.value:g} {each.metric} ({each.source})") for each in card.quality]
    return [*lines, ("source", card.source)]


def lines_of_holding(entry: Entry, held: Holding) -> Lines:
    """Return what of a model is on this machine."""
    lines = [("here", f"{_here(entry, held)}{f', {bytes_text(held.size_bytes)}' if held.size_bytes else ''}")]
    if held.revision:
        lines.append(("revision", held.revision))
    if held.folder:
        lines.append(("folder", str(held.folder)))
    if held.flaw:
        lines.append(("flaw", held.flaw))
    return lines


def lines_of_offer(entry: Entry, offer: Offer, *, missing_bytes: int, folder: str, free_bytes: int) -> Lines:
    """Return what somebody has to know before a model is fetched."""
    card = entry.card
    here = (
        f", of which {bytes_text(offer.size_bytes - missing_bytes)} are here"
        if missing_bytes < offer.size_bytes
        else ""
    )
    lines = [("licence", card.licence if card else offer.licence or "not stated by the publisher")]
    if card and card.restriction:
        lines.append(("beware", card.restriction))
    return [
        *lines,
        ("size", f"{bytes_text(offer.size_bytes)}{here}"),
        ("from", f"{offer.address}, {offer.branch}, revision {offer.commit[:SHORT_REVISION]}"),
        ("into", f"{folder}, {bytes_text(free_bytes)} free"),
    ]


def about_json(entry: Entry, held: Holding) -> dict[str, Any]:
    """Return a model for programs: what is here, and its card."""
    return {
        "name": entry.name,
        "configured_as": list(entry.roles),
        "state": held.state,
        "revision": held.revision,
        "folder": held.folder and str(held.folder),
        "size_bytes": held.size_bytes,
        "flaw": held.flaw,
        "card": entry.card and asdict(entry.card),
    }


def _licence(entry: Entry) -> str:
    if entry.card is None:
        return "?"
    return f"{entry.card.licence}{' *' if entry.card.restriction else ''}"


def _size(entry: Entry, held: Holding) -> str:
    """Return the size of what is here, or else of the download."""
    published_bytes = entry.card.size_bytes if entry.card else None
    size_bytes = held.size_bytes if held.state == "installed" else published_bytes or held.size_bytes
    return bytes_text(size_bytes) if size_bytes else "?"


def _here(entry: Entry, held: Holding) -> str:
    """Return where an installed model is, or what hinders it from being that."""
    if held.state != "installed":
        return {"absent": "no"}.get(held.state, held.state)
    if entry.source is None:
        return "in the package"
    return "your folder" if entry.source.folder else "cache"
