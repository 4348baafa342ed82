"""``vision config``: the settings that are in force, and where they came from.

This module decides how settings read as TOML, and what in them is a secret. It must not know what they mean.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vision_backends.cli.options import JsonOptions
from vision_backends.cli.rendering.exits import tell
from vision_backends.cli.rendering.text import dump_json, printable

__all__ = ["config"]

MASK = "***"

_HIDDEN = "*" * 10
"""What a secret of pydantic is written as."""

_SECRET = re.compile(r"key|token|secret|password|auth|credential|header", re.IGNORECASE)
"""Names of keys whose texts are never shown; numbers, such as a budget of tokens, are."""

_USER_OF_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class _Masked(str):
    """A text in which a secret was replaced; what a user has written may well look the same."""

    __slots__ = ()


def config(
    *,
    path: Annotated[bool, typer.Option("--path", help="Print only the path of the file.")] = False,
    options: JsonOptions,
) -> None:
    """Print the settings in force as TOML for vision.toml, without secrets."""
    from vision_backends.config.settings import CONFIG_FILE, find_config, load_settings, variables_in_use

    found = find_config(options.config)
    if path:
        target = (found or Path(CONFIG_FILE)).absolute()
        if not target.exists():
            tell(f"{target} does not exist; the defaults are in force")
        typer.echo(printable(str(target)))
        return
    settings = load_settings(options.config)
    state = settings.state_file
    shown = mask(settings.model_dump(mode="json"))
    variables = variables_in_use(settings)
    if options.as_json:
        file_of = {"file": found and str(found.absolute()), "state_file": state and str(state)}
        typer.echo(dump_json({**file_of, "variables": variables, "settings": shown}))
        return
    sources = [printable(str(found.absolute()))] if found else []
    typer.echo(f"# Set by {', '.join([*sources, *variables]) or 'nothing: these are the defaults'}.")
    typer.echo(f"# The state is kept in {printable(str(state or 'memory'))}.")
    for line in to_toml(shown):
        typer.echo(line)


def mask(value: Any, *, secret: bool = False) -> Any:  # noqa: ANN401 — any TOML value
    """Return a value with every secret in it replaced.

    Args:
        value: A value of TOML, or a table of them.
        secret: Whether the key of the value says that its texts are secrets.
    """
    if isinstance(value, Mapping):
        return {key: mask(each, secret=secret or bool(_SECRET.search(str(key)))) for key, each in value.items()}
    if isinstance(value, list):
        return [mask(each, secret=secret) for each in value]
    if isinstance(value, str):
        if secret or value == _HIDDEN:
            return _Masked(MASK)
        shown, replaced = _USER_OF_URL.subn(MASK, value)
        return _Masked(shown) if replaced else value
    return value


def to_toml(table: Mapping[str, Any], *, within: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the lines of a table; a masked value is a comment, so that the mask is not pasted by mistake.

    Args:
        table: Values as JSON knows them; None is left out.
        within: Keys that lead to the table.
    """
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    values = {key: value for key, value in table.items() if key not in tables and value is not None}
    if within and values:
        yield ""
        yield f"[{'.'.join(map(_key, within))}]"
    for key, value in values.items():
        yield f"{'# ' if _is_masked(value) else ''}{_key(key)} = {_value(value)}"
    for key, value in tables.items():
        yield from to_toml(value, within=(*within, key))


def _is_masked(value: Any) -> bool:  # noqa: ANN401 — any TOML value
    if isinstance(value, Mapping):
        return any(map(_is_masked, value.values()))
    if isinstance(value, list):
        return any(map(_is_masked, value))
    return isinstance(value, _Masked)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _value(value: Any) -> str:  # noqa: ANN401 — any TOML value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {_value(each)}' for key, each in value.items())}}}"
    return repr(value)


def _text(text: str) -> str:
    """Write a basic string of TOML, whose escapes are those of JSON and one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
