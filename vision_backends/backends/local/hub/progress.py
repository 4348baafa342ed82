"""How far a download is, for whoever waits for it.

This module decides nothing but how that is counted and told.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(slots=True)
class Progress:
    """How far a load is; written by the one thread that loads, read by any.

    Attributes:
        stage: What is being done, such as ``"being fetched"``.
        done_bytes: Bytes of it that are there.
        total_bytes: Bytes that it will be; 0 while that is not known.
    """

    stage: str = "being loaded"
    done_bytes: int = 0
    total_bytes: int = 0

    def __str__(self) -> str:
        if not self.total_bytes:
            return self.stage
        done_mb, total_mb = self.done_bytes / 1e6, self.total_bytes / 1e6
        return f"{self.stage}: {done_mb:.0f} of {total_mb:.0f} MB, {self.done_bytes / self.total_bytes:.0%}"
