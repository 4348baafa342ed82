"""Threads of the operating system, their locks, queues and event loops, also where gevent has replaced these.

This module decides how the engine gets a thread, and how a caller waits for one. It must not know what for. Under
gevent the engine's threads are real ones, and a waiting caller lets the other greenlets run.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from importlib import import_module
from queue import Empty
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from vision_backends.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from queue import SimpleQueue

    class Lock(AbstractContextManager[bool], Protocol):
        """As `threading.Lock`."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...  # noqa: FBT001, FBT002
        def release(self) -> None: ...


__all__ = ["Mailbox", "make_event_loop", "make_lock", "make_queue", "start_thread", "thread_id"]

T = TypeVar("T")


def make_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop, which waits in the operating system."""
    if _is_patched():
        return asyncio.SelectorEventLoop(_original("selectors", "DefaultSelector")())
    return asyncio.new_event_loop()


def make_lock() -> Lock:
    """Return a new `threading.Lock`."""
    lock: Lock = _original("_thread", "allocate_lock")()
    return lock


def make_queue() -> SimpleQueue[Any]:
    """Return a new `queue.SimpleQueue`."""
    queue: SimpleQueue[Any] = _original("queue", "SimpleQueue")()
    return queue


def thread_id() -> int:
    """Return `threading.get_ident`."""
    ident: int = _original("_thread", "get_ident")()
    return ident


def start_thread(target: Callable[[], object], *, name: str) -> None:
    """Start a thread that does not hold up the end of the interpreter.

    Raises:
        OverloadedError: The system starts no more threads.
    """
    try:
        if _is_patched():
            _original("_thread", "start_new_thread")(target, ())
        else:
            threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError as error:
        raise OverloadedError(
            f"No thread could be started: {error}.",
            remedy="Raise the limit of processes and threads (ulimit -u, pids.max), or run fewer.",
        ) from error


class Mailbox(Generic[T]):
    """One item that another thread puts in and a caller waits for."""

    def __init__(self) -> None:
        self._queue = make_queue()
        self._event: Any = None
        if _is_patched():
            from gevent.event import Event

            self._event = Event()

    def put(self, item: T) -> None:
        """Hand the item over, from any thread."""
        self._queue.put(item)
        if self._event is not None:
            self._event.set()

    def get(self, timeout_s: float | None = None) -> T:
        """Return the item once it is there.

        Raises:
            TimeoutError: It was not there in time.
        """
        if self._event is not None:
            self._event.wait(timeout_s)
            timeout_s = 0.0
        try:
            item: T = self._queue.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError from None
        return item


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _original(module: str, name: str) -> Any:  # noqa: ANN401 — whatever is found there
    if _is_patched():
        return sys.modules["gevent.monkey"].get_original(module, name)
    return getattr(import_module(module), name)
