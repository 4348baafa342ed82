"""The ladder's own cost: how many calls of the package's functions one answer takes, on rungs that cost nothing.

Counted are all threads, from the caller's call to its return and until what is written behind it has been written. The
figure is the median of some calls, because threads may meet in one order or another; ``--listed 1`` prints them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks.timing import Figure, measure, show
from .call_counter import CallCounter

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from vision_backends import Router
    from vision_backends.testing import FakeBackend

TARGETS = {"healthy": 150, "gate blocked": 250, "refused": 450, "cached": None}
"""Calls for an answer of the first rung; of the last one, after the gate or the server of the first has refused; and of
the cache."""

BEHIND_S = 0.25
"""What is written behind a call has been written after this."""

WARM_UP = 2

LIST = 100

TIMED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What one call came to.

    Attributes:
        calls: Calls of the package's functions.
        file_looks: How often a file was looked at.
        statements: How many statements SQLite was given.
        rooms: The calls by room.
    """

    calls: int
    file_looks: int
    statements: int
    rooms: Counter[str]


def measure_ladder(*, calls: int, listed: int) -> list[Figure]:
    """Return the figures; each is the median of so many calls."""
    counter = CallCounter()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = {case: list(_count(case, counter, folder, calls=calls)) for case in TARGETS}
        idle = list(_count("healthy", counter, folder, calls=calls, idle=True))
        if listed:
            for (file, name), count in sorted(counter.functions.items()):
                print(f"{count:4} {file} {name}", file=sys.stderr)
        listing = _count_list(counter, folder)
        counter.leave()
        timed_ms = {case: list(_time(case, folder)) for case in ("healthy", "cached")}
    medians = {case: statistics.median(each.calls for each in counted) for case, counted in found.items()}
    figures = [
        measure(f"{case}: calls of our functions", [each.calls for each in found[case]], "", target=target)
        for case, target in TARGETS.items()
    ]
    looks, usual_looks = (statistics.fmean(each.file_looks for each in some) for some in (idle, found["healthy"]))
    return [
        *figures,
        Figure(name="looks at files for an idle local rung", value=looks - usual_looks, unit="", target=0),
        Figure(
            name="calls for an idle local rung",
            value=statistics.median(each.calls for each in idle) - medians["healthy"],
            unit="",
        ),
        Figure(name=f"calls of our functions in a list of {LIST}, each", value=listing.calls / LIST, unit=""),
        Figure(name="statements of SQLite in a call", value=_statements(found["healthy"]), unit=""),
        Figure(name=f"statements of SQLite in a list of {LIST}, each", value=listing.statements / LIST, unit=""),
        *(measure(f"{case}: CPU of a call", times_ms, "ms") for case, times_ms in timed_ms.items()),
        *(figure for case in TARGETS for figure in _show_rooms(case, found[case])),
    ]


def _statements(counted: list[Counted]) -> float:
    return statistics.median(each.statements for each in counted)


def _show_rooms(case: str, counted: list[Counted]) -> Iterator[Figure]:
    """Yield how many of the calls are whose, where they are too many."""
    usual = sorted(counted, key=lambda each: each.calls)[len(counted) // 2]
    target = TARGETS[case]
    if target is not None and usual.calls > target:
        for room, calls in usual.rooms.most_common():
            yield Figure(name=f"{case}: calls in {room}", value=calls, unit="")


def _count(case: str, counter: CallCounter, folder: Path, *, calls: int, idle: bool = False) -> Iterator[Counted]:
    """Yield what calls of one kind come to, one after the other."""
    with ExitStack() as stack:
        router, first = _router(stack, folder, idle=idle)
        for number in range(calls + WARM_UP):
            photo = _prepare(case, router, first, number)
            counter.begin()
            answer = router.describe(photo)
            time.sleep(BEHIND_S)
            count = counter.end()
            if answer.trace.backend != ("first" if case in {"healthy", "cached"} else "last"):
                raise AssertionError(f"{case}: {answer.trace}")
            if number >= WARM_UP:
                yield Counted(
                    calls=count,
                    file_looks=counter.file_looks,
                    statements=counter.statements,
                    rooms=counter.rooms(),
                )


def _count_list(counter: CallCounter, folder: Path) -> Counted:
    with ExitStack() as stack:
        router, _ = _router(stack, folder)
        router.describe(_photo(0))
        time.sleep(BEHIND_S)
        counter.begin()
        router.describe_many([_photo(number) for number in range(1, LIST + 1)])
        time.sleep(BEHIND_S)
        calls = counter.end()
        return Counted(calls=calls, file_looks=counter.file_looks, statements=counter.statements, rooms=counter.rooms())


def _time(case: str, folder: Path) -> Iterator[float]:
    """Yield the CPU milliseconds of calls, those of all threads until the call returns."""
    with ExitStack() as stack:
        router, first = _router(stack, folder)
        for number in range(TIMED + WARM_UP):
            photo = _prepare(case, router, first, number)
            before_s = time.process_time()
            router.describe(photo)
            if number >= WARM_UP:
                yield (time.process_time() - before_s) * 1e3


def _router(stack: ExitStack, folder: Path, *, idle: bool = False) -> tuple[Router, FakeBackend]:
    """Return a router with gates, ledger and cache in SQLite, and its first rung; an idle local rung may be between."""
    from vision_backends import Router
    from vision_backends.backends.local import LocalBackend
    from vision_backends.storage import open_store
    from vision_backends.testing import FakeBackend

    first, last = FakeBackend("first"), FakeBackend("last")
    between = [LocalBackend(download="never")] if idle else []
    store = open_store(Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder))) / "state.sqlite")
    return stack.enter_context(Router([first, *between, last], store=store)), first


def _prepare(case: str, router: Router, first: FakeBackend, number: int) -> bytes:
    """Set the rungs as a case has them, and return the photo to ask about."""
    from vision_backends import QuotaExhaustedError

    if case == "refused" or (case == "gate blocked" and number == 0):
        router.reset()
        time.sleep(BEHIND_S)
        first.play(QuotaExhaustedError("The account is empty.", backend="first", code="insufficient_quota"))
    return _photo(0 if case == "cached" else number)


def _photo(number: int) -> bytes:
    """Return a small picture that no other number has."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (number % 256, number // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    show("The ladder's own cost", measure_ladder, options={"calls": 15, "listed": 0})
