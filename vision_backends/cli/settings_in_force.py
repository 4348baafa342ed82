"""Every key in force: its value without secrets, its default, and where it came from.

This module decides which keys there are to show and what in them is a secret. It must not know how they are printed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any

from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from vision_backends.config.loading import Configuration
    from vision_backends.config.places import Keys
    from vision_backends.config.settings import Settings

__all__ = ["Setting", "is_masked", "mask", "settings_in_force"]

MASK = "***"

_HIDDEN = "*" * 10
"""What a secret of pydantic is written as."""

_SECRET = re.compile(r"key|token|secret|password|auth|credential|header", re.IGNORECASE)
"""Names of keys whose texts are never shown; numbers, such as a budget of tokens, are."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
"""What ``api_key_env`` may be, and is no secret; a key that was written there by mistake is one."""

_USER_OF_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


class _Masked(str):
    """A text in which a secret was replaced; what a user has written may well look the same."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key in force.

    Attributes:
        keys: The keys that lead to it.
        value: As JSON knows values, with every secret replaced; None where it is not set and has no default.
        default: What it would be if nothing had set it; None where nothing says so.
        origin: The file, variable or keyword that has set it; None for a default.
        line: On which line of the file, from 1.
    """

    keys: Keys
    value: Any
    default: Any = None
    origin: str | None = None
    line: int | None = None


def settings_in_force(configuration: Configuration) -> list[Setting]:
    """Return every key that is in force, table by table: the core's own, then those of each rung, best first.

    What a user calls a rung or an account says nothing of what is in its table.
    """
    from vision_backends.config.lines import lines_of
    from vision_backends.config.places import leaves

    origins = configuration.origins
    values, defaults = _with_defaults(configuration.settings)
    lines = {str(place.path): lines_of(place) for place in configuration.places if place.path is not None}
    shown = mask(values) | {
        above: {name: mask(table) for name, table in values[above].items()}
        for above in ("backends", "accounts")
        if above in values
    }
    return [
        Setting(
            keys=keys,
            value=reduce(getitem, keys, shown),
            default=mask({keys[-1]: defaults.get(keys)})[keys[-1]],
            origin=origins.get(keys),
            line=lines.get(origins.get(keys, ""), {}).get(keys),
        )
        for keys in leaves(shown)
    ]


def _with_defaults(settings: Settings) -> tuple[dict[str, Any], dict[Keys, Any]]:
    """Return all values in force as tables, and the defaults by the keys that lead to them."""
    from vision_backends.config.places import leaves
    from vision_backends.config.settings import BUILT_IN
    from vision_backends.config.settings import Settings as SettingsType

    rungs = {*BUILT_IN, "backends"}
    values = settings.model_dump(mode="json", exclude=rungs)
    plain = SettingsType.model_construct().model_dump(mode="json", exclude=rungs)
    defaults = {keys: reduce(getitem, keys, plain) for keys in leaves(plain)}
    if isinstance(values["ladder"], dict):
        defaults |= {("ladder", task): plain["ladder"] for task in values["ladder"] if task != "ask"}
    configured = [name for name in BUILT_IN if settings.table(name)]
    for name in dict.fromkeys([*settings.on_ladders, *configured, *settings.backends]):
        table, keys = settings.table(name), _defaults_of_rung(settings, name)
        kind = {"kind": table["kind"]} if "kind" in table else {}
        within = (name,) if name in BUILT_IN else ("backends", name)
        above = values if name in BUILT_IN else values.setdefault("backends", {})
        above[name] = {**kind, **keys, **table}
        defaults |= {(*within, key): default for key, default in keys.items()}
    return values, defaults


def _defaults_of_rung(settings: Settings, name: str) -> dict[str, Any]:
    """Return the keys that a rung's table may have, with their defaults; none where its backend cannot be found.

    Whoever uses the rung tells what is wrong with it; here a person looks for the reason.
    """
    from vision_backends.backends.registry import backend_class
    from vision_backends.cli.config_schema import backend_keys

    table = settings.table(name)
    try:
        found = backend_class(name, table, known=settings.backends)
    except ConfigError:
        return {}
    defaults = {key.name: key.default for key in backend_keys(found)}
    return defaults | {key: value for key, value in found.defaults_for(table).items() if key in defaults}


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


def is_masked(value: Any) -> bool:  # noqa: ANN401 — any TOML value
    """Return whether there is a secret in a value that `mask` has returned."""
    if isinstance(value, Mapping):
        return any(map(is_masked, value.values()))
    if isinstance(value, list):
        return any(map(is_masked, value))
    return isinstance(value, _Masked)


def _is_secret(key: str, value: object) -> bool:
    if key == "api_key_env" and isinstance(value, str) and _VARIABLE.fullmatch(value):
        return False
    return bool(_SECRET.search(key))
