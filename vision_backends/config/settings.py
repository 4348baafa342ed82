"""What can be configured, what a file may set that was only found, and which place wins.

This module decides what the core's own keys are and how a bad one is reported. Each key declares beside its type
whether a vision.toml that was found in the working directory may set it; one that declares nothing may not be set. It
must not know any backend: the keys of a backend's table are its constructor's keywords, and declare it there.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
)

from vision_backends.arguments import shown
from vision_backends.config.credentials import SERVER_KEYS, belonging, credentials, server_of
from vision_backends.config.found import ONLY_LOWER, OnlyIf, Refusal, refusal_of, untrusted
from vision_backends.config.places import (
    OPENAI_VARIABLES,
    Keys,
    Place,
    gathered,
    keywords,
    leaves,
    merged,
    openai_variables,
    pruned,
    read_file,
    variables,
)
from vision_backends.config.presets import presets
from vision_backends.config.trusted_files import TrustedFiles
from vision_backends.config.user_folders import user_folder
from vision_backends.config.validation import HiddenTable, declared, parse_table, wrong_table
from vision_backends.config.web_address import is_web_address
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vision_backends.config.credentials import Withheld
    from vision_backends.config.presets import Preset
    from vision_backends.config.trusted_files import Verdict
    from vision_backends.config.web_address import Origin
    from vision_backends.types import Task

__all__ = [
    "BUILT_IN",
    "DEFAULT_LADDER",
    "KINDS",
    "LIMITS",
    "RUNG_NAME",
    "CacheSettings",
    "Configuration",
    "ImageSettings",
    "Settings",
    "class_at",
    "find_config",
    "load_settings",
    "read_configuration",
    "read_to_trust",
]

_log = logging.getLogger(__name__)

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

CONFIG_FILE = "vision.toml"

ENV_PREFIX = "VISION_"


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
            raise ValueError(f'{name!r} is no name of small letters, digits, "-" and "_"')
    return tables


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskLadders(_Table):
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


class CacheSettings(_Table):
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


class ImageSettings(_Table):
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


class AlertSettings(_Table):
    """The ``[alerts]`` table: where trouble and recovery are reported, besides the log.

    Attributes:
        webhook: Address that each alert is posted to as JSON, such as an incoming webhook of Slack; a secret.
    """

    webhook: Annotated[SecretStr, AfterValidator(_web_address)] | None = None


class LogSettings(_Table):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The settings in force, and where each of them came from.

    Attributes:
        settings: What is in force.
        places: All places that were read, the one that wins last.
        chosen: The number of the place of each credential that is sent.
        withheld: Credentials that were given for another server than that of their rung.
        file: The file that was named, or found in the working directory; None where there is none.
        found: What is known of a file that was found; None for one that was named.
    """

    settings: Settings
    places: Sequence[Place]
    chosen: Mapping[Keys, int]
    withheld: Sequence[Withheld]
    file: Path | None = None
    found: Verdict | None = None

    @property
    def origins(self) -> dict[Keys, str]:
        """The file, variable or keyword that has set each key in force; those that are missing have their default."""
        given = leaves(merged([place.table for place in self.places]))
        held_back = {(*each.table, *each.keys) for each in self.withheld}
        return {keys: self._place_of(keys).name_of(keys) for keys in given if keys not in held_back}

    @property
    def variables(self) -> list[str]:
        """The variables that have set something in force, OpenAI's own last."""
        names = {name for keys, name in self.origins.items() if self._place_of(keys).prefix}
        return sorted(names, key=lambda name: (name in OPENAI_VARIABLES.values(), name))

    def told_of(self, withheld: Withheld) -> str:
        """Return in one sentence what is not sent where, and why."""
        keys = (*withheld.table, *withheld.keys)
        name = self.places[withheld.place].name_of(keys)
        what = name if name in OPENAI_VARIABLES.values() else f"{'.'.join(keys)} of {name}"
        why = f"it was given for {withheld.given_for or 'another server'}"
        names_server = any(self.places[withheld.place].has((*withheld.table, key)) for key in SERVER_KEYS)
        if withheld.table != ("openai",) and not names_server:
            why = "it has no base_url beside it, and would not be encrypted"
        return f"{what} is not sent to {withheld.server}: {why}"

    def _place_of(self, keys: Keys) -> Place:
        if keys in self.chosen:
            return self.places[self.chosen[keys]]
        return next(place for place in reversed(self.places) if place.has(keys))


def load_settings(
    config: str | os.PathLike[str] | Settings | None = None, *, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings in force, with those that are already read in place of files and variables.

    Args:
        config: As for `read_configuration`, or settings.
        overrides: What a program sets, which wins.

    Raises:
        ConfigError: As for `read_configuration`.
    """
    if isinstance(config, Settings):
        if not overrides:
            return config
        given = keywords(config.model_dump(exclude_unset=True))
        configuration = _in_force([given, gathered(keywords(overrides), BUILT_IN)])
    else:
        configuration = read_configuration(config, overrides=overrides)
    for withheld in configuration.withheld:
        _log.warning("%s.", configuration.told_of(withheld))
    return configuration.settings


def read_configuration(
    path: str | os.PathLike[str] | None = None, *, overrides: Mapping[str, Any] | None = None
) -> Configuration:
    """Read the configuration: the user's own file, the one that is named or found, ``OPENAI_*`` and ``VISION_*``.

    Args:
        path: The file; by default ``VISION_CONFIG``, or ``vision.toml`` in the working directory if it exists. That
            one may set little until it is trusted.
        overrides: What a program sets, which wins over all of them.

    Raises:
        ConfigError: A file is missing, not believed or not valid TOML, a key, variable or value is not valid, or a
            file that was only found sets what it may not.
    """
    file, own, is_found = find_config(path), _user_file(), _named_file(path) is None
    if file is not None and own is not None and os.path.realpath(file) == os.path.realpath(own):
        file, own = (None, own) if is_found else (file, None)
    files = [gathered(read_file(each), BUILT_IN) for each in (own, file) if each is not None]
    _check_variables()
    later = [gathered(each, BUILT_IN) for each in (variables(Settings, prefix=ENV_PREFIX), keywords(overrides or {}))]
    places = [*files, _openai_variables(files, later), *later]
    configuration = _in_force(places)
    if file is None or not is_found:
        return replace(configuration, file=file)
    found = TrustedFiles().verdict(file, files[-1].sha256)
    refusals = [] if found == "trusted" else list(_refused(files[-1], before=files[:-1]))
    if refusals:
        raise untrusted(str(file), refusals, changed=found == "changed")
    return replace(configuration, file=file, found=found)


def _in_force(places: Sequence[Place]) -> Configuration:
    """Return what several places set together, with the credentials that belong to the servers in force."""
    settings = _validated(places)
    chosen: dict[Keys, int] = {}
    withheld: list[Withheld] = []
    for table in _server_tables(settings):
        meant, others = belonging([_within(place, table) for place in places], table=table)
        chosen |= {(*table, *leaf): number for leaf, number in meant.items()}
        withheld += others
    return Configuration(
        settings=settings.model_copy(update=_sent(places, chosen, settings)),
        places=places,
        chosen=chosen,
        withheld=withheld,
    )


def read_to_trust(path: Path) -> tuple[Place, list[Refusal]]:
    """Return what a file says that is to be trusted, and what of it needs that.

    Raises:
        ConfigError: It could not be used if it were trusted.
    """
    own = _user_file()
    before = [] if own is None else [gathered(read_file(own), BUILT_IN)]
    place = gathered(read_file(path), BUILT_IN)
    _check_variables()
    return place, list(_refused(place, before=before))


def find_config(path: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the file that `read_configuration` would read besides the user's own, or None when there is none."""
    named = _named_file(path)
    if named is not None:
        return named
    return Path(CONFIG_FILE) if os.path.isfile(CONFIG_FILE) else None  # noqa: PTH113 — which raises where it may not look


def _named_file(path: str | os.PathLike[str] | None) -> Path | None:
    if path is not None and not isinstance(path, str | os.PathLike):
        raise ConfigError(f"The configuration {shown(path)} is no path.", remedy="Pass the path of a vision.toml.")
    named = path or os.environ.get("VISION_CONFIG")
    return Path(named) if named else None


def _user_file() -> Path | None:
    """Return the configuration of the user for all folders, or None when there is none."""
    folder = user_folder("config")
    file = folder and folder / CONFIG_FILE
    return file if file and os.path.isfile(file) else None  # noqa: PTH113


def _validated(places: Sequence[Place]) -> Settings:
    """Return what several places set together."""

    def where(keys: Sequence[str]) -> str:
        for depth in range(len(keys), 0, -1):
            for place in reversed(places):
                if place.has(tuple(keys[:depth])):
                    return place.title_of(tuple(keys[:depth]))
        return "The configuration"

    try:
        return Settings(**merged([place.table for place in places]))
    except ValidationError as error:
        trouble = wrong_table(error, Settings, where=where)
    raise trouble  # out here, because the error above would take the values along, and with them every secret


def _server_tables(settings: Settings) -> list[Keys]:
    """Return the keys that lead to each table whose rung may ask a server; a foreign kind is not known not to."""
    return [("openai",), *(("backends", name) for name in settings.backends)]


def _within(place: Place, table: Keys) -> HiddenTable:
    found: object = place.table
    for key in table:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, HiddenTable) else HiddenTable()


def _openai_variables(files: Sequence[Place], later: Sequence[Place]) -> Place:
    """Return what OpenAI's own variables set; not the key where a file names another variable for it.

    Nothing where ``[openai]`` is a preset of another server: they lie in many environments, and are for OpenAI.
    """
    place = openai_variables()
    presets = [table["preset"] for each in (*files, *later) if "preset" in (table := _within(each, ("openai",)))]
    if presets and presets[-1] != "openai":
        return replace(place, table=HiddenTable())
    named = any("api_key_env" in _within(each, ("openai",)) for each in files)
    is_set = place.has(("openai", "api_key"))
    return replace(place, table=pruned(place.table, [("openai", "api_key")])) if named and is_set else place


def _sent(places: Sequence[Place], chosen: Mapping[Keys, int], settings: Settings) -> dict[str, HiddenTable]:
    """Return the tables of rungs with the credentials that belong to their servers, and no others."""

    def table(keys: Keys) -> HiddenTable:
        tables = [_within(place, keys) for place in places]
        return merged(
            [
                pruned(each, [leaf for leaf in credentials(each) if chosen.get((*keys, *leaf)) != number])
                for number, each in enumerate(tables)
            ]
        )

    others = {name: table(("backends", name)) for name in settings.backends}
    return {"openai": table(("openai",)), "backends": HiddenTable(others)}


def _check_variables() -> None:
    """Refuse misspelt variables. One that resembles no key of ours belongs to another program."""
    known = {*Settings.model_fields, "config"}
    for name in os.environ:
        if not name.upper().startswith(ENV_PREFIX):
            continue
        key = name.upper().removeprefix(ENV_PREFIX).split("__")[0].lower()
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if near and key not in known:
            raise ConfigError(f"The variable {name} is unknown.", remedy=f"Did you mean {ENV_PREFIX}{near[0].upper()}?")


def _refused(found: Place, *, before: Sequence[Place]) -> Iterator[Refusal]:
    """Yield what a file that was found sets, but may not; compared with what is in force without it."""
    without = _validated(before)
    yield from _refused_by(Settings, found.table, _validated([*before, found]), without, ())


def _refused_by(
    model: type[BaseModel], table: Mapping[str, Any], settings: BaseModel, without: BaseModel, within: Keys
) -> Iterator[Refusal]:
    for key, value in table.items():
        keys, field = (*within, key), model.model_fields[key]
        if not within and key in BUILT_IN:
            yield from _refused_in_table(key, value, getattr(without, key))
        elif isinstance(getattr(settings, key), _Table) and not any(
            isinstance(each, OnlyIf) for each in field.metadata
        ):
            inner = getattr(settings, key)
            yield from _refused_by(type(inner), value, inner, getattr(without, key), keys)
        elif any(isinstance(each, OnlyIf) for each in field.metadata) or not isinstance(value, dict):
            refusal = refusal_of(keys, field.metadata, getattr(settings, key), getattr(without, key))
            yield from [refusal] if refusal else []
        else:
            yield from (Refusal((*keys, *below)) for below in leaves(value))


def _refused_in_table(name: str, table: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[Refusal]:
    """Yield what the table of a backend sets but may not, by what the backend's constructor declares."""
    limits = class_at(LIMITS)
    limited = [spec.name for spec in fields(limits)]
    for make, is_limit in ((class_at(BUILT_IN[name]), False), (limits, True)):
        own = {key: value for key, value in table.items() if (key in limited) is is_limit}
        earlier = {key: before[key] for key in own if key in before}
        values = parse_table(make, own, section=f"[{name}]", beside=limited)
        without = parse_table(make, earlier, section=f"[{name}]", beside=limited)
        for key, (default, metadata) in declared(make, own).items():
            rules = (*metadata, ONLY_LOWER) if is_limit and isinstance(values[key], int | float) else metadata
            refusal = refusal_of((name, key), rules, values[key], without.get(key, default))
            yield from [refusal] if refusal else []


def class_at(path: str) -> Any:  # noqa: ANN401 — a class of another room
    """Return the class of another room that is named: the core's keys are known here, theirs are their own."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
