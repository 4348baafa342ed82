"""Answers and attempts that are on their way to a store.

This module decides how many of them are kept in memory until the store has taken them, and that those of a call are
written in one go where one store keeps both. It must not know when something is written, nor what the bytes mean.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from vision_backends.storage.base import MAX_ENTRY_BYTES
from vision_backends.storage.guard import Guard
from vision_backends.storage.write_behind import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vision_backends.storage.base import Answers, Ledger, LedgerRow
    from vision_backends.storage.guard import Threads

__all__ = ["Backlog"]

MAX_PENDING_BYTES = 64_000_000
"""Answers that are kept for a store that is away; the oldest make room."""

MAX_PENDING_ROWS = 100_000
"""Attempts that are kept for one; more are lost, which the log says."""


class Backlog(Guard):
    """What a store has not taken yet. Safe for many threads.

    Args:
        store: The store.
        threads: What writes to it.
        write: Hands it answers, by their keys, and attempts: all of them or none.
        is_joint: Whether it gets both: an answer then waits for its call's attempts, which are booked in a moment.
    """

    def __init__(
        self,
        store: Answers | Ledger,
        threads: Threads,
        write: Callable[[Mapping[str, bytes], Sequence[LedgerRow]], object],
        *,
        is_joint: bool = False,
    ) -> None:
        self._hand_over = write
        self._is_joint = is_joint
        super().__init__(store, threads)

    def begin(self) -> None:
        """Do as every guard."""
        super().begin()
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._answers_bytes = 0
        self._rows: list[LedgerRow] = []
        self._tried = 0
        self._is_due = False

    def add_answer(self, key: str, value: bytes) -> None:
        """Have an answer kept."""
        if len(value) > MAX_ENTRY_BYTES:
            return
        with self._lock:
            self._answers_bytes += len(value) - len(self._answers.pop(key, b""))
            self._answers[key] = value
            while self._answers_bytes > MAX_PENDING_BYTES:
                self._answers_bytes -= len(self._answers.popitem(last=False)[1])
            self._make_due()
        if not self._is_joint:
            self._writer.start()

    def add_rows(self, rows: Sequence[LedgerRow]) -> None:
        """Have attempts booked."""
        with self._lock:
            if len(self._rows) + len(rows) > MAX_PENDING_ROWS:
                self._overflows("attempts")
                return
            self._rows += rows
            self._make_due()
        self._writer.start()

    def answers_of(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return those of some answers that have not arrived yet, by their keys and in their order."""
        with self._lock:
            return {key: self._answers[key] for key in keys if key in self._answers}

    def rows_of(self, since: float, until: float) -> list[LedgerRow]:
        """Return the attempts of a time that are not booked yet."""
        with self._lock:
            return [row for row in self._rows if since <= row.at < until]

    def forget_answers(self) -> None:
        """Keep no answer that has not arrived yet."""
        with self._lock:
            self._answers.clear()
            self._answers_bytes = 0

    def _make_due(self) -> None:
        """Have the writer know, under the lock: who asks it whether all is written must not come in between."""
        if not self._is_due:
            job = Job(self._write, what="answers and attempts", counts=self._counts, on_lost=self._lose)
            self._writer.put(job, starts=False)
            self._is_due = True  # last: interrupted before, the next one puts another

    def _counts(self) -> Mapping[str, int]:
        return {"attempts": len(self._rows), "answers": len(self._answers)}

    def _write(self) -> None:
        """Hand over what there is; in the writer's thread."""
        with self._lock:
            self._is_due = False  # what comes from now on needs another job
            answers, rows = self._answers.copy(), self._rows.copy()
            self._tried = len(rows)
        try:
            if answers or rows:
                self._hand_over(answers, rows)
        except BaseException:
            self._is_due = True  # this job is tried again
            raise
        with self._lock:
            del self._rows[: len(rows)]
            for key, value in answers.items():
                if self._answers.get(key) is value:
                    del self._answers[key]
                    self._answers_bytes -= len(value)

    def _lose(self) -> None:
        self.forget_answers()
        with self._lock:
            del self._rows[: self._tried]
            self._is_due = False
