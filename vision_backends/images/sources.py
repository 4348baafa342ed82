"""Paths, bytes, files and data URLs → encoded bytes with a name for error messages.

This module decides what may be read, from where, and how much of it. It must not know what an image looks like
inside.
"""

from __future__ import annotations

import binascii
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vision_backends.errors import InvalidImageError

if TYPE_CHECKING:
    from typing import BinaryIO

    from vision_backends.images.limits import ImageLimits

__all__ = ["ACCEPTED", "Encoded", "read_source"]

ACCEPTED = (
    "Accepted are JPEG, PNG, WEBP, GIF, BMP, TIFF and AVIF images (HEIC with the pillow-heif plugin) as a path, "
    "bytes, binary file, data: URL, PIL image or numpy array."
)
"""The remedy of most errors about images."""

_CHUNK_BYTES = 1 << 20

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The bytes of an image file.

    Attributes:
        name: What to call them in messages: the file's path, or "The bytes object".
        data: The bytes, whatever they are.
    """

    name: str
    data: bytes = field(repr=False)


def read_source(source: object, *, limits: ImageLimits) -> Encoded:
    """Read a path, bytes, binary file or data URL.

    A file is read from where it stands to its end, and is not closed.

    Raises:
        InvalidImageError: It is none of these, or it cannot be read.
        ImageTooLargeError: It has more bytes than the limits allow.
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
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidImageError(f"{name} is not a regular file.", remedy=ACCEPTED)
            limits.check_bytes(status.st_size, name=name)
            return _read_file(file, name=name, limits=limits)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else None
        raise InvalidImageError(
            f"{name} cannot be read: {reason or 'it is no valid path'}.",
            remedy="Check the path; a relative one starts at the working directory.",
        ) from error


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a path at once, even where it is a pipe that nobody writes to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_file(file: Any, *, name: str, limits: ImageLimits) -> bytes:  # noqa: ANN401 — any object with read()
    chunks: list[bytes] = []
    size_bytes = 0
    while True:
        chunk = _read_chunk(file, name=name)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size_bytes += len(chunk)
        limits.check_bytes(size_bytes, name=name)


def _read_chunk(file: BinaryIO, *, name: str) -> bytes:
    try:
        chunk: object = file.read(_CHUNK_BYTES)
    except Exception as error:  # a foreign object may raise anything
        raise InvalidImageError(f"{name} cannot be read.", remedy="Check that it is open.") from error
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    if callable(close := getattr(chunk, "close", None)):
        close()  # a coroutine that nobody awaits would warn
    raise InvalidImageError(
        f"{name} gave a {type(chunk).__name__} instead of bytes.",
        remedy="Open it in binary mode; await what is asynchronous and pass its bytes.",
    )


def _copy_bytes(source: bytes | bytearray | memoryview, *, limits: ImageLimits) -> bytes:
    try:
        limits.check_bytes(memoryview(source).nbytes, name="The bytes object")
        return bytes(source)
    except ValueError as error:
        raise InvalidImageError("The memoryview has been released.", remedy=ACCEPTED) from error


def _decode_data_url(url: str, *, limits: ImageLimits) -> bytes:
    """Decode a data URL; its media type is not looked at, because many that are seen in practice are wrong."""
    from urllib.parse import unquote_to_bytes

    header, comma, payload = url[5:].partition(",")
    if not comma:
        raise InvalidImageError("The data URL has no comma, hence no data.", remedy=_DATA_URL)
    is_base64 = header.lower().rstrip().endswith(";base64")
    least_bytes = len(payload) // 4 * 3 - 2 if is_base64 else len(payload) // 3  # %FF is one byte
    limits.check_bytes(least_bytes, name="The data URL")
    try:
        data = unquote_to_bytes(payload)
        if is_base64:
            data = _decode_base64(data)
    except ValueError as error:
        raise InvalidImageError("The data URL is not valid base64.", remedy=_DATA_URL) from error
    limits.check_bytes(len(data), name="The data URL")
    return data


def _decode_base64(payload: bytes) -> bytes:
    """Decode base64 of either alphabet, with or without padding and line breaks."""
    compact = b"".join(payload.split()).translate(_URL_SAFE).rstrip(b"=")
    return binascii.a2b_base64(compact + b"=" * (-len(compact) % 4), strict_mode=True)


_DATA_URL = "Write data:image/png;base64,… with the encoded bytes of the image."
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _shorten(name: str) -> str:
    """Return a name fit for one line of a log: what was meant as content may have come as a path."""
    short = name if len(name) <= 120 else f"{name[:117]}…"
    return "".join(letter if letter.isprintable() else "�" for letter in short)
