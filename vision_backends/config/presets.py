"""What is known of servers that speak OpenAI's language, by the name that ``preset`` gives: rows of ``presets.toml``.

This module decides what a row may say, and where its own key may go. It must not know how a server is asked, nor what
becomes of what it refuses.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.arguments import did_you_mean, shown
from vision_backends.config.web_address import goes_in_the_clear, is_same_server, origin_of
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from vision_backends.config.web_address import Origin

__all__ = ["Preset", "find_preset", "presets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One server, or one program that people run as a server.

    Attributes:
        name: What ``preset`` says.
        title: What people call it.
        source: Where its maker says so.
        seen: The day on which the source said so; of a page without a date, the day on which a copy of it was read.
        base_url: Where its API begins; None where each customer has an address of their own.
        key_variables: The variables that its maker reads a key from, the usual one first.
        needs_key: Whether it answers nobody without a key.
        address_variable: A variable that says where the key of ``key_variables`` is for, if it is set.
        has_default_models: Whether the models of ``[openai]`` are its own, so that none need be named.
        sees: Regular expression for the names of its models that look at images; None where that is known of none.
        embeds: What its ``/embeddings`` takes.
        chat_refuses: Fields of ``dialect.py`` that its Chat Completions refuses.
        embeddings_refuse: Fields of ``dialect.py`` that its ``/embeddings`` refuses.
        texts_per_call: Most texts of one request for embeddings; None where it is no fewer than OpenAI's.
        free: Regular expression for the names of its models that nobody pays for on this machine; None where somebody
            pays, or a proxy may.
        error_codes: Its own error codes → kind of error, over the table of ``errors.py``.
        retired: The day from which it answers nobody any more.
    """

    name: str
    title: str
    source: str
    seen: date
    base_url: str | None = None
    key_variables: tuple[str, ...] = ()
    needs_key: bool = False
    address_variable: str | None = None
    has_default_models: bool = False
    sees: str | None = ""
    embeds: Literal["nothing", "texts", "images"] = "texts"
    chat_refuses: tuple[str, ...] = ()
    embeddings_refuse: tuple[str, ...] = ()
    texts_per_call: int | None = None
    free: str | None = None
    error_codes: Mapping[str, str] = field(default_factory=dict)
    retired: date | None = None

    @property
    def origin(self) -> Origin | None:
        """Its server; None where each customer has one of their own."""
        return None if self.base_url is None else origin_of(self.base_url)

    @property
    def is_on_this_machine(self) -> bool:
        """Whether people run it beside what asks it. What it does with a picture is another question."""
        return self.origin is not None and self.origin.is_this_machine

    @property
    def refuses(self) -> dict[str, tuple[str, ...]]:
        """The fields that it refuses, by endpoint."""
        return {"chat": self.chat_refuses, "embeddings": self.embeddings_refuse}

    def looks_with(self, model: str) -> bool:
        """Return whether a model of this name looks at images, as far as names tell."""
        return self.sees is not None and re.search(self.sees, model) is not None

    def is_free(self, model: str) -> bool:
        """Return whether nobody pays for a model of this name, where the server runs on this machine."""
        return self.free is not None and re.search(self.free, model) is not None

    def is_at(self, server: Origin | None) -> bool:
        """Return whether a server is the one that this row is about; each is, where each customer has their own."""
        return self.origin is None or is_same_server(self.origin, server)

    def demands_key_at(self, server: Origin | None) -> bool:
        """Return whether a server answers nobody without a key."""
        return self.needs_key and self.is_at(server)

    def key_variable_for(self, server: Origin | None) -> str | None:
        """Return the variable whose key may go to a server; None where there is none, or it is for another server.

        It is the first that is set, or else the usual one.
        """
        elsewhere = origin_of(os.environ.get(self.address_variable or "", "").strip())
        home = elsewhere or self.origin or server
        if not self.key_variables or server is None or not is_same_server(home, server) or goes_in_the_clear(server):
            return None
        return next((name for name in self.key_variables if os.environ.get(name)), self.key_variables[0])


def presets() -> dict[str, Preset]:
    """Return all presets by name, in the order of the file."""
    text = resources.files("vision_backends.config").joinpath("presets.toml").read_text("utf-8")
    return {name: _read(name, row) for name, row in tomllib.loads(text).items()}


def find_preset(name: object) -> Preset:
    """Return a preset.

    Raises:
        ConfigError: There is none of this name; says the nearest.
    """
    known = presets()
    if isinstance(name, str) and name in known:
        return known[name]
    written = repr(name) if isinstance(name, str) else shown(name)
    otherwise = f"There are: {', '.join(known)}. Any other has a base_url."
    raise ConfigError(
        f"[openai] preset = {written} is unknown.", remedy=did_you_mean(name, known).rstrip() or otherwise
    )


def _read(name: str, row: dict[str, Any]) -> Preset:
    lists = {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
    none = {"sees": None} if row.get("sees") is False else {}
    return Preset(name=name, **{**row, **lists, **none})
