"""Finds and makes the backend that a name in the configuration stands for.

This module decides where backends are looked up: built in, in the entry point group
``vision_backends.backends``, or at ``package.module:Class``. It must not know what they do.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import TYPE_CHECKING, Any

from vision_backends.backends.base import Backend
from vision_backends.config.settings import BUILT_IN
from vision_backends.config.validation import parse_table
from vision_backends.errors import ConfigError, VisionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "make_backend", "section_of"]

ENTRY_POINT_GROUP = "vision_backends.backends"


def make_backend(name: str, table: Mapping[str, Any], *, beside: Sequence[str] = ()) -> Backend:
    """Make a backend from its name on a ladder and its table of the configuration.

    Args:
        name: A built-in name, an entry point of the group ``vision_backends.backends``, or
            ``package.module:Class``.
        table: Keywords for its constructor, checked against its signature.
        beside: Keys of the same section that are not the backend's; suggested when they are the nearest.

    Raises:
        ConfigError: There is no such backend, or the table has a bad key or value.
    """
    found = _locate(name)
    if not (inspect.isclass(found) and issubclass(found, Backend)):
        raise ConfigError(f"{name!r} on the ladder is not a subclass of vision_backends.Backend.")
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise ConfigError(f"The backend {name!r} lacks {lacking}.", remedy="Write what docs/own-backend.md lists.")
    keywords = parse_table(found, table, section=section_of(name), beside=beside)
    try:
        made: Backend = found.from_settings(keywords)
    except VisionError:
        raise
    except Exception as error:  # a third-party constructor may raise anything
        raise ConfigError(
            f"The backend {name!r} cannot be made: {type(error).__name__}: {error}.",
            remedy=f"Correct {section_of(name)}, or remove it from the ladder.",
        ) from error
    return made


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
    remedy = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)} and package.module:Class."
    raise ConfigError(f"The ladder names an unknown backend: {name!r}.", remedy=remedy)


def _load(name: str, load: Callable[[], object]) -> object:
    try:
        return load()
    except Exception as error:  # a third-party module may raise anything when imported
        raise ConfigError(
            f"The backend {name!r} cannot be imported: {type(error).__name__}: {error}.",
            remedy="Install what it needs, or remove it from the ladder.",
        ) from error
