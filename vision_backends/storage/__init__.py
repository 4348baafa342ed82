"""What survives a call, a process or a restart: cached answers, the ledger, shared states."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vision_backends.storage.base import Stores

if TYPE_CHECKING:
    import os

    from vision_backends.clock import Clock
    from vision_backends.storage.base import Store

__all__ = ["Stores", "open_store"]

_log = logging.getLogger(__name__)


def open_store(
    path: str | os.PathLike[str] | None,
    *,
    max_cache_bytes: int | None = None,
    clock: Clock | None = None,
) -> Store:
    """Return the store in a file or, where the file cannot be written, one in memory with a warning in the log.

    Args:
        path: The file; None asks for memory.
        max_cache_bytes: Room for cached answers; each kind of store has its own default, which is also the most
            that one in memory takes.
        clock: Where time comes from; the machine's by default.

    Raises:
        ConfigError: The file was written by a newer version of this package.
    """
    from vision_backends.clock import SYSTEM_CLOCK
    from vision_backends.storage.memory import MAX_CACHE_BYTES as MAX_MEMORY_BYTES
    from vision_backends.storage.memory import MemoryStore

    if path is not None:
        from vision_backends.storage.sqlite import MAX_CACHE_BYTES, SQLiteStore

        try:
            return SQLiteStore(path, max_cache_bytes=max_cache_bytes or MAX_CACHE_BYTES, clock=clock or SYSTEM_CLOCK)
        except OSError as error:
            _log.warning("%s Cache, ledger and gates live in memory until this process ends.", error)
    return MemoryStore(max_cache_bytes=min(max_cache_bytes or MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
