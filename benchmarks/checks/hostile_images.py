"""What hostile image files cost: thousands of changed files of every format, attacks, and eight callers at once.

Every file is opened with the usual limits. Whatever comes of it has to be an image or an error of the caller, soon and
in little memory. Each case has random numbers of its own, from the seed and its number: ``--first=NUMBER --cases=1``
repeats it alone. The process has a limit of address space, so that a case that takes far too much ends it and not the
machine.
"""

from __future__ import annotations

import random
import resource
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from image_mutations import mutate, seeds
from timing import Figure, show

from vision_backends import CallerError, open_image

if TYPE_CHECKING:
    from vision_backends import Image

MOST_ADDRESS_BYTES = 4_000_000_000


def main() -> None:
    """Print the figures."""
    show("Hostile images", _figures, options={"cases": 10_000, "seed": 1, "first": 0, "callers": 8})


def _figures(*, cases: int, seed: int, first: int, callers: int) -> list[Figure]:
    files = seeds()
    for data in files.values():
        open_image(data)  # imports what each needs
    used_bytes = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + MOST_ADDRESS_BYTES,) * 2)
    return [*_fuzz(files, range(first, first + cases), seed), *_at_once(callers)]


def _fuzz(files: dict[str, bytes], numbers: range, seed: int) -> list[Figure]:
    names = list(files)
    peak = _Peak()
    slowest_s, slowest, untyped, opened = 0.0, "", [], 0
    for number in numbers:
        chance = random.Random(f"{seed}/{number}")  # noqa: S311
        name = names[number % len(names)]
        data = mutate(files[name], chance)
        started = time.perf_counter()
        try:
            opened += _is_opened(data, chance)
        except Exception as error:  # noqa: BLE001 — it is what is looked for
            untyped.append(f"{number} ({name}): {error!r}")
        taken_s = time.perf_counter() - started
        if taken_s > slowest_s:
            slowest_s, slowest = taken_s, f"{number} ({name})"
        peak.note(f"{number} ({name})")
    for each in untyped:
        print(each, file=sys.stderr)
    print(f"slowest: {slowest}; most memory: {peak.who}", file=sys.stderr)
    return [
        Figure(name="files", value=len(numbers), unit=""),
        Figure(name="files that were images all the same", value=opened, unit=""),
        Figure(name="files with an untyped error", value=len(untyped), unit="", target=0, exact=True),
        Figure(name="slowest file", value=slowest_s, unit="s", target=3.0),
        Figure(name="most memory above the process's own", value=peak.most_bytes / 1e6, unit="MB", target=400),
    ]


def _is_opened(data: bytes, chance: random.Random) -> bool:
    try:
        image = open_image(data, min_side_px=chance.choice((None, 10)))
    except CallerError:
        return False
    return image.width > 0


class _Peak:
    """The most memory that this process has taken, above what it took at first."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._own_bytes = self._resident_bytes("VmRSS")
        self.most_bytes = 0
        self.who = ""

    def note(self, who: str) -> None:
        """Remember who has taken most."""
        taken_bytes = self._resident_bytes("VmHWM") - self._own_bytes
        if taken_bytes > self.most_bytes:
            self.most_bytes, self.who = taken_bytes, who

    @staticmethod
    def _resident_bytes(what: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def _at_once(callers: int) -> list[Figure]:
    """Open large images of the formats that take most, by many threads at the same time."""
    from io import BytesIO

    from PIL import Image as PILImage

    largest = []
    for kind, size, options in (("WEBP", (16_383, 2_441), {"lossless": True}), ("AVIF", (6_300, 6_300), {"speed": 10})):
        file = BytesIO()
        PILImage.new("RGB", size).save(file, kind, **options)
        largest.append(file.getvalue())
    peak = _Peak()
    kept: list[Image] = []
    threads = [
        threading.Thread(target=lambda data=data: kept.append(open_image(data))) for data in largest * (callers // 2)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    peak.note("")
    pixels_bytes = sum(image.memory_bytes for image in kept)
    return [
        Figure(name=f"{callers} callers at once: answers", value=len(kept), unit="", target=callers, exact=True),
        Figure(name=f"{callers} callers at once", value=time.perf_counter() - started, unit="s"),
        Figure(
            name=f"{callers} callers at once: memory beside the pixels that they keep",
            value=(peak.most_bytes - pixels_bytes) / 1e6,
            unit="MB",
            target=1_000,
        ),
    ]


if __name__ == "__main__":
    main()
