"""Which models a command is about: those with a card, those that are configured, and any other name on the hub.

This module decides what a name on the command line means. It must not know what is done with the model.
"""

from __future__ import annotations

import difflib
from contextlib import closing
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

from vision_backends.backends.model_cards import ModelCard, asset, flaw_of_asset, model_cards
from vision_backends.errors import InvalidRequestError, NotReadyError
from vision_backends.installing import pip_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vision_backends.backends.local.hub.hub import HuggingFaceHub
    from vision_backends.backends.local.hub.progress import Progress
    from vision_backends.backends.local.hub.source import Source
    from vision_backends.backends.local.hub.verify import FileCheck
    from vision_backends.backends.local.installed import Holding

__all__ = ["Entry", "Inventory", "complete_names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model that a command is about.

    Attributes:
        name: As it is configured, or as its card has it.
        source: Where it comes from; None for one that ships with the package.
        card: What is known of it; None for one without a card.
        roles: The keys of ``[local]`` that name it, such as ``"caption_model"``, and those of other local rungs, such
            as ``"backends.tiny.caption_model"``.
    """

    name: str
    source: Source | None
    card: ModelCard | None
    roles: tuple[str, ...] = ()

    @property
    def named_by(self) -> str:
        """What of the configuration names it: ``[local] caption_model, [backends.tiny] caption_model``."""
        parted = [role.rpartition(".") for role in self.roles]
        return ", ".join(f"[{table or 'local'}] {key}" for table, _, key in parted)


class Inventory:
    """All models that are known, and the hub that they come from.

    Args:
        config: The configuration file; None takes the usual one, if it is there.

    Raises:
        ConfigError: The configuration has no meaning.
    """

    def __init__(self, config: Path | None) -> None:
        from vision_backends.backends.local.hub.hub import HuggingFaceHub
        from vision_backends.backends.local.hub.source import Source

        self._parse = Source.parse
        self.hub: HuggingFaceHub = HuggingFaceHub()
        self._cards = model_cards()
        self._configured = _configured_models(config)

    @cached_property
    def entries(self) -> list[Entry]:
        """Every card and every configured model; a card whose model is configured with a revision stands under that."""
        names = {card.name: None for card in self._cards} | dict.fromkeys(self._configured)
        entries = [self._entry(name) for name in names]
        pinned = {entry.card.name for entry in entries if entry.card and entry.card.name != entry.name}
        return [entry for entry in entries if entry.roles or entry.name not in pinned]

    @property
    def configured(self) -> list[Entry]:
        """The models that the local rung would use."""
        return [entry for entry in self.entries if entry.roles]

    def find(self, name: str) -> Entry:
        """Return what a name means: a short or full name of a card, a folder, or a model of the hub."""
        stem, at, revision = name.partition("@")
        card = next((card for card in self._cards if stem.lower() in {card.alias, card.name.lower()}), None)
        return self._entry(f"{card.name}{at}{revision}" if card else name)

    def hold(self, entry: Entry) -> Holding:
        """Look what of it is on this machine."""
        from vision_backends.backends.local.installed import Holding, find_holding

        if entry.source is not None:
            return find_holding(entry.source, self.hub)
        card = entry.card
        file = asset(card.file or "") if card else asset("")
        if card is None or not file.is_file():
            return Holding(state="absent")
        size_bytes = file.stat().st_size
        return Holding(state="installed", folder=file.parent, revision=card.revision, size_bytes=size_bytes)

    def verify(self, entry: Entry, held: Holding, progress: Progress) -> Iterator[FileCheck]:
        """Compare every file of a model with its checksum.

        Args:
            entry: The model.
            held: What `hold` has found of it.
            progress: Is told how much has been read.
        """
        from vision_backends.backends.local.hub.verify import FileCheck, verify_files

        card = entry.card
        if held.folder is None:
            detail = "only a part of it has been fetched" if held.state == "partly" else "it is not on this machine"
            yield FileCheck(file="-", state="missing", detail=detail)
        elif entry.source is None and card is not None:
            flaw = flaw_of_asset(card)
            detail = flaw or f"sha256 {str(card.sha256)[:12]}"
            yield FileCheck(
                file=str(card.file), state="damaged" if flaw else "sound", detail=detail, size_bytes=held.size_bytes
            )
        else:
            good = True
            for verdict in verify_files(held.folder, progress=progress):
                good = good and verdict.good
                yield verdict
            if good and held.state == "partly":  # no file tells of another that is not there, such as config.json
                yield FileCheck(file="-", state="missing", detail=str(held.flaw))

    def check_hub(self) -> None:
        """Return if models can be fetched and removed.

        Raises:
            NotReadyError: huggingface_hub is not installed.
        """
        if not self.hub.usable:
            message = "Models of the hub need huggingface_hub, which is not installed."
            raise NotReadyError(
                message, remedy=f"Run: {pip_command('vision-backends[local]')}", code="missing_packages"
            )

    def nearest(self, name: str) -> str | None:
        """Return the known name that is most like another one."""
        known = {word: card.name for card in self._cards for word in (card.alias, card.name.lower())}
        found = difflib.get_close_matches(name.lower(), known, n=1)
        return known[found[0]] if found else None

    def _entry(self, name: str) -> Entry:
        card = next((card for card in self._cards if card.name == name.partition("@")[0]), None)
        shipped = card is not None and card.file is not None
        if shipped and "@" in name:
            raise InvalidRequestError(f"{name.partition('@')[0]} ships with the package and has one revision only.")
        source = None if shipped else self._parse(name)
        return Entry(name=name, source=source, card=card, roles=tuple(self._configured.get(name, ())))


def complete_names(begun: str) -> list[str]:
    """Return the names that a shell may offer: short ones, and full ones once somebody has typed a slash."""
    cards = model_cards()
    names = [card.name for card in cards] if "/" in begun else [card.alias for card in cards]
    return [name for name in names if name.lower().startswith(begun.lower())]


def _configured_models(config: Path | None) -> dict[str, list[str]]:
    """Return the models of all local rungs, defaults included, each with the keys that name it."""
    from vision_backends.backends.registry import make_backend
    from vision_backends.config.loading import load_settings
    from vision_backends.health.budgets import Limits

    found: dict[str, list[str]] = {}
    settings, limits = load_settings(config), {spec.name for spec in fields(Limits)}
    for name in settings.rungs_of("local"):
        table = {key: value for key, value in settings.table(name).items() if key not in limits}
        within = "" if name == "local" else f"backends.{name}."
        with closing(make_backend(name, table)) as backend:
            for role, facts in backend.status().items():
                found.setdefault(facts["model"], []).append(f"{within}{role}_model")
    return found
