"""The pages that are made from the code: every key of the configuration, every command, every public name.

This module decides what a reference page says, and that nothing public is left out. It must not know how the site is
built, so that the tests can read the pages without building it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import vision_backends
import vision_backends.results
import vision_backends.search
import vision_backends.testing
from vision_backends.cli.config_schema import config_schema
from vision_backends.config.found import FREELY, ONLY_LOWER, OnlyIf
from vision_backends.config.loading import ENV_PREFIX
from vision_backends.config.places import OPENAI_VARIABLES
from vision_backends.config.settings import BUILT_IN, KINDS, Settings, class_at
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


TITLES = {
    "": ("The router", ""),
    "azure": ('`[backends.NAME]` with `kind = "azure"`', "Azure OpenAI."),
    "limits": (
        "Limits and budgets of any backend",
        "The table of any backend may hold them, and `[accounts.NAME]` all but `account`. They hold for all processes.",
    ),
}
"""What stands above the keys of a table; the others are called by their name."""


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    return {
        "reference/configuration.md": configuration_page(),
        "reference/commands.md": commands_page(),
        **{f"reference/{file}.md": names_page(*of) for file, of in HOMES.items()},
        "reference/records.md": listed("Records of state and events", "vision_backends", RECORDS),
        "reference/results.md": listed(
            "Tables and data sets", "vision_backends.results", vision_backends.results.__all__
        ),
        "reference/search.md": listed("Search", "vision_backends.search", vision_backends.search.__all__),
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


def tables() -> dict[str, dict[str, Any]]:
    """Return the schema of each key, by table and name; those of the router have no table, limits are those of any."""
    schema = config_schema()
    limits = {spec.name for spec in dataclasses.fields(Limits)}
    found: dict[str, dict[str, Any]] = {"": {}}
    for name, key in schema["properties"].items():
        if "$ref" in key:
            found[name] = schema["$defs"][key["$ref"].rpartition("/")[2]]["properties"]
        elif name != "backends":
            found[""][name] = key
    found |= {kind: schema["$defs"][kind]["properties"] for kind in KINDS}
    shared = {name: key for name, key in found["embedded"].items() if name in limits}
    for kind in KINDS:
        found[kind] = {name: key for name, key in found[kind].items() if name not in {*limits, "kind"}}
    return found | {"limits": shared}


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
        title, words = TITLES.get(table, (f"`[{table}]`", ""))
        lines += ["", f"## {title}", "", *([words, ""] if words else [])]
        for name, key in keys.items():
            lines += [*_told(table, name, key), ""]
    lines += [
        "## OpenAI's own variables",
        "",
        "They set keys of `[openai]` that no `VISION_OPENAI__…` variable sets.",
        "",
    ]
    lines += [f"- `{variable}` sets `{key}`." for key, variable in OPENAI_VARIABLES.items()]
    return "\n".join(lines) + "\n"


def _told(table: str, name: str, key: dict[str, Any]) -> Iterator[str]:
    path = f"{table}.{name}" if table else name
    place = path if table in {"", *BUILT_IN} or table not in {*KINDS, "limits"} else f"backends.NAME.{name}"
    default = f", {_toml(key['default'])} by default" if key.get("default") is not None else ""
    yield f'<a id="{path}"></a>`{name}`'
    yield f":   {_escaped(key.get('description', ''))}"
    yield ""
    variable = ENV_PREFIX + place.upper().replace(".", "__")
    yield f"    <small>{type_words(key)}{default} · `{variable}` · in a found file: {_allowed(table, name)}</small>"


def _allowed(table: str, name: str) -> str:
    """Return what a file may set that was only found."""
    if table == "limits":
        return "not allowed" if name == "account" else f"only {ONLY_LOWER.words}"
    if table in BUILT_IN:
        default, metadata = declared(class_at(KINDS[table]), [name])[name]
    elif table in KINDS:
        return "not allowed"
    else:
        model = Settings.model_fields[table].annotation if table else Settings
        field = model.model_fields[name]
        default, metadata = field.get_default(), field.metadata
    rules = [each for each in metadata if isinstance(each, OnlyIf)]
    if not rules:
        return "not allowed"
    if rules[0] is FREELY:
        return "allowed"
    return "only `false`" if rules[0] is ONLY_LOWER and isinstance(default, bool) else f"only {rules[0].words}"


def type_words(key: dict[str, Any]) -> str:
    """Return in words what a key may be, from its schema."""
    if "enum" in key or "const" in key:
        return ", ".join(map(_toml, key.get("enum", [key.get("const")])))
    if "anyOf" in key:
        return " or ".join(dict.fromkeys(map(type_words, key["anyOf"])))
    if "type" not in key:
        return "table"
    plain = {
        "string": "text",
        "integer": "whole number",
        "boolean": "true or false",
        "array": "list",
        "object": "table",
    }
    return plain.get(key["type"], key["type"])


def _toml(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


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
