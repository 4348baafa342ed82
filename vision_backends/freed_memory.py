"""Memory that is free and yet still the process's: glibc keeps it, in pieces, for each of its arenas.

This module decides how it is returned to the system. It must not know who has freed it.
"""

from __future__ import annotations

from contextlib import suppress

__all__ = ["return_freed_memory"]


def return_freed_memory() -> None:
    """Return freed memory to the system where the C library keeps it; takes 3 to 6 ms. See malloc_trim(3)."""
    import ctypes

    with suppress(AttributeError, OSError, TypeError):  # another library than glibc, or another system
        ctypes.CDLL(None).malloc_trim(0)
