"""What survives a call, a process or a restart: cached answers, the ledger, shared states."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vision_backends.storage.base import StoreError, Stores

if TYPE_CHECKING:
    import os

    from vision_backends.clock import Clock
    from vision_backends.storage.base import Store

__all__ = ["Stores", "open_store"]

OPEN_S = 1.0
"""How long a file is waited for that another process has locked, or whose disk does not answer, before it is needed."""

_log = logging.getLogger(__name__)


def open_store(
    path: str | os.PathLike[str] | None,
    *,
    max_cache_bytes: int | None = None,
    clock: Clock | None = None,
    is_ours: bool = False,
) -> Store:
    """Return the store in a file, or one in memory where none is named.

    A file that cannot be used now is opened when it can: until then its store raises `StoreError`, and a router that
    has it keeps in memory what it would keep there.

    Args:
        path: The file; None asks for memory.
        max_cache_bytes: Room for cached answers; each kind of store has its own default, which is also the most
            that one in memory takes.
        clock: Where time comes from; the machine's by default.
        is_ours: Whether nobody but this package keeps files at this path: what lies there may be moved aside.

    Raises:
        ConfigError: The file is not ours, or was written by a newer version of this package.
    """
    from vision_backends.clock import SYSTEM_CLOCK
    from vision_backends.storage.memory import MAX_CACHE_BYTES as MAX_MEMORY_BYTES
    from vision_backends.storage.memory import MemoryStore

    if path is None:
        return MemoryStore(max_cache_bytes=min(max_cache_bytes or MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    from vision_backends.storage.bounded import bounded
    from vision_backends.storage.sqlite import MAX_CACHE_BYTES, SQLiteStore

    store = SQLiteStore(
        path,
        max_cache_bytes=max_cache_bytes or MAX_CACHE_BYTES,
        clock=clock or SYSTEM_CLOCK,
        is_ours=is_ours,
        opens_later=True,
    )
    try:
        bounded(store.open, wait_s=OPEN_S)
    except StoreError as error:
        _log.warning("%s Until it can, cache, ledger and gates live in memory.", error)
    return store
