"""A thousand calls in flight by one asynchronous router, at a server that takes two seconds for each."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..checks.timing import Figure, show
from .clients import run_client
from .lists import show_modules
from .photos import write_photos
from .upstream import running_upstream

DELAY_S = 2.0

SHARE = 0.8
"""Of the answers per second that are possible, so many at least: 400 of 500."""

MEMORY_MB = 300

PHOTOS = 64
"""Files on disk; each call gets one of them as another file."""


def measure_flight(*, callers: int, ramp_s: int, window_s: int) -> list[Figure]:
    """Return the figures.

    Args:
        callers: Calls in flight.
        ramp_s: Seconds until answers count, in which calls in flight become that many.
        window_s: Seconds in which answers are counted.
    """
    with tempfile.TemporaryDirectory() as name, running_upstream(delay_s=DELAY_S) as upstream:
        photos = Path(name)
        list(write_photos(photos, "20 kB", PHOTOS))
        spent = run_client(
            "in-flight",
            url=upstream.url,
            photos=photos,
            calls=callers,
            environment={"VISION_OPENAI__CONCURRENCY": str(callers)},
            ramp_s=ramp_s,
            window_s=window_s,
            profiled=1,
        )
        most_open = upstream.counts()["most_open"]
    possible = callers / DELAY_S
    median_s, late_s, _ = spent.slowest_s or (0.0, 0.0, 0.0)
    return [
        Figure(name="answers per second", value=spent.per_s, unit="/s", target=possible * SHARE, at_least=True),
        Figure(name="answers per second that are possible", value=possible, unit="/s"),
        Figure(name="peak memory", value=spent.peak_bytes / 1e6, unit="MB", target=MEMORY_MB),
        Figure(name="calls that the server did not answer in time", value=spent.missed or 0, unit="", target=0),
        Figure(name="calls in flight at the server, at most", value=most_open, unit=""),
        Figure(name="a call's time beyond the server's, median", value=median_s - DELAY_S, unit="s"),
        Figure(name="a call's time beyond the server's, 99th percentile", value=late_s - DELAY_S, unit="s"),
        Figure(name="CPU per call", value=spent.cpu_ms, unit="ms"),
        *show_modules("in flight", spent),
    ]


if __name__ == "__main__":
    show(
        f"A thousand calls in flight at a server of {DELAY_S:.0f} s",
        measure_flight,
        options={"callers": 1000, "ramp_s": 20, "window_s": 15},
    )
