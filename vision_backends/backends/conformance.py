"""What a backend of somebody else's lacks, before it is asked for the first time.

This module decides which faults of an instance are certain, so that a ladder refuses it with the words that mend it. It
must not refuse what could work: a decorator may hide that a method is a coroutine.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, NamedTuple

from vision_backends.backends.base import AsyncBackend, Backend
from vision_backends.backends.texts import half_character
from vision_backends.types import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Defect", "defect_of"]


class Defect(NamedTuple):
    """Why an instance is no rung.

    Attributes:
        words: What is wrong, to stand after what the backend is called.
        remedy: What to write.
    """

    words: str
    remedy: str


def defect_of(backend: Backend) -> Defect | None:
    """Return what an instance certainly lacks; None where nothing is known to be wrong."""
    return next(_defects(backend, type(backend).__name__), None)


def _defects(backend: Backend, kind: str) -> Iterator[Defect]:
    name = getattr(backend, "name", None)
    if not isinstance(name, str) or not name:
        yield Defect("has no name", f'Set {kind}.name = "…".')
    elif half_character(name) is not None:
        yield Defect(f"has the name {name!a}, which is not valid Unicode", f'Set {kind}.name = "…".')
    tasks = [task for task in TASKS if _defines(backend, task)]
    if not tasks:
        yield Defect("has no task", f"Define at least one in {kind}: {', '.join(TASKS)}.")
    for task in tasks:
        yield from _defects_of_method(backend, kind, task, "texts" if task == "embed_text" else "images")
    if _defines(backend, "describe_stream"):
        yield from _defects_of_method(backend, kind, "describe_stream", "image")


def _defines(backend: Backend, method: str) -> bool:
    """Return whether a method is not the one that only refuses."""
    own = getattr(getattr(backend, method), "__func__", None)
    return own is not vars(AsyncBackend)[method] and own is not vars(Backend)[method]


def _defects_of_method(backend: Backend, kind: str, method: str, inputs: str) -> Iterator[Defect]:
    found = getattr(backend, method)
    if not isinstance(backend, AsyncBackend) and (
        inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)
    ):
        yield Defect(
            f"has a coroutine {method}, but is not an AsyncBackend",
            f"Let {kind} subclass AsyncBackend, or write a plain {method}.",
        )
    try:
        inspect.signature(found).bind([], None, timeout_s=1.0)
    except TypeError as error:
        yield Defect(
            f"has a {method} that cannot be called: {error}",
            f"Write it as: def {method}(self, {inputs}, request, *, timeout_s)",
        )
    except ValueError:
        return  # something that says nothing of its parameters
