"""State files in each of which one byte is wrong, and what routers make of them.

A file that has been used is copied, one byte of the copy is changed, and a router is made on it that describes a
picture, reads its ledger and its cache, and is closed. Whatever the byte was: the call is answered, nothing raises but
what says that the store cannot be used now, and the file stays in its place or lies beside it.
"""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from PIL import Image as PILImage
from timing import Figure, show

from vision_backends import Router, UnavailableError, Usage
from vision_backends.health.budgets import Limits
from vision_backends.storage import open_store
from vision_backends.storage.base import StoreError
from vision_backends.testing import FakeBackend

USAGE = Usage(input_tokens=100, output_tokens=20, cost_usd=0.001)

HEADER_BYTES = 130
"""Every byte of the database header and of the beginning of the first table is changed; of the others some."""


def make_router(state: Path) -> Router:
    """Return a router with a rung that costs money, and one below."""
    paid = FakeBackend("paid", local=False, credential="account", usage=USAGE)
    return Router([paid, FakeBackend("spare")], store=open_store(state), limits={"paid": Limits(daily_budget_usd=1e6)})


def use(state: Path, *, calls: int) -> None:
    """Leave something of every kind in a state file, and nothing in its log."""
    with make_router(state) as router:
        for number in range(calls):
            router.describe(PILImage.new("RGB", (8, 8), (number, 0, 0)))
        broken = FakeBackend("broken", credential="other")
        broken.play(*[UnavailableError("Out of order.")] * 5)
    with Router([broken, FakeBackend("spare")], store=open_store(state), caching=False) as router:
        for _ in range(5):
            router.describe(PILImage.new("RGB", (8, 8)))


def try_file(state: Path) -> list[str]:
    """Return what went wrong with a state file."""
    faults = []
    try:
        with make_router(state) as router:
            if router.describe(PILImage.new("RGB", (9, 9))).trace.backend not in {"paid", "spare"}:
                faults.append("answer")
            for read in (lambda: list(router.ledger()), router.cache_info, router.status, router.gates):
                try:
                    read()
                except StoreError:
                    faults.append("said")
    except Exception as error:  # noqa: BLE001 — this is what is looked for
        faults.append(f"raised {type(error).__name__}: {error}")
    return faults


def measure_damage(files: int, seed: int) -> list[Figure]:
    """Return the figures."""
    logging.getLogger("vision_backends").setLevel(logging.CRITICAL)
    chance = random.Random(seed)  # noqa: S311 — repeatable on purpose
    seen: Counter[str] = Counter()
    aside = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        used = Path(name, "used.sqlite")
        use(used, calls=40)
        size = used.stat().st_size
        places = [*range(HEADER_BYTES), *(chance.randrange(HEADER_BYTES, size) for _ in range(files - HEADER_BYTES))]
        for number, place in enumerate(places[:files]):
            folder = Path(name, str(number))
            folder.mkdir()
            state = folder / "state.sqlite"
            shutil.copyfile(used, state)
            with state.open("r+b") as file:
                file.seek(place)
                (before,) = file.read(1)
                file.seek(place)
                file.write(bytes([before ^ chance.choice([0xFF, 1 << chance.randrange(8)])]))
            for fault in try_file(state):
                seen[fault.split(":")[0]] += 1
            aside += any(".damaged-" in path.name for path in folder.iterdir())
            shutil.rmtree(folder, ignore_errors=True)  # a thread that was left behind may still close its file
    raised = sum(count for fault, count in seen.items() if fault not in {"answer", "said"})
    return [
        Figure(name="files with one wrong byte", value=files, unit=""),
        Figure(name="of which were moved aside", value=aside, unit=""),
        Figure(name="readings that said that the store could not be used", value=seen["said"], unit=""),
        Figure(name="calls without an answer", value=seen["answer"], unit="", target=0),
        Figure(name=f"errors {dict(seen) if raised else ''}".strip(), value=raised, unit="", target=0),
    ]


if __name__ == "__main__":
    show("State files with one wrong byte", measure_damage, options={"files": 260, "seed": 0})
