"""What can be configured, and which of it a file may set that was only found.

This module decides what the core's own keys are. Each key declares beside its type whether a vision.toml that was found
in the working directory may set it; one that declares nothing may not be set. It must not know where values come from,
nor any backend: the keys of a backend's table are its constructor's keywords, and declare it there.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr

from vision_backends.config.credentials import server_of
from vision_backends.config.found import ONLY_LOWER, OnlyIf
from vision_backends.config.presets import presets
from vision_backends.config.user_folders import user_folder
from vision_backends.config.validation import HiddenTable
from vision_backends.config.web_address import is_web_address

if TYPE_CHECKING:
    from vision_backends.config.presets import Preset
    from vision_backends.config.web_address import Origin
    from vision_backends.types import Task

__all__ = [
    "BUILT_IN",
    "DEFAULT_LADDER",
    "KINDS",
    "LIMITS",
    "RUNG_NAME",
    "CacheSettings",
    "ImageSettings",
    "Settings",
    "Table",
    "class_at",
]

BUILT_IN = {
    "openai": "vision_backends.backends.openai:OpenAIBackend",
    "local": "vision_backends.backends.local:LocalBackend",
    "embedded": "vision_backends.backends.embedded:EmbeddedBackend",
}
"""The backends that come with the package, by the name of their table."""

KINDS = {**BUILT_IN, "azure": "vision_backends.backends.openai:AzureBackend"}
"""What a rung can be besides a backend of somebody else's, by its ``kind``."""

SERVERS = ("openai", "azure")
"""The kinds of rungs that ask a server which speaks OpenAI's language."""

LIMITS = "vision_backends.health.budgets:Limits"
"""What the table of any backend may hold besides; each of them is a limit, and None is none."""

DEFAULT_LADDER = ("openai", "local", "embedded")

RUNG_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""What a rung with a ``kind`` may be called: what variables, traces and commands can all carry."""


def _without_repeats(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("it names a backend twice")
    return names


Names = Annotated[tuple[str, ...], AfterValidator(_without_repeats), Field(json_schema_extra={"uniqueItems": True})]

SomeNames = Annotated[
    tuple[str, ...],
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_without_repeats),
]


def _without_built_in(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name in BUILT_IN:
        if name in tables:
            raise ValueError(f"{name} is configured as [{name}]")
    return tables


def _with_plain_names(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name in tables:
        if not RUNG_NAME.fullmatch(name):
            raise ValueError(f'{name!r} is not a name of lower-case letters, digits, "-" and "_"')
    return tables


class Table(BaseModel):
    """A table of the core's own keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskLadders(Table):
    """One ladder per task; a task that is left out takes the default.

    Attributes:
        describe: Who describes.
        embed: Who embeds images.
        embed_text: Who embeds texts.
        detect: Who detects.
        ask: Who answers questions; by default those who describe.
    """

    describe: Names = DEFAULT_LADDER
    embed: Names = DEFAULT_LADDER
    embed_text: Names = DEFAULT_LADDER
    detect: Names = DEFAULT_LADDER
    ask: Names | None = None

    @property
    def by_task(self) -> dict[Task, tuple[str, ...]]:
        """The ladder of each task."""
        return {
            "describe": self.describe,
            "embed": self.embed,
            "embed_text": self.embed_text,
            "detect": self.detect,
            "ask": self.describe if self.ask is None else self.ask,
        }


class CacheSettings(Table):
    """The ``[cache]`` table.

    Attributes:
        enabled: Whether answers are kept.
        max_bytes: Room for them; the least recently used are evicted first. All folders share the cache, so that a
            file that was found may not empty it.
        tenant: Who shares the answers of servers, in place of those who have the same key.
    """

    enabled: Annotated[bool, ONLY_LOWER] = True
    max_bytes: PositiveInt = 500_000_000
    tenant: Annotated[str, Field(min_length=1)] | None = None


class ImageSettings(Table):
    """The ``[images]`` table: what is read, and its limits.

    Attributes:
        max_bytes: Largest file.
        max_pixels: Largest width × height.
        allow_urls: Whether an image may be an http:// or https:// address.
        allow_private_urls: Whether that may be on this machine or in a private network.
    """

    max_bytes: Annotated[PositiveInt, ONLY_LOWER] = 50_000_000
    max_pixels: Annotated[PositiveInt, ONLY_LOWER] = 40_000_000
    allow_urls: Annotated[bool, ONLY_LOWER] = False
    allow_private_urls: Annotated[bool, ONLY_LOWER] = False


def _web_address(value: SecretStr) -> SecretStr:
    if not is_web_address(value.get_secret_value()):
        raise ValueError("it is not an http:// or https:// address")
    return value


class AlertSettings(Table):
    """The ``[alerts]`` table: where trouble and recovery are reported, besides the log.

    Attributes:
        webhook: Address that each alert is posted to as JSON, such as an incoming webhook of Slack; a secret.
    """

    webhook: Annotated[SecretStr, AfterValidator(_web_address)] | None = None


class LogSettings(Table):
    """The ``[logs]`` table: whether it is kept what was asked and said.

    Attributes:
        enabled: Whether prompts and answers with their traces are written to a file that only the user can read.
        max_bytes: Size from which a new file is begun; the one before it is kept.
    """

    enabled: Annotated[bool, ONLY_LOWER] = False
    max_bytes: PositiveInt = 10_000_000


def _all_built_in(value: TaskLadders | tuple[str, ...], _without: object) -> bool:
    ladders = value.by_task.values() if isinstance(value, TaskLadders) else [value]
    return all(name in BUILT_IN for ladder in ladders for name in ladder)


class Settings(BaseModel):
    """Everything that vision.toml may hold. It reads no variables.

    Attributes:
        ladder: Backends, best first: built-in names, entry points, ``package.module:Class``, or names of
            ``[backends.<name>]`` tables with a ``kind``.
        deadline_s: Total seconds that a call may take.
        hedge_after_s: When a call also asks the next rung; seconds or ``"p95"``; never by default.
        local_only: Whether backends that send images elsewhere are left out of every ladder.
        warm_standby: Whether the first sign of trouble with a rung warms up the next one in the background.
        state: Where cache, ledger and gates live: ``"auto"`` (the user's cache folder), ``"memory"`` or a path.
        cache: The ``[cache]`` table.
        images: The ``[images]`` table.
        alerts: The ``[alerts]`` table.
        logs: The ``[logs]`` table.
        openai: The ``[openai]`` table, as keywords of the backend.
        local: The ``[local]`` table, as keywords of the backend.
        embedded: The ``[embedded]`` table, as keywords of the backend.
        backends: ``[backends.<name>]`` tables, as keywords of other backends; ``kind`` says of which.
        accounts: ``[accounts.<name>]`` tables: limits that the rungs share whose tables name the ``account``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    ladder: Annotated[
        TaskLadders | SomeNames,
        OnlyIf(f"made of {', '.join(BUILT_IN)}", _all_built_in),
    ] = Field(DEFAULT_LADDER, examples=['["openai", "embedded"]'])
    deadline_s: Annotated[PositiveFloat, ONLY_LOWER] = Field(60.0, allow_inf_nan=False)
    hedge_after_s: PositiveFloat | Literal["p95"] | None = None
    local_only: Annotated[bool, OnlyIf("true", lambda value, without: value or not without)] = False
    warm_standby: Annotated[bool, ONLY_LOWER] = True
    state: Literal["auto", "memory"] | Path = "auto"
    cache: CacheSettings = CacheSettings()
    images: ImageSettings = ImageSettings()
    alerts: AlertSettings = AlertSettings()
    logs: LogSettings = LogSettings()
    openai: dict[str, Any] = Field(default_factory=dict, repr=False)
    local: dict[str, Any] = Field(default_factory=dict)
    embedded: dict[str, Any] = Field(default_factory=dict)
    backends: Annotated[dict[str, dict[str, Any]], AfterValidator(_without_built_in)] = Field(
        default_factory=dict, repr=False
    )
    accounts: Annotated[dict[str, dict[str, Any]], AfterValidator(_with_plain_names)] = Field(default_factory=dict)

    @property
    def state_file(self) -> Path | None:
        """Where the state is kept; None means in memory, as for users without a home."""
        if self.state == "memory":
            return None
        if isinstance(self.state, Path):
            return self.state.expanduser()
        folder = user_folder("cache")
        return folder and folder / "state.sqlite"

    @property
    def log_file(self) -> Path | None:
        """Where it is written what was asked and said; None where that is switched off, or the user has no home."""
        folder = user_folder("data") if self.logs.enabled else None
        return folder and folder / "calls.jsonl"

    def table(self, name: str) -> dict[str, Any]:
        """Return the table of a backend, empty where the file has none."""
        own = {"openai": self.openai, "local": self.local, "embedded": self.embedded}
        return HiddenTable(own.get(name, self.backends.get(name, {})))

    def kind_of(self, name: str) -> str:
        """Return the kind of a rung: a built-in name wherever it is one, however it is written."""
        kind = name if name in BUILT_IN else str(self.backends.get(name, {}).get("kind", name))
        return next((known for known, path in KINDS.items() if kind == path), kind)

    @property
    def on_ladders(self) -> list[str]:
        """The names of all rungs on any ladder, best first."""
        if isinstance(self.ladder, tuple):
            return [*self.ladder]
        return [*dict.fromkeys(name for ladder in self.ladder.by_task.values() for name in ladder)]

    def rungs_of(self, kind: str) -> list[str]:
        """Return the names of all rungs of a built-in kind, configured or on a ladder; the built-in one first."""
        names = dict.fromkeys([kind, *self.on_ladders, *self.backends])
        return [name for name in names if self.kind_of(name) == kind]

    def asks_server(self, name: str) -> bool:
        """Return whether a rung asks a server which speaks OpenAI's language."""
        return self.kind_of(name) in SERVERS

    def preset_of(self, name: str) -> Preset | None:
        """Return what is known of the server of a rung by the preset that it names, or that its kind is."""
        kind = self.kind_of(name)
        preset = self.table(name).get("preset") if kind == "openai" else kind
        return presets().get(str(preset)) if preset and kind in SERVERS else None

    def server_of(self, name: str) -> Origin | None:
        """Return the server that a rung asks; None where it asks none that is known, or its address is not valid."""
        return server_of(self.table(name)) if self.asks_server(name) else None


def class_at(path: str) -> Any:  # noqa: ANN401 — a class of another room
    """Return the class of another room that is named: the core's keys are known here, theirs are their own."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
