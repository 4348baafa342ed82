"""From a name in the configuration to a backend.

This module decides where backends are looked for: built in, in the entry point group
``vision_backends.backends``, or at ``package.module:Class``. It must not know what they do.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import TYPE_CHECKING, Any

from vision_backends.backends.base import Backend
from vision_backends.config.validation import parse_table
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ENTRY_POINT_GROUP", "make_backend", "section_of"]

BUILT_IN = {
    "openai": "vision_backends.backends.openai:OpenAIBackend",
    "local": "vision_backends.backends.local:LocalBackend",
    "embedded": "vision_backends.backends.embedded:EmbeddedBackend",
}

ENTRY_POINT_GROUP = "vision_backends.backends"


def make_backend(name: str, table: Mapping[str, Any], *, beside: Sequence[str] = ()) -> Backend:
    """Make a backend from its name on a ladder and its table of the configuration.

    Args:
        name: A built-in name, an entry point of the group ``vision_backends.backends``, or
            ``package.module:Class``.
        table: Keywords for its constructor, checked against its signature.
        beside: Keys of the same section that are not the backend's; named where they are the nearest.

    Raises:
        ConfigError: There is no such backend, or the table has a bad key or value.
    """
    found = _locate(name)
    if not (inspect.isclass(found) and issubclass(found, Backend)):
        raise ConfigError(f"{name!r} on the ladder is no subclass of vision_backends.Backend.")
    return found.from_settings(parse_table(found, table, section=section_of(name), beside=beside))


def section_of(name: str) -> str:
    """Return the section of vision.toml that configures a backend."""
    return f"[{name}]" if name in BUILT_IN else f'[backends."{name}"]'


def _locate(name: str) -> object:
    path = BUILT_IN.get(name, name)
    if ":" in path:
        module, _, attribute = path.partition(":")
        return _load(name, lambda: getattr(importlib.import_module(module), attribute))
    from importlib.metadata import entry_points

    offered = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name in offered:
        return _load(name, offered[name].load)
    known = [*BUILT_IN, *offered]
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}, or package.module:Class."
    raise ConfigError(f"There is no backend {name!r} for the ladder.", remedy=remedy)


def _load(name: str, load: Callable[[], object]) -> object:
    try:
        return load()
    except Exception as error:  # whatever a foreign module raises when it is imported
        raise ConfigError(
            f"The backend {name!r} cannot be imported: {type(error).__name__}: {error}.",
            remedy="Install what it needs, or take it off the ladder.",
        ) from error
