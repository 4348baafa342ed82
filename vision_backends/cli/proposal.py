"""A ladder for what was found, with the reason for every rung, and the vision.toml that says so.

This module decides which rungs are proposed, in which order, and in which words. It must not know how anything was
found, nor whether anybody is asked.
"""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.backends.model_cards import ModelCard, model_cards
from vision_backends.cli.rendering.text import bytes_text
from vision_backends.cli.rendering.toml import dotted, toml_value, wrapped
from vision_backends.config.web_address import origin_of
from vision_backends.foreign_text import quote
from vision_backends.installing import pip_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vision_backends.cli.surroundings import Served, Surroundings
    from vision_backends.config.presets import Preset

__all__ = ["ProposedRung", "embedded_rung", "local_rung", "remote_rung", "served_rung", "to_file", "unused"]

DEFAULT_CAPTIONER = "Salesforce/blip-image-captioning-base"

ROOM_BYTES = 1_000_000_000
"""Memory that is left to everything else, torch included, when a local model is loaded."""

WIDTH = 80

MOST_MODELS = 8
"""How many other models of a server are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedRung:
    """One rung that is proposed.

    Attributes:
        name: As the ladder has it.
        reason: Why it is there, in one sentence without a full stop.
        table: What its table sets.
        notes: Comments in its table: what a person may want to set, and why.
        server: Who runs the server that it asks: somebody who is paid for it, or the user; None where it asks none.
    """

    name: str
    reason: str
    table: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    server: Literal["paid", "own"] | None = None


def remote_rung(preset: Preset, variable: str, *, model: str | None = None, key: str | None = None) -> ProposedRung:
    """Return a rung for a provider whose key is in the environment.

    Args:
        preset: The provider.
        variable: The variable that holds the key.
        model: The model to ask, where the provider has no default.
        key: The key itself, if it is to stand in the file.
    """
    table: dict[str, Any] = {} if preset.name == "openai" else {"kind": "openai", "preset": preset.name}
    if preset.base_url is None and preset.address_variable is not None:  # where each customer has an address
        table = {"kind": preset.name, "endpoint": os.environ[preset.address_variable], "deployment": model}
    elif model is not None:
        table["model"] = model
    if key is not None:
        table["api_key"] = key
    reason = f"{preset.title}: {variable} is set{'' if key is None else ', and is written here'}"
    if variable == "OPENAI_BASE_URL":
        reason = f"{origin_of(os.environ[variable].strip()) or 'Another server'}: {variable} names it"
    budget = "daily_budget_usd = 5.0" if preset.name == "openai" else "daily_budget_tokens = 1_000_000"
    return ProposedRung(
        name=preset.name,
        reason=f"{reason}; {quote(model)} has to see images" if model else reason,
        table=table,
        notes=(f"{budget}  # the most that it may cost per day (UTC)",),
        server="paid",
    )


def served_rung(served: Served, *, name: str, model: str | None = None) -> ProposedRung:
    """Return a rung for a server on this machine."""
    chosen = model or served.models[0]
    table: dict[str, Any] = {"kind": "openai"}
    if served.preset is not None:
        table["preset"] = served.preset.name
    if served.preset is None or served.preset.base_url != served.url:
        table["base_url"] = served.url
    table["model"] = chosen
    others = [each for each in served.models[: served.seeing] if each != chosen]
    notes = [f"Also there: {', '.join(map(quote, others[:MOST_MODELS]))}."] if others else []
    notes.append("private = true  # if it sends no picture elsewhere: local_only may ask it then")
    title = served.preset.title if served.preset else "A server"
    sees = "is said to see images" if chosen in served.models[: served.seeing] else "has to see images"
    return ProposedRung(
        name=name,
        reason=f"{title} answers at {origin_of(served.url)}: {quote(chosen)} {sees}",
        table=table,
        notes=tuple(notes),
        server="own",
    )


def local_rung(found: Surroundings) -> ProposedRung | None:
    """Return a rung for models of the hub, or None where their packages or the memory for them are missing."""
    if not found.extras.get("local"):
        return None
    card, is_here = _captioner(found)
    if card is None:
        return None
    table = {} if card.name == DEFAULT_CAPTIONER else {"caption_model": card.name}
    where = f"on {found.gpu}" if found.gpu else "on the CPU"
    what = f"{card.name} describes {where}"
    if not is_here:
        size = f" ({bytes_text(card.size_bytes)})" if card.size_bytes else ""
        return ProposedRung(
            name="local",
            reason=f"{what}; it is fetched{size} when it is first needed",
            table=table,
            notes=('download = "never"  # fetch nothing but by: vision models pull',),
        )
    return ProposedRung(name="local", reason=f"{what}, and is on this machine already", table=table)


def embedded_rung() -> ProposedRung:
    """Return the last rung."""
    return ProposedRung(name="embedded", reason="ships with the package, and always answers")


def unused(found: Surroundings, rungs: Sequence[ProposedRung]) -> Iterator[str]:
    """Yield in a sentence each what was found but has no rung, or what would bring another one."""
    names = {rung.name for rung in rungs}
    for preset, variable in found.keys:
        if preset.name not in names:
            keys = f'model, kind = "openai" and preset = "{preset.name}"'
            if preset.base_url is None:
                keys = f'deployment, endpoint and kind = "{preset.name}"'
            yield (
                f"{preset.title}: {variable} is set, but no model was named. Put {preset.name} on the ladder, and into "
                f"[backends.{preset.name}]: {keys}."
            )
    for served in found.servers:
        if not any(rung.table.get("model") in served.models for rung in rungs):
            hint = " Try: ollama pull qwen3-vl:4b" if served.preset and served.preset.name == "ollama" else ""
            yield f"{origin_of(served.url)} has no model that is known to see images.{hint}"
    if "local" not in names:
        if not found.extras.get("local"):
            yield f"Better models on this machine need: {pip_command('vision-backends[local]')}"
        elif found.free_bytes is not None:
            yield f"No local model fits into the {bytes_text(found.free_bytes)} of memory that are free."


def to_file(rungs: Sequence[ProposedRung], *, about: str, left_out: Sequence[str] = ()) -> str:
    """Return the text of a vision.toml.

    Args:
        rungs: The ladder, best first.
        about: What the file says of itself.
        left_out: What it says of what has no rung.
    """
    lines = [*wrapped(about), "", "# Best first: the next one answers where one cannot.", "ladder = ["]
    for rung in rungs:
        lines += textwrap.wrap(rung.reason, WIDTH, initial_indent="  # ", subsequent_indent="  # ")
        lines.append(f"  {toml_value(rung.name)},")
    lines.append("]")
    for sentence in left_out:
        lines += ["", *wrapped(sentence)]
    for rung in rungs:
        if rung.table or rung.notes:
            lines += ["", *_table(rung)]
    return "\n".join(lines) + "\n"


def _table(rung: ProposedRung) -> Iterator[str]:
    keys = (rung.name,) if "kind" not in rung.table else ("backends", rung.name)
    yield f"[{dotted(keys)}]"
    for key, value in rung.table.items():
        yield f"{dotted([key])} = {toml_value(value)}"
    for note in rung.notes:
        yield from _note(note)


def _note(note: str) -> list[str]:
    """Return a comment; one that is a key with words behind it stays on one line, so that it can be uncommented."""
    return [f"# {note}"] if " = " in note else wrapped(note)


def _captioner(found: Surroundings) -> tuple[ModelCard | None, bool]:
    """Return what is to describe images and fits into memory, and whether it is on this machine.

    Of what is here, the largest on a GPU and the smallest on a CPU, where larger ones take minutes; else the default.
    """
    cards = [card for card in model_cards() if card.backend == "local" and "describe" in card.tasks]
    fitting = [
        card for card in cards if found.free_bytes is None or (card.memory_bytes or 0) + ROOM_BYTES <= found.free_bytes
    ]
    here = [card for card in fitting if card.name in {each.name for each in found.cached}]
    if here:
        choose = max if found.gpu else min
        return choose(here, key=lambda card: card.parameters or 0), True
    return next((card for card in fitting if card.name == DEFAULT_CAPTIONER), None), False
