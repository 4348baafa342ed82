"""Threads of the operating system, their locks, queues and event loops, also where gevent has replaced these.

This module decides how the engine gets a thread, how a caller waits for one, and how long the interpreter's exit waits
for threads in native code: torch, OpenVINO or onnxruntime would abort the process if they were stopped there. It must
not know what the threads do. Under gevent they are real ones, and a waiting caller lets the other greenlets run.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from queue import Empty
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from vision_backends.errors import NotReadyError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from queue import SimpleQueue

    class Lock(AbstractContextManager[bool], Protocol):
        """As `threading.Lock`."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...  # noqa: FBT001, FBT002
        def release(self) -> None: ...


__all__ = [
    "LoopCallbacks",
    "Mailbox",
    "Outcome",
    "after_fork_in_child",
    "awaited_at_exit",
    "beside",
    "callbacks_of",
    "ending_error",
    "finished_before_fork",
    "interpreter_ends",
    "make_event_loop",
    "make_lock",
    "make_queue",
    "start_thread",
    "thread_id",
]

T = TypeVar("T")

LONGEST_FORK_WAIT_S = 10.0
"""How long a fork waits for what should be finished before; importing torch takes some seconds."""

FORK_POLL_S = 0.005

AT_ONCE = 16
"""Callbacks of other threads that run on a loop before others have their turn."""

WITH_HOOKS = ("concurrent.futures.thread", "filelock")
"""Modules that torch and huggingface_hub import, and whose hooks for forks must not first appear while one waits: of a
pair of them the second alone would be called."""


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

    __slots__ = ("_event", "_queue")

    def __init__(self) -> None:
        self._queue = make_queue()
        self._event: Any = None
        if "gevent.monkey" in sys.modules and _is_patched():
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


class LoopCallbacks:
    """Has callbacks of other threads run on an event loop, which is woken up once for all that come until it looks.

    To wake it up takes a write to a socket, where the thread loses its turn; the loop may be busy for many of these.
    The loop is not kept alive.

    Args:
        loop: The loop.
    """

    __slots__ = ("_due", "_is_woken", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._due: deque[Callable[[], object]] = deque()
        self._is_woken = False

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have something called soon, in no context in particular, in the order of these calls; from any thread.

        Raises:
            RuntimeError: The loop is closed.
        """
        loop = self._loop()
        if loop is None or loop.is_closed():
            raise RuntimeError("Event loop is closed")
        self._due.append(callback)
        if self._is_woken:
            return
        try:
            self._is_woken = True  # two threads may both wake it
            loop.call_soon_threadsafe(self._answer, context=contextvars.Context())
        except BaseException:  # also if the caller is interrupted: the next one wakes it
            self._is_woken = False
            raise

    def _answer(self) -> None:
        self._is_woken = False  # first: what is put from now on may not be seen below
        try:
            for _ in range(AT_ONCE):
                if not self._due:
                    return
                self._due.popleft()()
        finally:
            if self._due:
                asyncio.get_running_loop().call_soon(self._answer)


class _CallbacksByLoop:
    """One for each loop, whoever has something for it."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopCallbacks] = weakref.WeakKeyDictionary()

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopCallbacks:
        """Return that of a loop."""
        return self._of.get(loop) or self._of.setdefault(loop, LoopCallbacks(loop))


_callbacks_by_loop = _CallbacksByLoop()
"""All of the process."""


def callbacks_of(loop: asyncio.AbstractEventLoop) -> LoopCallbacks:
    """Return what has callbacks of other threads run on an event loop; the same for everybody."""
    return _callbacks_by_loop.of(loop)


class Outcome(Generic[T]):
    """What was returned or raised in another thread."""

    __slots__ = ("_result", "error")

    def __init__(self, result: T | None, error: BaseException | None) -> None:
        self._result = result
        self.error = error

    @classmethod
    def of(cls, action: Callable[[], T]) -> Outcome[T]:
        """Return how a call ends."""
        try:
            return cls(action(), None)
        except BaseException as error:  # noqa: BLE001 — raised where it is waited for
            return cls(None, error)

    def unwrap(self) -> T:
        """Return the result or raise the error, once."""
        if self.error is None:
            return self._result  # type: ignore[return-value]
        try:
            raise self.error
        finally:
            self.error = None  # its traceback refers to this frame: leave no circle behind


def beside(action: Callable[[], T], *, name: str) -> Callable[[], T]:
    """Begin a call in a thread of its own, and return what waits for its outcome.

    Where no thread can be started, the call is made when its outcome is waited for.

    Args:
        action: What to do beside the caller.
        name: How the thread is called.
    """
    mailbox: Mailbox[Outcome[T]] = Mailbox()
    try:
        start_thread(lambda: mailbox.put(Outcome.of(action)), name=name)
    except OverloadedError:
        return action
    return lambda: mailbox.get().unwrap()


def interpreter_ends() -> bool:
    """Return whether only daemon threads are left; a script whose other threads are still working has not ended."""
    if threading.main_thread().is_alive():
        return False
    return all(thread.daemon or not thread.is_alive() for thread in threading.enumerate())


def ending_error() -> NotReadyError:
    """Return the error for work that is asked for while the interpreter ends."""
    return NotReadyError("Python is shutting down; no new work is started.", code="ending")


class _Exit:
    """The blocks that the interpreter's exit waits for.

    They share one hook: Python keeps the place of every hook that was ever registered, and looks through all of them.
    """

    def __init__(self) -> None:
        self._blocks: dict[Lock, tuple[float, int]] = {}
        self._is_hooked = False

    def enter(self, timeout_s: float) -> Lock:
        """Have the exit wait for a block, which holds the returned lock until it is left."""
        block = make_lock()
        block.acquire()
        self._blocks[block] = (timeout_s, os.getpid())
        if not self._is_hooked:
            self._is_hooked = True
            atexit.register(self._wait)
        return block

    def leave(self, block: Lock) -> None:
        """Let the exit go on without a block."""
        del self._blocks[block]
        block.release()

    def _wait(self) -> None:
        began = time.monotonic()
        for block, (timeout_s, process) in self._blocks.copy().items():
            if process == os.getpid():  # a forked child has not the threads of its parent
                block.acquire(timeout=max(0.0, began + timeout_s - time.monotonic()))


_exit = _Exit()
"""One for the whole process, as is the interpreter."""


@contextmanager
def awaited_at_exit(timeout_s: float) -> Iterator[None]:
    """Have the interpreter's exit wait until the block is left, for at most ``timeout_s`` seconds.

    Raises:
        NotReadyError: The interpreter ends already.
    """
    block = _exit.enter(timeout_s)
    try:
        if interpreter_ends():  # asked after entering, as the exit looks only once at what is there
            raise ending_error()
        yield
    finally:
        _exit.leave(block)


class _Children:
    """What is renewed in each forked child; one hook for all, as hooks cannot be removed."""

    def __init__(self) -> None:
        self._renewals: weakref.WeakKeyDictionary[object, Callable[[Any], object]] = weakref.WeakKeyDictionary()
        self._is_hooked = False

    def add(self, owner: T, renew: Callable[[T], object]) -> None:
        """Have a function called with an object in every child, as long as the object is in use."""
        if not self._is_hooked and hasattr(os, "register_at_fork"):  # Windows does not fork
            self._is_hooked = True
            os.register_at_fork(after_in_child=self._renew)
        self._renewals[owner] = renew

    def _renew(self) -> None:
        for owner, renew in list(self._renewals.items()):
            renew(owner)


_children = _Children()
"""One for the whole process, as is the fork."""


def after_fork_in_child(owner: T, renew: Callable[[T], object]) -> None:
    """Have an object renewed in every forked child: its locks, which another thread may have held, and its work.

    Args:
        owner: The object; it is not kept alive.
        renew: Called with it, in the child; must not refer to it otherwise.
    """
    _children.add(owner, renew)


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


@cache
def _original(module: str, name: str) -> Any:  # noqa: ANN401 — whatever is found there
    if "gevent.monkey" in sys.modules and _is_patched():
        return sys.modules["gevent.monkey"].get_original(module, name)
    return getattr(import_module(module), name)


class _Fork:
    """The blocks that a fork waits for; one hook for all, as hooks cannot be removed.

    While they are looked through no other begins, so the lock is held across the fork.
    """

    def __init__(self) -> None:
        self._lock = make_lock()
        self._blocks: list[int] = []
        self._is_hooked = self._is_awaited = False

    def enter(self) -> None:
        """Have a fork by any other thread wait, unless one waits already: then it comes first."""
        end = time.monotonic() + LONGEST_FORK_WAIT_S
        while self._is_awaited and thread_id() not in self._blocks and time.monotonic() < end:
            _original("time", "sleep")(FORK_POLL_S)
        with self._lock:
            for name in WITH_HOOKS:
                if find_spec(name) is not None:
                    import_module(name)
            self._blocks.append(thread_id())
            if not self._is_hooked and hasattr(os, "register_at_fork"):
                self._is_hooked = True
                os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self._renew)

    def leave(self) -> None:
        """Let forks go on without the block."""
        with self._lock:
            self._blocks.remove(thread_id())

    def _wait(self) -> None:
        sleep, end = _original("time", "sleep"), time.monotonic() + LONGEST_FORK_WAIT_S
        self._is_awaited = True
        self._lock.acquire()
        while set(self._blocks) - {thread_id()} and time.monotonic() < end:
            self._lock.release()
            sleep(FORK_POLL_S)
            self._lock.acquire()

    def _go_on(self) -> None:
        self._is_awaited = False
        self._lock.release()

    def _renew(self) -> None:
        self._lock, self._is_awaited = make_lock(), False
        self._blocks = [each for each in self._blocks if each == thread_id()]


_fork = _Fork()
"""One for the whole process, as is the fork."""


@contextmanager
def finished_before_fork() -> Iterator[None]:
    """Have a fork by another thread wait until the block is left, for at most `LONGEST_FORK_WAIT_S`.

    For imports, above all: whatever a thread was importing when the process was forked can never be imported in the
    child, as the lock of the module is held there by a thread that does not exist.
    """
    _fork.enter()
    try:
        yield
    finally:
        _fork.leave()
