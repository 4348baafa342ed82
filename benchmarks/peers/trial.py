"""One trial of one library: runs in that library's own environment, and prints its figures as JSON.

``python trial.py <module> <settings> <trial> <url of A> <url of B>``. A module has ``make(settings, url_a, url_b,
cooldown_s)``, which returns a `Peer`. Only the standard library is imported here, so that the time of an import is
that of the library.
"""

from __future__ import annotations

import base64
import importlib
import json
import statistics
import struct
import sys
import time
import urllib.request
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["API_KEY", "MODEL", "PROMPT", "Peer"]

API_KEY = "sk-sandbox"

MODEL = "gpt-sandbox"

PROMPT = "Describe this image."

PATIENCE_S = 40.0
"""A trial asks no further question after this long."""

FOLLOWING = 50

CALLERS = 50

COOLDOWN_S = 2.0

ROUNDS = 200

SIDE_PX = 256


@dataclass(frozen=True)
class Peer:
    """What a module makes.

    Attributes:
        ask: Asks about a PNG and returns the answer's text.
        ask_at_once: Asks so many times at once, and returns when all have ended.
        bare: Asks A with the SDK alone, as the library does it.
        pass_cooldown: Returns when the cooldown is over; None sleeps that long.
    """

    ask: Callable[[bytes], str]
    ask_at_once: Callable[[bytes, int], object]
    bare: Callable[[bytes], str]
    pass_cooldown: Callable[[], object] | None = None


def main() -> None:
    """Run the trial that the command line names."""
    module, settings, name, url_a, url_b = sys.argv[1:]
    started = time.perf_counter()
    made = importlib.import_module(module)
    import_s = time.perf_counter() - started
    peer = made.make(settings, url_a, url_b, COOLDOWN_S if name == "stampede" else None)
    figures = TRIALS[name](peer, url_a, url_b)
    print(json.dumps({**figures, "import_s": import_s}))


def try_quota(peer: Peer, url_a: str, url_b: str) -> dict[str, float]:
    """A has no quota: the first call, and those that follow."""
    del url_b
    image = make_png()
    first_s, _ = timed(peer, image)
    first = count(url_a)
    until = time.monotonic() + PATIENCE_S
    times_s: list[float] = []
    while len(times_s) < FOLLOWING and time.monotonic() < until:
        times_s.append(timed(peer, image)[0])
    return {
        "first_s": first_s,
        "first_requests": first,
        "next_s": statistics.median(times_s),
        "next_requests_per_call": (count(url_a) - first) / len(times_s),
    }


def try_once(peer: Peer, url_a: str, url_b: str) -> dict[str, object]:
    """A answers with something else: how long until somebody answers, and who."""
    seconds, error = timed(peer, make_png())
    answered = "B" if count(url_b) else "A"
    return {"seconds": seconds, "requests": count(url_a), "outcome": error or f"answered by {answered}"}


def try_stampede(peer: Peer, url_a: str, url_b: str) -> dict[str, int]:
    """Many callers at the moment when a cooldown of A ends."""
    del url_b
    image = make_png()
    timed(peer, image)
    timed(peer, image)
    (peer.pass_cooldown or (lambda: time.sleep(COOLDOWN_S + 0.2)))()
    before = count(url_a)
    peer.ask_at_once(image, CALLERS)
    return {"requests": count(url_a) - before}


def try_healthy(peer: Peer, url_a: str, url_b: str) -> dict[str, float]:
    """A is well: what the library adds to its own SDK, in turns."""
    del url_a, url_b
    image = make_png()
    added_s = []
    for number in range(ROUNDS + 20):
        started = time.perf_counter()
        peer.bare(image)
        between = time.perf_counter()
        peer.ask(image)
        if number >= 20:
            added_s.append((time.perf_counter() - between) - (between - started))
    return {"added_s": statistics.median(added_s)}


def timed(peer: Peer, image: bytes) -> tuple[float, str | None]:
    """Return how long an answer or an error took, and the name of the error."""
    started = time.perf_counter()
    try:
        peer.ask(image)
    except Exception as error:  # noqa: BLE001 — each library has its own
        return time.perf_counter() - started, f"raised {type(error).__name__}"
    return time.perf_counter() - started, None


def count(url: str) -> int:
    """Return how many requests a sandbox has received."""
    with urllib.request.urlopen(f"http://{urlsplit(url).netloc}/_sandbox/counts", timeout=30) as reply:
        return sum(json.load(reply).values())


def make_png() -> bytes:
    """Return a small PNG: a ramp of greys."""
    rows = b"".join(bytes([0]) + bytes((x * y) % 256 for x in range(SIDE_PX)) for y in range(SIDE_PX))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", SIDE_PX, SIDE_PX, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def data_url(image: bytes) -> str:
    """Return a PNG as a data URL."""
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


def messages(image: bytes) -> list[dict[str, object]]:
    """Return the question as Chat Completions has it."""
    parts = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": data_url(image)}}]
    return [{"role": "user", "content": parts}]


TRIALS: dict[str, Callable[[Peer, str, str], Mapping[str, object]]] = {
    "quota": try_quota,
    "retry_after": try_once,
    "broken_image": try_once,
    "stampede": try_stampede,
    "healthy": try_healthy,
}

if __name__ == "__main__":
    main()
