"""rapidocr as a reader: it finds and reads lines offline, with the models in its own wheel.

This module decides how rapidocr is set up and called, and translates its errors. It must not know what is worth
reading. Importing it imports neither rapidocr nor numpy.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from vision_backends.backends.embedded.session import LONGEST_EXIT_S, Lazy, import_onnxruntime
from vision_backends.clock import measured
from vision_backends.engine.threads import awaited_at_exit
from vision_backends.errors import NotReadyError, UnavailableError
from vision_backends.installing import pip_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image as PILImage

    from vision_backends.backends.embedded.reading import Box, Quad

__all__ = ["RapidOcr"]

T = TypeVar("T")

SEARCHED_PX = 1280
"""Longest side of the image that is searched. A page of A4 is then read down to 9 point; with 1600 a square image
takes 2 s and 1 GB instead of 0.5 s and 650 MB."""

ENLARGED_PX = 736
"""Shorter side to which small images are enlarged, for small letters: rapidocr's own setting."""

MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
"""The files in rapidocr's wheel. By default, rapidocr would download those that are missing."""


class RapidOcr:
    """A reader for any image, also one whose text is turned or small.

    Args:
        threads: Threads per model.
    """

    name: ClassVar[str] = "rapidocr"
    min_score: ClassVar[float] = 0.9
    """What is "read" in pictures without legible text scores up to 0.85."""

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
            raise NotReadyError(message, remedy=f"Run: {pip_command('--force-reinstall', 'rapidocr==3.10.*')}")

    def window(self, image: PILImage.Image, *, small: PILImage.Image) -> Box:  # noqa: ARG002 — it takes no first look
        """Return the part of an image that is worth searching: all of it."""
        return 0.0, 0.0, float(image.width), float(image.height)

    def find(self, image: PILImage.Image) -> list[Quad]:
        """Return the corners of every line, in reading order, each from top left clockwise.

        Raises:
            NotReadyError: rapidocr is missing or cannot be loaded.
            UnavailableError: rapidocr failed.
        """
        from PIL import Image

        scale = min(max(1.0, ENLARGED_PX / min(image.size)), SEARCHED_PX / max(image.size))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        fitted = image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
        boxes = self._call(lambda engine: engine.find(fitted))
        across, down = image.width / fitted.width, image.height / fitted.height
        return [[(x * across, y * down) for x, y in quad] for quad in boxes]

    def read(self, line: PILImage.Image) -> tuple[str, float]:
        """Return what a picture of one line says, and how sure that is. Errors as of `find`."""
        return self._call(lambda engine: engine.read(line))

    def close(self) -> None:
        """Free the memory; the next reading loads again."""
        self._engine.drop()

    def _call(self, ask: Callable[[_Engine], T]) -> T:
        with awaited_at_exit(LONGEST_EXIT_S):
            engine = self._engine.get(self._load)
            with engine.lock, measured("model"):
                return ask(engine)

    def _load(self) -> _Engine:
        folder = _models_folder()
        settings = {
            "Global.log_level": "critical",
            "Global.use_preprocess_img": False,  # `find` does it, without failing on long and thin images
            "Det.limit_type": "max",
            "Det.limit_side_len": SEARCHED_PX,
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
            raise NotReadyError(
                message, remedy=f"Run: {pip_command('--force-reinstall', 'rapidocr==3.10.*')}"
            ) from error


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
        """Return what a line says, and its score."""
        found = self._call(line, use_det=False, use_cls=True, use_rec=True)
        return str(found.txts[0]), float(found.scores[0])

    def _call(self, image: PILImage.Image, **steps: bool) -> Any:  # noqa: ANN401 — rapidocr has no types
        try:
            return self.ocr(image, **steps)
        except Exception as error:  # rapidocr's exceptions have no common base
            raise UnavailableError(f"rapidocr failed: {type(error).__name__}.") from error


def _models_folder() -> Path:
    """Return where rapidocr keeps its models.

    Raises:
        NotReadyError: It is not installed.
    """
    found = find_spec("rapidocr")
    if found is None or found.origin is None:
        remedy = f"Run: {pip_command('vision-backends[ocr]')}, or leave ocr out of [embedded]."
        raise NotReadyError('[embedded] ocr = "rapidocr" needs rapidocr, which is not installed.', remedy=remedy)
    return Path(found.origin).parent / "models"
