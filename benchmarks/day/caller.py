"""One library among the callers of a day: runs in that library's own environment, and prints what each call got.

``python caller.py <module> <settings> <url of A> <url of B> <cooldown> <distribution> <calls per s> <seconds> <PNG>``.
The module has ``make(settings, url_a, url_b, cooldown_s)``, which returns what can be asked. This program prints
``ready`` with the library's version, waits for a line, and then calls at a fixed rate whether or not earlier calls have
ended, so that a slow answer holds up no other question, as in real life. The time of a call is counted from the moment
when it was due; how much of it passed before the call was issued, because the machine was busy, is told beside it. Only
the standard library is imported here.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from concurrent.futures import Future


class Askable(Protocol):
    """What a module makes."""

    def ask(self, image: bytes, /) -> str:
        """Ask about a PNG and return the answer's text."""
        ...


def main() -> None:
    """Make the library that the command line names, and let it call."""
    module, settings, url_a, url_b, cooldown_s, distribution, rate, seconds, image = sys.argv[1:]
    peer = importlib.import_module(module).make(settings, url_a, url_b, float(cooldown_s))
    content = Path(image).read_bytes()
    peer.ask(content)  # what is loaded at the first call is loaded before the day
    print(json.dumps({"ready": version_of(distribution)}), flush=True)
    sys.stdin.readline()
    print(json.dumps(call_all(peer, content, calls_per_s=float(rate), seconds=float(seconds))), flush=True)


def call_all(peer: Askable, image: bytes, *, calls_per_s: float, seconds: float) -> list[dict[str, Any]]:
    """Return for each call when it was due (``at_s``), ``late_s``, ``elapsed_s``, and ``text`` or ``error``."""
    count = round(calls_per_s * seconds)
    calls: list[Future[dict[str, Any]]] = []
    with ThreadPoolExecutor(max(1, count)) as pool:  # one begins only where all others are busy: no call waits for one
        began = time.perf_counter()
        for number in range(count):
            at_s = (number + 0.5) / calls_per_s  # in the middle, where nothing else happens
            time.sleep(max(0.0, began + at_s - time.perf_counter()))
            calls.append(pool.submit(call, peer, image, began=began, at_s=at_s))
    return [each.result() for each in calls]


def call(peer: Askable, image: bytes, *, began: float, at_s: float) -> dict[str, Any]:
    """Return what became of one call."""
    late_s = time.perf_counter() - began - at_s
    try:
        told = {"text": peer.ask(image)}
    except Exception as error:  # noqa: BLE001 — each library has its own
        told = {"error": type(error).__name__}
    return {"at_s": at_s, "late_s": late_s, "elapsed_s": time.perf_counter() - began - at_s, **told}


def version_of(distribution: str) -> str:
    """Return the version of what is installed here."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of this checkout"


if __name__ == "__main__":
    main()
