"""The pages that are made from the code: every key of the configuration, every command, every public name.

This module decides what a reference page says, and that nothing public is left out. It must not know how the site is
built, so that the tests can read the pages without building it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import SecretStr

import vision_backends
import vision_backends.testing
from vision_backends.config.found import FREELY, ONLY_LOWER, OnlyIf
from vision_backends.config.places import OPENAI_VARIABLES
from vision_backends.config.settings import BUILT_IN, ENV_PREFIX, Settings
from vision_backends.config.validation import declared
from vision_backends.health.budgets import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HOMES = {
    "routers": ("Routers", ("router", "async_router")),
    "answers": ("Answers and reports", ("types", "reports")),
    "errors": ("Errors", ("errors",)),
    "backends": ("Backends", ("backends.base", "backends.requests", *(f"backends.{name}" for name in BUILT_IN))),
    "images": ("Images", ("images",)),
}
"""The pages of public names: file, title, and the modules whose names a page has."""

RECORDS = (
    "health.budgets.Alert",
    "health.budgets.Limits",
    "health.budgets.Spending",
    "health.policy.GateReport",
    "health.policy.Transition",
    "observability.events.AttemptEvent",
    "observability.events.CallEvent",
    "routing.options.CallKeywords",
    "storage.base.CacheInfo",
    "storage.base.LedgerRow",
    "storage.base.LedgerTotal",
    "storage.Stores",
)
"""What routers take and return beside the public names, by module."""


class Key(NamedTuple):
    """One key of a table.

    Attributes:
        name: Its name.
        hint: Its annotation, with what it carries beside the type.
        default: Its value where nothing sets it.
        words: What it does.
    """

    name: str
    hint: Any
    default: object
    words: str


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    return {
        "reference/configuration.md": configuration_page(),
        "reference/commands.md": commands_page(),
        **{f"reference/{file}.md": names_page(*of) for file, of in HOMES.items()},
        "reference/records.md": listed("Records of state and events", "vision_backends", RECORDS),
        "reference/testing.md": listed("Testing", "vision_backends.testing", vision_backends.testing.__all__),
    }


# Public names


def names_page(title: str, modules: Iterable[str]) -> str:
    """Return the page of those public names whose home is one of some modules."""
    homes = vision_backends._HOMES  # noqa: SLF001 — the one list of what is public
    return listed(title, "vision_backends", [name for name in homes if homes[name] in modules])


def listed(title: str, module: str, names: Iterable[str]) -> str:
    """Return a page that shows the docstring and the signature of each name."""
    return "\n\n".join([f"# {title}", *(f"::: {module}.{name}" for name in sorted(names, key=str.lower))]) + "\n"


# Keys of the configuration


def tables() -> dict[str, list[Key]]:
    """Return the keys of every table by its name; those of the router have none."""
    own = {name: field for name, field in Settings.model_fields.items() if name not in {*BUILT_IN, "backends"}}
    inner = {name: field.annotation for name, field in own.items() if hasattr(field.annotation, "model_fields")}
    found = {"": _keys_of_model(Settings, [name for name in own if name not in inner])}
    found |= {name: _keys_of_model(model, list(model.model_fields)) for name, model in inner.items()}
    for name in BUILT_IN:
        make = getattr(vision_backends, BUILT_IN[name].partition(":")[2])
        found[name] = _keys_of_signature(make)
    found["backends.NAME"] = [
        Key(spec.name, typing.get_type_hints(Limits)[spec.name], spec.default, said_of(Limits)[spec.name])
        for spec in dataclasses.fields(Limits)
    ]
    return found


def _keys_of_model(model: Any, names: Iterable[str]) -> list[Key]:
    said, hints = said_of(model), typing.get_type_hints(model, include_extras=True)
    return [Key(name, hints[name], model.model_fields[name].get_default(), said[name]) for name in names]


def _keys_of_signature(make: type) -> list[Key]:
    said = said_of(make)
    keys = [Key(name, *_declared(make, name), said[name]) for name in inspect.signature(make).parameters]
    return [key for key in keys if type_words(key.hint)]


def _declared(make: type, name: str) -> tuple[Any, object]:
    """Return annotation and default of a keyword; no annotation where it exists for type checkers only."""
    try:
        (found,) = declared(make, [name]).values()
    except NameError:
        return None, None
    return found.hint, found.default


def said_of(documented: type) -> dict[str, str]:
    """Return what the docstring of a class says of each of its arguments or attributes."""
    section = re.search(r"^(?:Args|Attributes):\n((?:(?: {4}.*)?\n?)*)", inspect.getdoc(documented) or "", re.MULTILINE)
    rows = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in rows}


def configuration_page() -> str:
    """Return the page of every key."""
    lines = [
        "# Every key",
        "",
        "[Configuration](../configuration.md) explains which file wins, and what a",
        "[file that was only found](../configuration.md#files-that-are-found) may set. Each key has a variable, which",
        "wins over every file.",
    ]
    for table, keys in tables().items():
        title = f"`[{table}]`" if table else "The router"
        lines += ["", f"## {title}", ""]
        if table == "backends.NAME":
            lines += [
                "The table of any backend may hold these limits, `[openai]`, `[local]` and `[embedded]` included. None",
                "is set by default. They hold for all processes of the machine together.",
                "",
            ]
        for key in keys:
            lines += [*_told(table, key), ""]
    lines += [
        "## OpenAI's own variables",
        "",
        "They set keys of `[openai]` that no `VISION_OPENAI__…` variable sets.",
        "",
    ]
    lines += [f"- `{variable}` sets `{key}`." for key, variable in OPENAI_VARIABLES.items()]
    return "\n".join(lines) + "\n"


def _told(table: str, key: Key) -> Iterator[str]:
    path = f"{table}.{key.name}" if table else key.name
    variable = ENV_PREFIX + path.upper().replace(".", "__")
    default = "" if key.default is None else f", `{_toml(key.default)}` by default"
    found = _allowed(key)
    yield f'<a id="{path}"></a>`{key.name}`'
    yield f":   {key.words}"
    yield ""
    yield f"    <small>{type_words(key.hint)}{default} · `{variable}` · in a found file: {found}</small>"


def _allowed(key: Key) -> str:
    """Return what a file may set that was only found."""
    rules = [each for each in getattr(key.hint, "__metadata__", ()) if isinstance(each, OnlyIf)]
    if not rules:
        return "not allowed"
    if rules[0] is FREELY:
        return "allowed"
    return "only `false`" if rules[0] is ONLY_LOWER and isinstance(key.default, bool) else f"only {rules[0].words}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str | Path) else f"{value:_}" if isinstance(value, int) else str(value)


def type_words(hint: Any) -> str:
    """Return in words what a file may have as a value; nothing where only a program can pass one."""
    plain = {str: "text", bool: "true or false", int: "whole number", float: "number", Path: "path", SecretStr: "text"}
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    origin, inner = typing.get_origin(hint), [each for each in typing.get_args(hint) if each is not types.NoneType]
    if origin is Literal:
        return ", ".join(f"`{_toml(each)}`" for each in inner)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(filter(None, dict.fromkeys(map(type_words, inner))))
    if origin is tuple:
        return "list"
    if (inspect.isclass(origin) and issubclass(origin, Mapping)) or hasattr(hint, "model_fields"):
        return "table"
    return plain.get(hint, "")


# Commands


def commands_page() -> str:
    """Return the page of every command."""
    from typer.main import get_command

    from vision_backends.cli.app import app

    lines = [
        "# Every command",
        "",
        "What the commands are for, and the exit codes, is in [Command line](../command-line.md).",
    ]
    for name, command in _walk("vision", get_command(app)):
        lines += ["", *_command(name, command)]
    return "\n".join(lines) + "\n"


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    from typer.main import get_command

    from benchmarks.command import app as bench  # which the command finds for itself

    command = get_command(bench) if name == "vision bench" else command
    command = command.loaded() if hasattr(command, "loaded") else command
    yield name, command
    for below, each in getattr(command, "commands", {}).items():
        yield from _walk(f"{name} {below}", each)


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name)
    depth = "##" if name.count(" ") < 2 else "###"
    yield f"{depth} `{name}`"
    yield ""
    yield _escaped(" ".join((command.help or "").split()))
    yield ""
    yield f"```text\n{context.get_usage().removeprefix('Usage: ')}\n```"
    for parameter in command.get_params(context):
        names, words = parameter.get_help_record(context)
        names = re.sub(r" <\S+>", "", names)  # types that the metavariable says already
        yield f"\n`{names}`\n:   {_escaped(words) or 'Takes no value.'}"


def _escaped(text: str) -> str:
    """Return a sentence of the program as Markdown that shows it."""
    return re.sub(r"([*_<>\[\]`])", r"\\\1", text)
