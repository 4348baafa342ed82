"""The text in an image, line by line: rapidocr finds and reads it, offline, with the models in its own wheel.

This module decides what is worth reading and how sure a reading must be. The text comes from an untrusted image: it is
cleaned and bounded, never interpreted. It must not know how text is worded in a description. Importing it imports
neither rapidocr nor numpy.
"""

from __future__ import annotations

import math
import threading
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends.backends.embedded.session import LONGEST_EXIT_S, Lazy, import_onnxruntime
from vision_backends.clock import measured
from vision_backends.engine.threads import awaited_at_exit
from vision_backends.errors import NotReadyError, UnavailableError

if TYPE_CHECKING:
    from PIL import Image as PILImage

    Quad = list[tuple[float, float]]

__all__ = ["IMAGE_PX", "Reader", "TextLine", "cleaned"]

IMAGE_PX = 1280
"""Longest side of the image that is searched. A page of A4 is then read down to 9 point; with 1600 a square image
takes 2 s and 1 GB instead of 0.5 s and 650 MB."""

ENLARGED_PX = 736
"""Shorter side to which small images are enlarged, for small letters: rapidocr's own setting."""

MIN_SCORE = 0.9
"""What is "read" in pictures without legible text scores up to 0.85."""

MOST_LINES = 50
"""Of more lines the tallest are read; each takes about 40 ms."""

MIN_LINE_PX = 6
MOST_CHARACTERS = 200
"""Of one line."""

MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
"""The files in rapidocr's wheel. By default, rapidocr would download those that are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """One line of text.

    Attributes:
        string: What it says, cleaned, in the image's own language and writing.
        score: How sure the reading is, in [0, 1].
        xyxy: Its box in pixels of the upright image.
    """

    string: str
    score: float
    xyxy: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {
            "string": self.string,
            "score": round(self.score, 4),
            "xyxy": [round(value, 1) for value in self.xyxy],
        }


class Reader:
    """Reads text, one image at a time; any thread may use it.

    Args:
        threads: Threads per model.
    """

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self._engine: Lazy[_Engine] = Lazy()

    @property
    def loaded(self) -> bool:
        """Whether the models are in memory."""
        return self._engine.made

    @cached_property
    def version(self) -> str:
        """The version of rapidocr, and so of the models in its wheel."""
        try:
            return version("rapidocr")
        except PackageNotFoundError:
            return "absent"

    def check(self) -> None:
        """Return if rapidocr and its models are installed; nothing is imported.

        Raises:
            NotReadyError: They are not.
        """
        folder = _models_folder()
        missing = [name for name in MODELS.values() if not (folder / name).is_file()]
        if missing:
            message = f"rapidocr {self.version} does not contain {', '.join(missing)}."
            raise NotReadyError(message, remedy="Run: pip install --force-reinstall 'rapidocr==3.10.*'")

    def read(self, image: PILImage.Image, *, width: int, height: int) -> tuple[TextLine, ...]:
        """Return the lines that can be read with confidence, from top to bottom.

        Args:
            image: RGB pixels, at any scale.
            width: Width of the upright image that boxes refer to.
            height: Its height.

        Raises:
            NotReadyError: rapidocr is missing or cannot be loaded.
            UnavailableError: rapidocr failed.
        """
        fitted = _fitted(image)
        with awaited_at_exit(LONGEST_EXIT_S):
            engine = self._engine.get(self._load)
            with engine.lock, measured("model"):
                readings = [(quad, *engine.read(_straightened(fitted, quad))) for quad in _tallest(engine.find(fitted))]
        scale_x, scale_y = width / fitted.width, height / fitted.height
        return tuple(
            TextLine(string=string, score=score, xyxy=_box(quad, scale_x=scale_x, scale_y=scale_y))
            for quad, string, score in readings
            if string and score >= MIN_SCORE
        )

    def close(self) -> None:
        """Free the memory; the next reading loads again."""
        self._engine.drop()

    def _load(self) -> _Engine:
        folder = _models_folder()
        settings = {
            "Global.log_level": "critical",
            "Global.use_preprocess_img": False,  # `_fitted` does it, without failing on long and thin images
            "Det.limit_type": "max",
            "Det.limit_side_len": IMAGE_PX,
            "EngineConfig.onnxruntime.intra_op_num_threads": self._threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            **{f"{section}.model_path": str(folder / name) for section, name in MODELS.items()},
        }
        try:
            import_onnxruntime()
            from rapidocr import RapidOCR

            return _Engine(ocr=RapidOCR(params=settings), lock=threading.Lock())
        except Exception as error:  # an import may fail for its libraries, a setting for its version
            message = f"rapidocr {self.version} cannot be loaded: {error}"
            raise NotReadyError(message, remedy="Run: pip install --force-reinstall 'rapidocr==3.10.*'") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """rapidocr, which stores the options of a call on itself, so that only one thread at a time may call it."""

    ocr: Any
    lock: threading.Lock

    def find(self, image: PILImage.Image) -> list[Quad]:
        """Return the corners of every line, in reading order, each from top left clockwise."""
        boxes = self._call(image, use_det=True, use_cls=False, use_rec=False).boxes
        return [] if boxes is None else [[(x, y) for x, y in quad] for quad in boxes.tolist()]

    def read(self, line: PILImage.Image) -> tuple[str, float]:
        """Return what a line says, cleaned, and its score."""
        found = self._call(line, use_det=False, use_cls=True, use_rec=True)
        return cleaned(found.txts[0]), float(found.scores[0])

    def _call(self, image: PILImage.Image, **steps: bool) -> Any:  # noqa: ANN401 — rapidocr has no types
        try:
            return self.ocr(image, **steps)
        except Exception as error:  # rapidocr's exceptions have no common base
            raise UnavailableError(f"rapidocr failed: {type(error).__name__}.") from error


def cleaned(string: str) -> str:
    """Return a string without control and other invisible characters, on one line and at most 200 characters long."""
    visible = "".join(" " if unicodedata.category(char).startswith("C") else char for char in string)
    return " ".join(visible.split())[:MOST_CHARACTERS].rstrip()


def _models_folder() -> Path:
    """Return where rapidocr keeps its models.

    Raises:
        NotReadyError: It is not installed.
    """
    found = find_spec("rapidocr")
    if found is None or found.origin is None:
        remedy = "Run: pip install 'vision-backends[ocr]', or set ocr = false in [embedded]."
        raise NotReadyError("[embedded] ocr = true needs rapidocr, which is not installed.", remedy=remedy)
    return Path(found.origin).parent / "models"


def _fitted(image: PILImage.Image) -> PILImage.Image:
    """Return the image at the scale at which it is searched: enlarged when small, but never beyond `IMAGE_PX`."""
    from PIL import Image

    scale = min(max(1.0, ENLARGED_PX / min(image.size)), IMAGE_PX / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _tallest(quads: list[Quad]) -> list[Quad]:
    """Return the lines that are worth reading, in the order in which they came."""
    tall = sorted((min(_size(quad)) for quad in quads), reverse=True)[:MOST_LINES]
    least = max(MIN_LINE_PX, tall[-1]) if tall else 0
    return [quad for quad in quads if min(_size(quad)) >= least][:MOST_LINES]


def _size(quad: Quad) -> tuple[float, float]:
    """Return width and height of a line, which may be slanted."""
    first, second, third, fourth = quad
    return (
        max(math.dist(first, second), math.dist(third, fourth)),
        max(math.dist(first, fourth), math.dist(second, third)),
    )


def _straightened(image: PILImage.Image, quad: Quad) -> PILImage.Image:
    """Return a line as a picture of its own; a vertical one is turned to run from left to right."""
    from PIL import Image

    width, height = map(round, _size(quad))
    corners = [value for index in (0, 3, 2, 1) for value in quad[index]]
    line = image.transform((width, height), Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)
    return line.transpose(Image.Transpose.ROTATE_90) if height >= 1.5 * width else line


def _box(quad: Quad, *, scale_x: float, scale_y: float) -> tuple[float, float, float, float]:
    columns, rows = zip(*quad, strict=True)
    return min(columns) * scale_x, min(rows) * scale_y, max(columns) * scale_x, max(rows) * scale_y
