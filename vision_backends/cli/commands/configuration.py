"""``vision config``: the settings that are in force, and where they came from.

This module decides how settings read as TOML, and what in them is a secret. It must not know what they mean.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vision_backends.cli.options import JsonOptions, command
from vision_backends.cli.rendering.exits import tell
from vision_backends.cli.rendering.text import dump_json, one_line
from vision_backends.foreign_text import printable

__all__ = ["config"]

MASK = "***"

_HIDDEN = "*" * 10
"""What a secret of pydantic is written as."""

_SECRET = re.compile(r"key|token|secret|password|auth|credential|header", re.IGNORECASE)
"""Names of keys whose texts are never shown; numbers, such as a budget of tokens, are."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
"""What ``api_key_env`` may be, and is no secret; a key that was written there by mistake is one."""

_USER_OF_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class _Masked(str):
    """A text in which a secret was replaced; what a user has written may well look the same."""

    __slots__ = ()


@command
def config(
    *,
    path: Annotated[bool, typer.Option("--path", help="Print only the path of the file.")] = False,
    options: JsonOptions,
) -> None:
    """Print the settings in force as TOML for vision.toml, without secrets, and where each of them came from."""
    from vision_backends.config.places import leaves
    from vision_backends.config.settings import CONFIG_FILE, find_config, read_configuration

    if path:
        target = (find_config(options.config) or Path(CONFIG_FILE)).absolute()
        if not target.exists():
            tell(f"{target} does not exist; the defaults are in force")
        typer.echo(printable(str(target)))
        return
    configuration = read_configuration(options.config)
    origins = configuration.origins
    state = configuration.settings.state_file
    shown = mask(configuration.settings.model_dump(mode="json"))
    files = [str(place.path.absolute()) for place in configuration.places if place.path]
    if options.as_json:
        named = configuration.file and str(configuration.file.absolute())
        about = {"file": named, "files": files, "state_file": state and str(state)}
        origin_of = {_dotted(keys): origins.get(keys, "default") for keys in leaves(shown)}
        typer.echo(dump_json({**about, "variables": configuration.variables, "origins": origin_of, "settings": shown}))
        return
    sources = [*map(printable, files), *configuration.variables]
    typer.echo(f"# Set by {', '.join(sources) or 'nothing: these are the defaults'}.")
    typer.echo(f"# The state is kept in {printable(str(state or 'memory'))}.")
    for withheld in configuration.withheld:
        typer.echo(f"# {one_line(configuration.told_of(withheld))}.")
    for line in to_toml(shown, origins=origins):
        typer.echo(line)


def mask(value: Any, *, secret: bool = False) -> Any:  # noqa: ANN401 — any TOML value
    """Return a value with every secret in it replaced.

    Args:
        value: A value of TOML, or a table of them.
        secret: Whether the key of the value says that its texts are secrets.
    """
    if isinstance(value, Mapping):
        return {key: mask(each, secret=secret or _is_secret(str(key), each)) for key, each in value.items()}
    if isinstance(value, list):
        return [mask(each, secret=secret) for each in value]
    if isinstance(value, str):
        if secret or value == _HIDDEN:
            return _Masked(MASK)
        shown, replaced = _USER_OF_URL.subn(MASK, value)
        return _Masked(shown) if replaced else value
    return value


def _is_secret(key: str, value: object) -> bool:
    if key == "api_key_env" and isinstance(value, str) and _VARIABLE.fullmatch(value):
        return False
    return bool(_SECRET.search(key))


def to_toml(
    table: Mapping[str, Any], *, within: tuple[str, ...] = (), origins: Mapping[tuple[str, ...], str] | None = None
) -> Iterator[str]:
    """Yield the lines of a table; a masked value is a comment, so that the mask is not pasted by mistake.

    Args:
        table: Values as JSON knows them; None is left out.
        within: Keys that lead to the table.
        origins: What has set the value that some keys lead to, as a comment behind it.
    """
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    values = {key: value for key, value in table.items() if key not in tables and value is not None}
    if within and values:
        yield ""
        yield f"[{_dotted(within)}]"
    for key, value in values.items():
        written, origin = _value(value), (origins or {}).get((*within, key))
        comment = f"  # {printable(origin)}" if origin else ""
        yield f"{'# ' if _is_masked(value) else ''}{_key(key)} = {written}{comment}"
    for key, value in tables.items():
        yield from to_toml(value, within=(*within, key), origins=origins)


def _dotted(keys: Sequence[str]) -> str:
    return ".".join(map(_key, keys))


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
