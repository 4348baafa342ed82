"""Identifiers of calls: no two are alike, in whichever process.

This module decides how they are made: asking the system for each would take longer than everything else about it. It
must not know what is identified. They are no secrets.
"""

from __future__ import annotations

import os
import random

from vision_backends.engine.threads import after_fork_in_child

__all__ = ["Identifiers"]


class Identifiers:
    """Makes identifiers, from a seed of its own. Safe for many threads."""

    def __init__(self) -> None:
        self._renew()
        after_fork_in_child(self, Identifiers._renew)

    def _renew(self) -> None:
        self._random = random.Random(os.urandom(16))  # noqa: S311 — the program's own numbers stay as they are

    def new(self) -> str:
        """Return 16 hexadecimal digits."""
        return f"{self._random.getrandbits(64):016x}"
