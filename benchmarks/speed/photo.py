"""A photo's way onto the wire: what it costs before anything is sent, and what the receiver sees of it.

The receiver decodes what arrives and scales it to the size at which the model looks. The same is done with the original
and with what the photo was once sent as: decoded, scaled and encoded anew. Their distances from the original are
compared, photo by photo.
"""

from __future__ import annotations

import base64
import io
import math
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks.timing import Figure, measure, show
from .photos import as_another_file, make_photo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL.Image import Image as PILImage

    from vision_backends.images import WireRule

SAMPLE = Path(__file__).parents[1] / "sample" / "photos"

CPU_MS = {"210 kB": 8, "12 megapixels": 60}

QUALITY = 88
"""At which photos were encoded anew."""

MODEL = "gpt-6-luna"

EQUAL_DB = 100.0
"""What equal images count as, so that every figure is a number."""

WARM_UP = 2


def measure_photo(*, rounds: int) -> list[Figure]:
    """Return the figures."""
    figures = []
    for size, target in CPU_MS.items():
        figures += _measure_cpu(size, target, rounds)
    return [*figures, *_compare_quality()]


def _measure_cpu(size: str, target: float, rounds: int) -> list[Figure]:
    """Return the CPU time from the bytes of a file to what is sent, beside that of just decoding it."""
    photo, rule = make_photo(size), _rule()
    actions: dict[str, Callable[[bytes], object]] = {
        "sent": lambda data: _on_the_wire(data, rule),
        "decoded": lambda data: _decode(data).size,
        "anew": lambda data: _encoded_anew(_decode(data), rule),
    }
    cpu_ms: dict[str, list[float]] = {name: [] for name in actions}
    wall_ms: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + WARM_UP):
        data = as_another_file(photo, number)
        for name, action in actions.items():
            before_s, started = time.process_time(), time.perf_counter()
            action(data)
            if number >= WARM_UP:
                cpu_ms[name].append((time.process_time() - before_s) * 1e3)
                wall_ms[name].append((time.perf_counter() - started) * 1e3)
    shares = [sent / decoded for sent, decoded in zip(cpu_ms["sent"], cpu_ms["decoded"], strict=True)]
    return [
        measure(f"{size}: CPU before the wire", cpu_ms["sent"], "ms", target=target),
        measure(f"{size}: CPU before the wire, times a full decode", shares, "×"),
        measure(f"{size}: time before the wire", wall_ms["sent"], "ms"),
        measure(f"{size}: CPU of a full decode", cpu_ms["decoded"], "ms"),
        measure(f"{size}: CPU of decoding, scaling and encoding anew", cpu_ms["anew"], "ms"),
        Figure(name=f"{size}: bytes of the file", value=len(photo) / 1e3, unit="kB"),
        Figure(name=f"{size}: bytes that are sent", value=len(_on_the_wire(photo, rule)) / 1e3, unit="kB"),
    ]


def _compare_quality() -> list[Figure]:
    """Return by how many decibels the receiver sees the photos of the sample better than if they were encoded anew."""
    rule = _rule()
    gains, kept, sizes = {}, {}, {}
    for path in sorted(SAMPLE.iterdir()):
        data = path.read_bytes()
        original = _decode(data)
        fit = rule.fit(*original.size)
        sent, anew = _on_the_wire(data, rule), _encoded_anew(original, rule)
        target = _scale(original, fit)
        kept[path.name] = _psnr(_scale(_decode(sent), fit), target)
        gains[path.name] = kept[path.name] - _psnr(_scale(_decode(anew), fit), target)
        sizes[path.name] = len(sent) / len(anew)
    worst = min(gains, key=lambda name: gains[name])
    ordered = sorted(gains.values())
    return [
        Figure(
            name=f"PSNR over encoding anew, the least of {len(gains)} photos ({worst})",
            value=gains[worst],
            unit="dB",
            target=0,
            at_least=True,
        ),
        Figure(name="PSNR over encoding anew, median", value=statistics.median(ordered), unit="dB"),
        Figure(name="PSNR of what the receiver sees, the least", value=min(kept.values()), unit="dB"),
        Figure(name="bytes sent, times those of encoding anew, median", value=_median(sizes), unit="×"),
    ]


def _median(values: Mapping[str, float]) -> float:
    return statistics.median(values.values())


def _rule() -> WireRule:
    """Return how an image is sent to the usual model by default."""
    from vision_backends.backends.openai.models import image_token_rule, wire_rule

    return wire_rule(MODEL, image_token_rule(MODEL, detail="high"))


def _on_the_wire(data: bytes, rule: WireRule) -> bytes:
    """Return the file that the package sends for a photo."""
    from vision_backends.backends.openai.prompts import encode_url
    from vision_backends.images.image import begin_opening

    opening = begin_opening(data, wire=rule)
    url = encode_url(opening.image(opening.decode_here()), rule)
    return base64.b64decode(url.partition(",")[2])


def _encoded_anew(photo: PILImage, rule: WireRule) -> bytes:
    buffer = io.BytesIO()
    _scale(photo, rule.fit(*photo.size)).save(buffer, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return buffer.getvalue()


def _decode(data: bytes) -> PILImage:
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as photo:
        return ImageOps.exif_transpose(photo).convert("RGB")


def _scale(photo: PILImage, size: tuple[int, int]) -> PILImage:
    from PIL.Image import Resampling

    return photo if photo.size == size else photo.resize(size, Resampling.LANCZOS)


def _psnr(photo: PILImage, original: PILImage) -> float:
    """Return the peak signal-to-noise ratio of two images of one size, in decibels, at most `EQUAL_DB`."""
    import numpy as np

    difference = np.asarray(photo, dtype=np.float64) - np.asarray(original, dtype=np.float64)
    error = float(np.mean(difference**2))
    return EQUAL_DB if error == 0 else min(EQUAL_DB, 10 * math.log10(255**2 / error))


if __name__ == "__main__":
    os.environ.pop("OPENAI_API_KEY", None)
    show("A photo's way onto the wire", measure_photo, options={"rounds": 20})
