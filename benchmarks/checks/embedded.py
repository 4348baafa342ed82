"""What the embedded rung takes on two threads: time including decoding, a large photo against a small one, memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage
from timing import PHOTOS, Figure, measure, run_python, show, time_in_turns

from vision_backends import Router

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 40

TARGETS_MS = {"detect": 25, "embed": 15, "describe": 60}

SMALL, LARGE = (1152, 864), (4000, 3000)
"""One and twelve megapixels."""

CONFIG = """
ladder = ["embedded"]
state = "memory"
cache.enabled = false
embedded.threads = 2
"""

MEMORY = """
import re, sys
from pathlib import Path
from vision_backends import Router

with Router.from_config(sys.argv[1]) as router:
    for method in (router.detect, router.embed, router.describe):
        method(sys.argv[2])
status = Path("/proc/self/status")
if status.exists():  # because the kernel's other figure, in getrusage(2), starts at the parent's
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024)
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make_photos(folder: Path) -> tuple[Path, Path]:
    """Write one scene with 1 and 12 megapixels, as a phone would.

    Both are made from a real photo, scaled, with noise like a sensor's: its variance grows with the brightness.
    Without it the large photo would be smooth, and cheaper to decode than a real one.
    """
    random = np.random.default_rng(12)
    paths = folder / "small.jpg", folder / "large.jpg"
    with PILImage.open(PHOTOS / "raccoon.jpg") as photo:
        for size, path in zip((SMALL, LARGE), paths, strict=True):
            scene = np.asarray(photo.resize(size, PILImage.Resampling.LANCZOS), dtype=np.float32)
            noise = random.standard_normal(scene.shape, dtype=np.float32) * np.sqrt(4 + scene / 8)
            picture = PILImage.fromarray((scene + noise).clip(0, 255).astype(np.uint8))
            picture.save(path, "JPEG", quality=90)
    return paths


def measure_embedded() -> list[Figure]:
    """Return the figures; the models are loaded before anything is timed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "vision.toml"
        config.write_text(CONFIG, encoding="utf-8")
        small, large = make_photos(folder)
        with Router.from_config(config) as router:
            methods = {"detect": router.detect, "embed": router.embed, "describe": router.describe}
            actions: dict[str, Callable[[int], object]] = {}
            for task, method in methods.items():
                for photo in (small, large):
                    method(photo)
                    actions[f"{task} {photo.stem}"] = lambda _, method=method, photo=photo: method(photo)
            taken_s = time_in_turns(actions, rounds=ROUNDS)
        memory_bytes = [int(run_python("-c", MEMORY, str(config), str(photo))[0]) for photo in (small, large)]
        sizes_bytes = [photo.stat().st_size for photo in (small, large)]
    times = [
        measure(f"{task}, 1 megapixel", [s * 1e3 for s in taken_s[f"{task} small"]], "ms", target=target)
        for task, target in TARGETS_MS.items()
    ]
    large_times = [
        measure(f"{task}, 12 megapixels", [s * 1e3 for s in taken_s[f"{task} large"]], "ms") for task in TARGETS_MS
    ]
    ratios = [
        Figure(name=f"{task}, 12 to 1 megapixels", value=big.value / little.value, unit="times", target=2)
        for task, big, little in zip(TARGETS_MS, large_times, times, strict=True)
    ]
    return [
        *times,
        *large_times,
        *ratios,
        Figure(name="peak memory, 1 megapixel", value=memory_bytes[0] / 1e6, unit="MB", target=200),
        Figure(name="peak memory, 12 megapixels", value=memory_bytes[1] / 1e6, unit="MB"),
        Figure(name="size of the 1-megapixel JPEG", value=sizes_bytes[0] / 1e6, unit="MB"),
        Figure(name="size of the 12-megapixel JPEG", value=sizes_bytes[1] / 1e6, unit="MB"),
    ]


if __name__ == "__main__":
    show("The embedded rung on two threads, decoding included", measure_embedded)
