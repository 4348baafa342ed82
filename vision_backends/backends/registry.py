"""Finds and makes the backend that a name in the configuration stands for.

This module decides where backends are looked up: built in, in the entry point group
``vision_backends.backends``, or at ``package.module:Class``. It must not know what they do.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends.arguments import did_you_mean
from vision_backends.backends.base import Backend
from vision_backends.backends.conformance import defect_of
from vision_backends.backends.rung_names import table_of, tell_table
from vision_backends.config.settings import BUILT_IN, KINDS, RUNG_NAME
from vision_backends.config.validation import HiddenTable, parse_table
from vision_backends.errors import ConfigError, VisionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "backend_class", "make_backend", "section_of"]

ENTRY_POINT_GROUP = "vision_backends.backends"


def make_backend(
    name: str, table: Mapping[str, Any], *, beside: Sequence[str] = (), known: Iterable[str] = ()
) -> Backend:
    """Make a backend from its name on a ladder and its table of the configuration.

    Args:
        name: A built-in name, an entry point of the group ``vision_backends.backends``, or
            ``package.module:Class``; any name where the table has a ``kind``, which is one of these.
        table: Keywords for its constructor, checked against its signature, and ``kind``.
        beside: Keys of the same section that are not the backend's; suggested when they are the nearest.
        known: Other names that a ladder may have.

    Raises:
        ConfigError: There is no such backend, or the table has a bad key or value.
    """
    section = section_of(name)
    keywords = HiddenTable(table)
    found = backend_class(name, table, known=known)
    kind = keywords.pop("kind", None)
    keywords = HiddenTable(parse_table(found, keywords, section=section, beside=[*beside, "kind"]))
    try:
        made = found.from_settings(keywords)
        made = made if kind is None else made.named(name)
    except VisionError as error:
        tell_table(error, found, table=section)
        raise
    except Exception as error:  # a third-party constructor may raise anything
        raise ConfigError(
            f"The backend {name!r} cannot be made: {type(error).__name__}: {error}.",
            remedy=f"Correct {section}, or remove it from the ladder.",
        ) from error
    defect = defect_of(made)
    if defect is not None:
        raise ConfigError(f"The backend {name!r} {defect.words}.", remedy=defect.remedy)
    return made


def backend_class(name: str, table: Mapping[str, Any], *, known: Iterable[str] = ()) -> type[Backend]:
    """Return the class of a rung; arguments and errors as for `make_backend`, but only the kind is checked."""
    kind = table.get("kind")
    if "kind" in table:
        _check_kind(name, kind)
    found = _locate(name, known) if kind is None else _locate_kind(name, kind)
    if not (inspect.isclass(found) and issubclass(found, Backend)):
        raise ConfigError(
            f"{kind or name!r} on the ladder is not a subclass of vision_backends.Backend.",
            remedy=f"It is {_what(found)}. Name a class that subclasses Backend or AsyncBackend.",
        )
    if inspect.isabstract(found):
        lacking = " and ".join(f"{method}(request)" for method in sorted(found.__abstractmethods__))
        raise ConfigError(
            f"The backend {name!r} lacks {lacking}.",
            remedy=f"Define it in {found.__name__}; `vision new-backend NAME` writes a class that has everything.",
        )
    return found


def section_of(name: str) -> str:
    """Return the section of vision.toml that configures a backend."""
    return table_of(name, kind=name if name in BUILT_IN else "")


def _check_kind(name: str, kind: object) -> None:
    """Return if a rung of this name may be of another kind.

    Raises:
        ConfigError: The name is not one that variables, traces and commands can all carry, or the kind is not text.
    """
    if not isinstance(kind, str) or not kind:
        raise ConfigError(f"{section_of(name)} kind is not text.", remedy=f"There are: {', '.join(KINDS)}.")
    if not RUNG_NAME.fullmatch(name):
        raise ConfigError(
            f"{section_of(name)} has a kind, but {name!r} is not a name for a rung.",
            remedy='Use lower-case letters, digits, "-" and "_", such as "second" or "gpu-1".',
        )


def _locate_kind(name: str, kind: str) -> object:
    path = KINDS.get(kind, kind)
    if ":" in path:
        return _import(name, path)
    offered = _offered()
    if kind in offered:
        return _load(name, offered[kind].load)
    raise ConfigError(f"{section_of(name)} has an unknown kind: {kind!r}.", remedy=_nearest(kind, [*KINDS, *offered]))


def _locate(name: str, known: Iterable[str]) -> object:
    path = BUILT_IN.get(name, name)
    if ":" in path:
        return _import(name, path)
    offered = _offered()
    if name in offered:
        return _load(name, offered[name].load)
    if name in known:
        message = f"{section_of(name)} has no kind, and no backend of this name is installed."
        raise ConfigError(message, remedy=f'Write for example: kind = "openai". There are: {", ".join(KINDS)}.')
    remedy = _nearest(name, [*BUILT_IN, *offered, *known])
    raise ConfigError(f"The ladder names an unknown backend: {name!r}.", remedy=remedy)


def _offered() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _nearest(name: str, known: Sequence[str]) -> str:
    near = did_you_mean(name, known).rstrip()
    if "." in name and not near:
        return f"A class is written with a colon: {':'.join(name.rsplit('.', 1))!r}."
    return near or f"Known are {', '.join(known)} and package.module:Class."


def _import(name: str, path: str) -> object:
    module, _, attribute = path.partition(":")
    found = _load(name, lambda: importlib.import_module(module), module=module)
    if not hasattr(found, attribute):
        classes = [
            f"{module}:{each}"
            for each, value in vars(found).items()
            if inspect.isclass(value) and issubclass(value, Backend) and value.__module__ == module
        ]
        raise ConfigError(
            f"The backend {name!r} cannot be imported: the module {module} has no {attribute!r}.",
            remedy=f"Its backends are {', '.join(classes)}." if classes else "It has no backend.",
        )
    return getattr(found, attribute)


def _load(name: str, load: Callable[[], object], *, module: str | None = None) -> object:
    """Return what is imported.

    Args:
        name: What the ladder calls the backend.
        load: Imports it.
        module: The module that is asked for, where that is known.

    Raises:
        ConfigError: It cannot be imported.
    """
    try:
        return load()
    except Exception as error:  # a third-party module may raise anything when imported
        if module and isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            message = f"The backend {name!r} cannot be imported: there is no module {error.name!r}."
            raise ConfigError(message, remedy=_where_to_look(str(error.name))) from error
        raise ConfigError(
            f"The backend {name!r} cannot be imported: {type(error).__name__}: {error}.",
            remedy="Install what it needs, or remove it from the ladder.",
        ) from error


def _where_to_look(module: str) -> str:
    """Return how a module is found that is not, such as one in the working directory of the `vision` program."""
    here = Path(module.replace(".", "/"))
    if here.is_dir() or here.with_suffix(".py").is_file():
        return "It is in this folder, where Python does not look by itself: set PYTHONPATH=. before the command."
    return "Install it, or name the folder that it is in: PYTHONPATH=FOLDER before the command."


def _what(found: object) -> str:
    """Return in words what stands where a class of a backend should."""
    if inspect.isclass(found):
        return f"the class {found.__name__}"
    return f"an instance of {type(found).__name__}" if not inspect.isroutine(found) else "a function"
