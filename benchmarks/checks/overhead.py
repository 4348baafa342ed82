"""What the router adds to a call of a backend that takes next to no time."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image as PILImage
from timing import Figure, measure, show, time_in_turns

from vision_backends import DescribeRequest, EmbedTextRequest, Router, open_image
from vision_backends.testing import FakeBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 3000

TIMEOUT_S = 60.0

BARE = """
ladder = ["vision_backends.testing:FakeBackend"]
state = "memory"
cache.enabled = false
"""

BOOKED = """
ladder = ["vision_backends.testing:FakeBackend"]
state = "state.sqlite"
"""


def make_router(folder: Path, name: str, text: str) -> Router:
    """Return a router that is configured by a file."""
    config = folder / f"{name}.toml"
    config.write_text(text.replace("state.sqlite", str(folder / "state.sqlite")), encoding="utf-8")
    return Router.from_config(config)


def measure_overhead() -> list[Figure]:
    """Return the figures: the router's median less the backend's, for new texts and images and for known ones.

    Opening the image counts as the backend's time here: without a router, the caller has to do it, too.
    """
    backend = FakeBackend()
    pictures = [PILImage.new("RGB", (8, 8), (place % 256, place // 256, 0)) for place in range(ROUNDS)]
    describe, embed_text = DescribeRequest(), EmbedTextRequest()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        bare = stack.enter_context(make_router(folder, "bare", BARE))
        booked = stack.enter_context(make_router(folder, "booked", BOOKED))
        known = PILImage.new("RGB", (8, 8), "white")
        booked.describe(known)
        booked.embed_text("known")
        actions: dict[str, Callable[[int], object]] = {
            "describe": lambda n: backend.describe([open_image(pictures[n])], describe, timeout_s=TIMEOUT_S),
            "describe, router": lambda n: bare.describe(pictures[n]),
            "describe, booked": lambda n: booked.describe(pictures[n]),
            "describe, known": lambda _: booked.describe(known),
            "embed_text": lambda n: backend.embed_text([f"text {n}"], embed_text, timeout_s=TIMEOUT_S),
            "embed_text, router": lambda n: bare.embed_text(f"text {n}"),
            "embed_text, booked": lambda n: booked.embed_text(f"text {n}"),
            "embed_text, known": lambda _: booked.embed_text("known"),
        }
        taken_s = time_in_turns(actions, rounds=ROUNDS)
    rows = {"router": ("no cache", 100), "booked": ("SQLite, new", 300), "known": ("SQLite, cached", 300)}
    figures = []
    for task in ("describe", "embed_text"):
        base_s = statistics.median(taken_s[task])
        figures.append(measure(f"{task}: the backend alone", _us(taken_s[task]), "µs"))
        for row, (label, target) in rows.items():
            added_s = [seconds - base_s for seconds in taken_s[f"{task}, {row}"]]
            figures.append(measure(f"{task}: added by the router, {label}", _us(added_s), "µs", target=target))
    return figures


def _us(seconds: Sequence[float]) -> list[float]:
    return [each * 1e6 for each in seconds]


if __name__ == "__main__":
    show("The router over the bare backend", measure_overhead)
