"""`open_image`: whatever can be an image, read, decoded and checked once, before anything else works with it.

This module decides what may be read, from where and how much of it, and when pixels are decoded, kept and handed out.
It must not know what an image looks like inside, nor what it is for.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import re
import stat
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from vision_backends.errors import InvalidImageError
from vision_backends.images.decoding import decode, measure, pixels_of_pil
from vision_backends.images.formats import ACCEPTED
from vision_backends.images.limits import DEFAULT_LIMITS, Encoded, ImageLimits
from vision_backends.images.pixels import pixels_of_array

if TYPE_CHECKING:
    from typing import BinaryIO

    import numpy.typing as npt
    from PIL import Image as PILImage

__all__ = ["Image", "ImageSource", "open_image"]

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PILImage.Image | npt.NDArray[Any]"
)
"""What `open_image` takes: a path or data URL, encoded bytes, a binary file, a PIL image or a numpy array."""

_CHUNK_BYTES = 1 << 20
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_DATA_URL = "Write data:image/png;base64,… with the encoded bytes of the image."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Image:
    """One checked, upright RGB image, made by `open_image`. It cannot be changed; any thread may use it.

    Attributes:
        width: Width of the whole upright image in pixels, however few of them were decoded.
        height: Height of the whole upright image in pixels, however few of them were decoded.
        notes: What a viewer would want to know, in a sentence each: that a little of it is missing, or all transparent.
    """

    width: int
    height: int
    notes: tuple[str, ...] = ()
    _pixels: PILImage.Image  # upright, mode RGB, held by nothing else; replaced when more are asked for
    _encoded: Encoded | None = None
    _limits: ImageLimits = DEFAULT_LIMITS
    _digest: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def digest(self) -> str:
        """SHA-256 of the content in hexadecimal: of the encoded bytes, or of the pixels where there are none."""
        digest = self._digest
        if digest is None:
            if self._encoded is not None:
                content = hashlib.sha256(self._encoded.data)
            else:
                content = hashlib.sha256(f"RGB {self.width}x{self.height}\n".encode())
                content.update(self._pixels.tobytes())
            digest = content.hexdigest()
            object.__setattr__(self, "_digest", digest)
        return digest

    @property
    def memory_bytes(self) -> int:
        """About how much memory it takes: pixels of four bytes, and the bytes of its file."""
        encoded = 0 if self._encoded is None else len(self._encoded.data)
        return self._pixels.width * self._pixels.height * 4 + encoded

    def rgb(self, *, min_side_px: int | None = None) -> PILImage.Image:
        """Return a copy of the pixels, upright and in mode RGB.

        Args:
            min_side_px: Least length of the shorter side, unless the whole image is smaller; the copy may be larger.
                None asks for all pixels.
        """
        with self._lock:
            pixels = self._pixels
            is_whole = pixels.size == (self.width, self.height)
            is_enough = is_whole or (min_side_px is not None and min(pixels.size) >= min_side_px)
            if self._encoded is not None and not is_enough:
                pixels = decode(measure(self._encoded, limits=self._limits, min_side_px=min_side_px)).pixels
                object.__setattr__(self, "_pixels", pixels)
        return pixels.copy()

    def __repr__(self) -> str:
        return f"<Image {self.width}×{self.height} px{f', {self._encoded.name}' if self._encoded else ''}>"


def open_image(source: ImageSource, *, min_side_px: int | None = None, limits: ImageLimits = DEFAULT_LIMITS) -> Image:
    """Decode and check an image completely, so that no later step meets a broken one.

    Orientation from EXIF is applied, transparency laid over white, colour profiles converted to sRGB, of an
    animation the first picture taken. A format is recognised by its bytes, never by its name or media type.

    Args:
        source: A path or ``data:`` URL, encoded bytes, a binary file (read to its end, not closed), a PIL image,
            or a numpy array (uint8 or float in [0, 1]; [H, W], [H, W, 3] RGB or [H, W, 4] RGBA).
        min_side_px: Least length of the shorter side of the decoded pixels; a large JPEG is then decoded at reduced
            scale, several times faster. None decodes all of them.
        limits: How many bytes and pixels it may have.

    Raises:
        InvalidImageError: It cannot be read, or is not an image that can be used.
        ImageTooLargeError: It has more bytes or pixels than the limits allow.
    """
    if not isinstance(source, str | bytes):
        for module, name, convert in (("PIL.Image", "Image", pixels_of_pil), ("numpy", "ndarray", pixels_of_array)):
            # Not imported here: an instance exists only where its module does. While another thread is importing that
            # module, the class may still be missing from it.
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(source, kind):
                made = convert(source, limits=limits)
                return Image(width=made.width, height=made.height, notes=made.notes, _pixels=made.pixels)
    encoded = _read(source, limits=limits)
    decoded = decode(measure(encoded, limits=limits, min_side_px=min_side_px))
    return Image(
        width=decoded.width,
        height=decoded.height,
        notes=decoded.notes,
        _pixels=decoded.pixels,
        _encoded=encoded,
        _limits=limits,
    )


def _read(source: object, *, limits: ImageLimits) -> Encoded:
    """Read a path, bytes, binary file or data URL.

    A file is read from its current position to its end, and is not closed.
    """
    if isinstance(source, str) and source[:5].lower() == "data:":
        return Encoded(name="The data URL", data=_decode_data_url(source, limits=limits))
    if isinstance(source, str) and _URL.match(source):
        raise InvalidImageError(
            f"{_shorten(source)} is a URL, and fetching URLs is off by design.",
            remedy="Fetch it yourself and pass its bytes.",
        )
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        name = _shorten(os.fsdecode(path))
        return Encoded(name=name, data=_read_path(path, name=name, limits=limits))
    if isinstance(source, bytes | bytearray | memoryview):
        return Encoded(name="The bytes object", data=_copy_bytes(source, limits=limits))
    if callable(getattr(source, "read", None)):
        name = _shorten(f"The file {label}" if isinstance(label := getattr(source, "name", 0), str) else "The file")
        return Encoded(name=name, data=_read_file(source, name=name, limits=limits))
    kind = type(source)
    raise InvalidImageError(f"A {kind.__module__}.{kind.__qualname__} is not an image.", remedy=ACCEPTED)


def _read_path(path: str | bytes, *, name: str, limits: ImageLimits) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe would wait until something writes to it.
        with open(path, "rb", opener=lambda at, flags: os.open(at, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidImageError(f"{name} is not a regular file.", remedy=ACCEPTED)
            limits.check_bytes(status.st_size, name=name)
            return _read_file(file, name=name, limits=limits)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else None
        raise InvalidImageError(
            f"{name} cannot be read: {reason or 'it is not a valid path'}.",
            remedy="Check the path; a relative one starts at the working directory.",
        ) from error


def _read_file(file: Any, *, name: str, limits: ImageLimits) -> bytes:  # noqa: ANN401 — any object with read()
    chunks: list[bytes] = []
    size_bytes = 0
    while True:
        try:
            chunk: object = file.read(_CHUNK_BYTES)
        except Exception as error:  # a foreign object may raise anything
            raise InvalidImageError(f"{name} cannot be read.", remedy="Check that it is open.") from error
        if not isinstance(chunk, bytes | bytearray | memoryview):
            if callable(close := getattr(chunk, "close", None)):
                close()  # a coroutine that is never awaited would warn
            raise InvalidImageError(
                f"{name} returned a {type(chunk).__name__} instead of bytes.",
                remedy="Open it in binary mode; if it is asynchronous, await its bytes and pass those.",
            )
        data = bytes(chunk)
        if not data:
            return b"".join(chunks)
        chunks.append(data)
        size_bytes += len(data)
        limits.check_bytes(size_bytes, name=name)


def _copy_bytes(source: bytes | bytearray | memoryview, *, limits: ImageLimits) -> bytes:
    try:
        limits.check_bytes(memoryview(source).nbytes, name="The bytes object")
        return bytes(source)
    except ValueError as error:
        raise InvalidImageError("The memoryview has been released.", remedy=ACCEPTED) from error


def _decode_data_url(url: str, *, limits: ImageLimits) -> bytes:
    """Decode a data URL; its media type is ignored, because many in practice are wrong."""
    from urllib.parse import unquote_to_bytes

    header, comma, payload = url[5:].partition(",")
    if not comma:
        raise InvalidImageError("The data URL has no comma, so it has no data.", remedy=_DATA_URL)
    is_base64 = header.lower().rstrip().endswith(";base64")
    least_bytes = len(payload) // 4 * 3 - 2 if is_base64 else len(payload) // 3  # %FF is one byte
    limits.check_bytes(least_bytes, name="The data URL")
    try:
        data = unquote_to_bytes(payload)
        if is_base64:  # of either alphabet, with or without padding and line breaks
            compact = b"".join(data.split()).translate(_URL_SAFE).rstrip(b"=")
            data = binascii.a2b_base64(compact + b"=" * (-len(compact) % 4), strict_mode=True)
    except ValueError as error:
        raise InvalidImageError("The data URL is not valid base64.", remedy=_DATA_URL) from error
    limits.check_bytes(len(data), name="The data URL")
    return data


def _shorten(name: str) -> str:
    """Return a name fit for one line of a log: content may have been passed as a path by mistake."""
    short = name if len(name) <= 120 else f"{name[:117]}…"
    return "".join(letter if letter.isprintable() else "�" for letter in short)
