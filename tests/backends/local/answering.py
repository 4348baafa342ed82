"""Calling the coroutines of a backend from a test, which has no event loop of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.engine.event_loop import engine_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def answer(task: Callable[..., Coroutine[Any, Any, Any]], *args: object, **options: object) -> Any:
    """Return what a task of a backend answers, run on the engine's event loop."""
    return engine_loop().run(lambda: task(*args, **options))
