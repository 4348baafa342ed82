"""How far a load or a fetch has got, for those who wait for it.

This module decides how progress is counted and put into words, and when a file is longer than announced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vision_backends.errors import NotReadyError

__all__ = ["Progress", "meter"]


@dataclass(slots=True)
class Progress:
    """How far a load has got; written by the one thread that loads, read by any.

    Attributes:
        stage: What is being done, such as ``"being fetched"``.
        done_bytes: Bytes that are done.
        total_bytes: Bytes in total; 0 while that is not known.
    """

    stage: str = "being loaded"
    done_bytes: int = 0
    total_bytes: int = 0

    def __str__(self) -> str:
        if not self.total_bytes:
            return self.stage
        done_mb, total_mb = self.done_bytes / 1e6, self.total_bytes / 1e6
        return f"{self.stage}: {done_mb:.0f} of {total_mb:.0f} MB, {self.done_bytes / self.total_bytes:.0%}"


def meter(progress: Progress, *, file_bytes: int) -> type[Any]:
    """Return a class of progress bar for huggingface_hub that shows nothing and counts the bytes of a file.

    Plain HTTP writes bytes as they arrive; Xet writes large pieces, and reports received bytes before that.

    Args:
        progress: Where they are counted.
        file_bytes: The announced size. Before more than that is written, the bar raises a `NotReadyError`.
    """
    from tqdm import tqdm

    class Meter(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(disable=True)
            self._before_bytes = progress.done_bytes
            self._written_bytes = self._received_bytes = 0

        def update(self, n: float | None = 1) -> None:
            self._written_bytes += int(n or 0)
            if self._written_bytes > file_bytes:
                message = f"The hub sent more than the {file_bytes} bytes that it announced for a file."
                raise NotReadyError(message, remedy="Fetch it again.", code="damaged")
            self._count()

        def update_transfer(self, n: float | None = 1) -> None:
            self._received_bytes += int(n or 0)
            self._count()

        def set_transfer_postfix_str(self, *_: object, **__: object) -> None:
            """Show nothing."""

        def _count(self) -> None:
            here_bytes = min(file_bytes, max(self._written_bytes, self._received_bytes))
            progress.done_bytes = self._before_bytes + here_bytes

    return Meter
