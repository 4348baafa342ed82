"""Where settings come from: files, variables and a program, each as a table, and which of them wins, key by key.

This module decides how a place is read and what it is called in messages. It must not know what any key means, nor
whether a place is believed.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import sha256
from operator import getitem
from typing import TYPE_CHECKING, Any, cast

from vision_backends.config.private_file import read_private_file
from vision_backends.config.text_file import decode_text
from vision_backends.config.validation import HiddenTable
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from pydantic import BaseModel
    from pydantic_settings import BaseSettings

__all__ = [
    "OPENAI_VARIABLES",
    "Keys",
    "Place",
    "gathered",
    "keywords",
    "leaves",
    "merged",
    "openai_variables",
    "pruned",
    "read_file",
    "variables",
]

Keys = tuple[str, ...]

OPENAI_VARIABLES = {
    "api_key": "OPENAI_API_KEY",
    "base_url": "OPENAI_BASE_URL",
    "organization": "OPENAI_ORG_ID",
    "project": "OPENAI_PROJECT_ID",
}
"""The names that OpenAI's own SDK reads, for keys of ``[openai]``."""

MAX_DEPTH = 16
MAX_DOTS_PER_LINE = 200
TOO_DEEP = f"has tables within tables, more than {MAX_DEPTH} deep"
"""More than any configuration has. The memory that tomllib takes grows with the square of the parts of one key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place and the settings that it gives.

    Attributes:
        table: What it sets.
        sha256: Hash of the whole file; empty for what is no file.
        path: The file; None for what is no file.
        prefix: Of the names of variables; empty for the keywords of a program.
        nested: The tables of built-in rungs that it writes as ``[backends.NAME]``, which is the same.
    """

    table: HiddenTable
    sha256: str = ""
    path: Path | None = None
    prefix: str = ""
    nested: frozenset[str] = frozenset()

    def has(self, keys: Keys) -> bool:
        """Return whether it sets a key or something below it."""
        value: object = self.table
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                return False
            value = value[key]
        return True

    def title_of(self, keys: Keys) -> str:
        """Return `name_of` as the beginning of a sentence."""
        if self.path is not None:
            return str(self.path)
        return f"The variable {self.name_of(keys)}" if self.prefix else "from_config()"

    def name_of(self, keys: Keys) -> str:
        """Return what sets a key here: the path of the file, the variable, or the keyword."""
        if self.path is not None:
            return str(self.path)
        if not self.prefix:
            return f"keyword {'backends' if keys[0] in self.nested else keys[0]}"
        if self.prefix == "OPENAI_":
            return OPENAI_VARIABLES[keys[1]] if len(keys) > 1 else "OPENAI_*"
        if keys[0] in self.nested:
            keys = ("backends", *keys)
        names = {name.upper(): name for name in os.environ}
        written = (self.prefix + "__".join(keys[:depth]).upper() for depth in range(len(keys), 0, -1))
        return next((names[name] for name in written if name in names), self.prefix)


def read_file(path: Path) -> Place:
    """Return what a file sets.

    Raises:
        ConfigError: It cannot be read, others may have written it, or it is no TOML that a configuration would hold.
    """
    try:
        place = _read(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"The configuration {str(path)!r} cannot be read: {reason}.") from error
    if isinstance(place, str):  # raised here: the frames below hold the text, and with it every secret
        raise ConfigError(f"The configuration {str(path)!r} {place}.")
    return place


def _read(path: Path) -> Place | str:
    """Return what a file sets, or what is wrong with it."""
    content = read_private_file(path)
    try:
        text = decode_text(content)
        if any(line.count(".") > MAX_DOTS_PER_LINE for line in text.split("\n")):
            return f"has a line of more than {MAX_DOTS_PER_LINE} dots"
        table = tomllib.loads(text)
    except UnicodeError:
        return "is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        return f"is not valid TOML: {error}"
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        return "has a number of too many digits"
    return TOO_DEEP if _is_deep(table) else Place(table=merged([table]), path=path, sha256=sha256(content).hexdigest())


def _is_deep(table: object) -> bool:
    level = [table]
    for _ in range(MAX_DEPTH):
        level = [each for value in level for each in _inside(value)]
    return bool(level)


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value.values()]
    return value if isinstance(value, list) else []


def openai_variables() -> Place:
    """Return what the variables of OpenAI's own SDK set."""
    found = {key: os.environ[name] for key, name in OPENAI_VARIABLES.items() if os.environ.get(name)}
    return Place(table=merged([{"openai": found}] if found else []), prefix="OPENAI_")


def keywords(given: Mapping[str, Any]) -> Place:
    """Return what a program sets; what it does with its tables later changes nothing here."""
    return Place(table=_tables(given))


def _tables(given: Mapping[str, Any]) -> HiddenTable:
    return HiddenTable((key, _tables(value) if isinstance(value, Mapping) else value) for key, value in given.items())


def variables(model: type[BaseModel], *, prefix: str) -> Place:
    """Return what the variables set that begin with a prefix; pydantic-settings is imported only where there are any.

    Raises:
        ConfigError: A variable of a table or list is not valid JSON.
    """
    starts = {name.lower().split("__")[0] for name in os.environ}
    if starts.isdisjoint(prefix.lower() + field for field in model.model_fields):
        return Place(table=HiddenTable(), prefix=prefix)
    from pydantic_settings import EnvSettingsSource, SettingsError

    read = EnvSettingsSource(
        cast("type[BaseSettings]", model),  # of which it reads the fields only
        env_prefix=prefix,
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )
    try:
        return Place(table=_as_written(merged([read()]), prefix=prefix), prefix=prefix)
    except SettingsError as error:
        variable = prefix + str(error).split('"')[1].upper()
    raise ConfigError(  # out here, because the error above would take the value along
        f"The variable {variable} is not valid JSON.",
        remedy=f"Write a list or table as JSON, or set one key of a table with {variable}__<KEY>.",
    )


def _as_written(table: HiddenTable, *, prefix: str) -> HiddenTable:
    """Return what variables set for rungs below ``[backends]``, read as what is set for the built-in ones.

    pydantic-settings takes a key of digits for a number there; a text is a text, unless it is a table in JSON.
    """
    given = {name.upper(): text for name, text in os.environ.items()}
    rungs: Any = table.get("backends")
    for keys in list(leaves(rungs)) if isinstance(rungs, dict) else ():
        text = given.get(f"{prefix}BACKENDS__{'__'.join(keys)}".upper())
        if text is not None:
            within: dict[str, Any] = reduce(getitem, keys[:-1], rungs)
            within[keys[-1]] = _table_in(text) or text
    return table


def _table_in(text: str) -> HiddenTable | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return merged([found]) if isinstance(found, dict) else None


def gathered(place: Place, names: Collection[str]) -> Place:
    """Return a place where ``[backends.NAME]`` of a built-in rung stands as ``[NAME]``, which is the same table.

    Args:
        place: What was read.
        names: The built-in rungs.

    Raises:
        ConfigError: Both stand there, or it is given another kind.
    """
    others = place.table.get("backends")
    others = others if isinstance(others, dict) else {}
    nested = frozenset(name for name in names if name in others)
    table = merged([place.table])
    for name in nested:
        if name in table:
            raise ConfigError(
                f"{place.title_of((name,))} has both [{name}] and [backends.{name}], which are the same.",
                remedy="Leave one of them out.",
            )
        table[name] = table["backends"].pop(name)
    if nested and not table["backends"]:
        del table["backends"]
    for name in names:
        own = table.get(name)
        kind = own.pop("kind", name) if isinstance(own, dict) else name
        if kind != name:
            raise ConfigError(
                f"{place.title_of(('backends', name) if name in nested else (name,))} gives the rung {name!r} another "
                "kind, but a built-in name has its own.",
                remedy="Name it otherwise, such as [backends.second], and put that on the ladder.",
            )
    return replace(place, table=table, nested=nested)


def merged(tables: Sequence[Mapping[str, Any]]) -> HiddenTable:
    """Return what several places set together; the later one wins, key by key."""
    result = HiddenTable()
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            below = [result[key], value] if both else [value]
            result[key] = merged(below) if isinstance(value, dict) else value
    return result


def pruned(table: Mapping[str, Any], left_out: Sequence[Keys]) -> HiddenTable:
    """Return a table without the values that some keys lead to."""
    result = merged([table])
    for *above, last in left_out:
        within = result
        for key in above:
            within = within[key]
        del within[last]
    return result


def leaves(table: Mapping[str, Any], within: Keys = ()) -> Iterator[Keys]:
    """Yield the keys that lead to each value of a table that is not a table itself."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*within, key))
        else:
            yield (*within, key)
