"""A server that admits so many requests per second: how much of that a list uses, and how often it is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks.timing import Figure, show
from .clients import run_client
from .photos import write_photos
from .upstream import running_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

DELAY_S = 0.1

SHARE = 0.95


LIMITS_PER_S = (20, 50)


def measure_limit(*, seconds: int) -> list[Figure]:
    """Return the figures for each limit; a list keeps the server busy for so many seconds at the least."""
    return [figure for per_s in LIMITS_PER_S for figure in _measure_limit(per_s, seconds)]


def _measure_limit(per_s: int, seconds: int) -> Iterator[Figure]:
    calls = per_s * seconds
    with tempfile.TemporaryDirectory() as name, running_upstream(delay_s=DELAY_S, per_s=per_s) as upstream:
        photos = Path(name)
        list(write_photos(photos, "20 kB", calls + 1))
        spent = run_client("list", url=upstream.url, photos=photos, calls=calls, priority="batch")
        counts = upstream.counts()
    least_s = DELAY_S + (calls + 1 - per_s) / per_s  # the first second's worth is there at once
    used, answered = spent.answered / calls * least_s / spent.wall_s, spent.answered / calls
    label = f"limit of {per_s}/s"
    yield Figure(name=f"{label}: share that is used", value=used, unit="", target=SHARE, at_least=True)
    yield Figure(name=f"{label}: answered by the server", value=answered, unit="of all", target=1, exact=True)
    yield Figure(name=f"{label}: the list", value=spent.wall_s, unit="s")
    yield Figure(name=f"{label}: the list at the limit", value=least_s, unit="s")
    refused = counts["refused"] / max(1, counts["answered"])
    yield Figure(name=f"{label}: refused requests per answer", value=refused, unit="")
    yield Figure(name=f"{label}: CPU per call", value=spent.cpu_ms, unit="ms")


if __name__ == "__main__":
    show("A list at the server's rate limit", measure_limit, options={"seconds": 15})
