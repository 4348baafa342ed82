"""What the last rung reads: words of print that it gets right, what it invents, and what looking for text costs."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont
from timing import PHOTOS, ROOT, Figure, cost_in_turns, measure, run_python, show

from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.model_cards import asset
from vision_backends.backends.requests import DescribeRequest
from vision_backends.images import open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PICTURES = 24
ROUNDS = 5

LETTERS_PX = 20
"""Size of the font; capitals are 15 px high."""

TURNS = (0, 3, -5)

WITH_TEXT = {"garage"}
"""The sample photos on which somebody can read something."""

CROPS = ((0.0, 0.0, 0.6, 0.6), (0.4, 0.4, 1.0, 1.0))

FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSansCondensed-Oblique.ttf")
"""Those that the system has are used beside Pillow's own."""

FIGURES = ("12.50", "9.99", "24/7", "2026-11-28", "50%", "No.", "4711", "EXIT", "OPEN", "Total", "www.example.org")

COLOURS = (("black", "white"), ("#222222", "#f4efe0"), ("white", "navy"), ("yellow", "black"), ("#c00000", "white"))

MEMORY = """
import re, sys
from pathlib import Path
from vision_backends import Router

with Router.from_config(sys.argv[1]) as router:
    router.describe(sys.argv[2])
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""

CONFIG = """
ladder = ["embedded"]
state = "memory"
cache.enabled = false
"""


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A picture with text.

    Attributes:
        image: The picture.
        words: What it says.
    """

    image: PILImage.Image
    words: list[str]


def photos() -> list[Path]:
    """Return the sample photos without text."""
    paths = [*PHOTOS.glob("*.jpg"), *(ROOT / "benchmarks" / "sample" / "photos").glob("*.jpg")]
    return sorted(path for path in paths if path.stem not in WITH_TEXT)


def printed(seed: int, *, turn: float) -> Printed:
    """Return a page, a receipt, a screen or a sign in a photo, with noise like a sensor's."""
    rng = random.Random(seed)  # noqa: S311 — pictures that are the same on every run
    size, count, longest, is_page = rng.choice(
        (((1000, 1300), 14, 6, True), ((500, 900), 10, 3, True), ((1280, 800), 6, 5, False), ((960, 720), 3, 3, False))
    )
    known = [word for word in asset("imagenet-1k.txt").read_text(encoding="utf-8").split() if len(word) > 2]
    words = [rng.choice(FIGURES if rng.random() < 0.2 else known) for _ in range(count * longest)]
    lines = [words[row * longest : (row + 1) * longest] for row in range(count)]
    font, (ink, ground) = _font(rng), rng.choice(COLOURS)
    step = round(LETTERS_PX * rng.uniform(1.5, 2.2))
    width = max(round(font.getlength(" ".join(line))) for line in lines)
    block = PILImage.new("RGB", (width + 2 * LETTERS_PX, step * count + LETTERS_PX), ground)
    for row, line in enumerate(lines):
        ImageDraw.Draw(block).text((LETTERS_PX, 10 + row * step), " ".join(line), font=font, fill=ink)
    size = (max(size[0], block.width + 8), max(size[1], block.height + 8))
    if is_page:
        image = PILImage.new("RGB", size, ground)
    else:
        with PILImage.open(rng.choice(photos())) as photo:
            image = photo.convert("RGB").resize(size)
    image.paste(block, (rng.randrange(size[0] - block.width), rng.randrange(size[1] - block.height)))
    image = image.rotate(turn, resample=PILImage.Resampling.BICUBIC, expand=True, fillcolor=ground)
    noise = np.random.default_rng(seed).normal(0, 6, (image.height, image.width, 1))
    return Printed(image=PILImage.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)), words=words)


def _font(rng: random.Random) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype(rng.choice(FONTS), LETTERS_PX)
    except OSError:
        return ImageFont.load_default(LETTERS_PX)


def read(backend: EmbeddedBackend, image: PILImage.Image) -> list[str]:
    """Return the lines that a description quotes from."""
    (described,) = backend.describe([open_image(image)], DescribeRequest(), timeout_s=60)
    return [line["string"] for line in (described.evidence or {})["text"]]


def empty_pictures() -> Iterator[PILImage.Image]:
    """Yield photos without text and parts of them."""
    for path in photos():
        with PILImage.open(path) as photo:
            image = photo.convert("RGB")
        yield image
        for left, top, right, bottom in CROPS:
            width, height = image.size
            yield image.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))


def measure_words(backend: EmbeddedBackend, *, pictures: int) -> list[Figure]:
    """Return which share of the words is read right, and of how many pictures nothing is read."""
    figures = []
    for turn in TURNS:
        right = total = missed = 0
        for seed in range(pictures):
            picture = printed(seed, turn=turn)
            found = Counter(word for line in read(backend, picture.image) for word in line.split())
            right += sum((Counter(picture.words) & found).values())
            total += len(picture.words)
            missed += not found
        words = f"turned by {turn}°" if turn else "straight"
        share = 100 * right / total
        figures += [
            Figure(name=f"words right, 20 px, {words}", value=share, unit="%", target=95, at_least=True),
            Figure(name=f"pictures of which nothing was read, {words}", value=100 * missed / pictures, unit="%"),
        ]
    return figures


def measure_cost(*, rounds: int) -> Figure:
    """Return how much more processor time a description of a photo without text takes than without looking for any."""
    paths = photos()

    def describing(ocr: str) -> Callable[[int], object]:
        backend = EmbeddedBackend(threads=1, ocr=ocr)  # type: ignore[arg-type]  # both are names of readers

        def describe(_: int) -> None:
            for path in paths:
                image = open_image(path, min_side_px=backend.image_px(DescribeRequest()))
                backend.describe([image], DescribeRequest(), timeout_s=60)

        return describe

    costs = cost_in_turns({"off": describing("off"), "small": describing("small")}, rounds=rounds + 1)
    pairs = list(zip(costs["small"], costs["off"], strict=True))[1:]
    ratios = [one.cpu_s / other.cpu_s for one, other in pairs]
    return measure("describe without text, with and without looking for some", ratios, "times", target=1.15)


def measure_reading(*, pictures: int, rounds: int) -> list[Figure]:
    """Return all figures."""
    backend = EmbeddedBackend(threads=2)
    words = measure_words(backend, pictures=pictures)
    empty = list(empty_pictures())
    invented = sum(len(read(backend, picture)) for picture in empty)
    with tempfile.TemporaryDirectory() as folder:
        (config := Path(folder) / "vision.toml").write_text(CONFIG, encoding="utf-8")
        printed(2, turn=0).image.save(page := Path(folder) / "page.png")
        peak_bytes = int(run_python("-c", MEMORY, str(config), str(page))[0])
    return [
        *words,
        Figure(name=f"lines invented on {len(empty)} pictures without text", value=invented, unit="lines", target=0),
        measure_cost(rounds=rounds),
        Figure(name="peak memory of describing a page", value=peak_bytes / 1e6, unit="MB", target=250),
    ]


if __name__ == "__main__":
    show(
        "What the last rung reads",
        measure_reading,
        options={"pictures": PICTURES, "rounds": ROUNDS},
    )
