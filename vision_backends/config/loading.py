"""The configuration in force: which places are read, which of them wins, and what a file may not set that was found.

This module decides how files, variables and keywords become settings, and how a bad value is reported. It must not know
what can be configured; that is declared in `settings`, and by the constructors of backends.
"""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from vision_backends.arguments import shown
from vision_backends.config.credentials import SERVER_KEYS, belonging, credentials
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
from vision_backends.config.settings import BUILT_IN, LIMITS, Settings, Table, class_at
from vision_backends.config.trusted_files import TrustedFiles
from vision_backends.config.user_folders import user_folder
from vision_backends.config.validation import HiddenTable, declared, parse_table, wrong_table
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vision_backends.config.credentials import Withheld
    from vision_backends.config.trusted_files import Verdict

__all__ = [
    "CONFIG_FILE",
    "ENV_PREFIX",
    "Configuration",
    "find_config",
    "load_settings",
    "read_configuration",
    "read_to_trust",
]

_log = logging.getLogger(__name__)

CONFIG_FILE = "vision.toml"

ENV_PREFIX = "VISION_"


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
        ConfigError: A file is missing, refused or not valid TOML, a key, variable or value is not valid, or a
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
        raise ConfigError(f"The configuration {shown(path)} is not a path.", remedy="Pass the path of a vision.toml.")
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
        elif isinstance(getattr(settings, key), Table) and not any(isinstance(each, OnlyIf) for each in field.metadata):
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
