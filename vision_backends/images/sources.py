"""Whatever can be an image file → its encoded bytes, within limits of bytes and of reads.

This module decides what may be read, from where and how much of it. It must not know what an image looks like inside.
"""

from __future__ import annotations

import binascii
import os
import re
import string
from typing import TYPE_CHECKING, Any

from vision_backends.errors import InvalidImageError
from vision_backends.images.formats import ACCEPTED
from vision_backends.images.limits import Encoded
from vision_backends.regular_file import FileTooLargeError, NotRegularFileError, read_regular

if TYPE_CHECKING:
    from vision_backends.images.limits import ImageLimits

__all__ = ["name_of", "read_source"]

NO_FILE = "Check the path; a relative one starts at the working directory."
LOCKED = "Give yourself the permission to read it, or run this as a user who may read it."

_CHUNK_BYTES = 1 << 20
_MOST_READS = 500_000
"""An object that gives a hundred bytes at a time reaches the usual limit of bytes; each read costs time."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_DATA_URL = "Write data:image/png;base64,… with the encoded bytes of the image."


def read_source(source: object, *, limits: ImageLimits) -> Encoded:
    """Read a path, bytes, binary file, data URL or, where that is allowed, what is at a web address.

    A file is read from its current position to its end, and is not closed.
    """
    if isinstance(source, str) and source[:5].lower() == "data:":
        return Encoded(name="The data URL", data=_decode_data_url(source, limits=limits))
    if isinstance(source, str) and _URL.match(source):
        return _read_url(source, limits=limits)
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


def name_of(source: object) -> str | None:
    """Return the path or name of an image as its caller gave it; None where it has none, as bytes and pixels have.

    Of a web address, what may be shown.
    """
    if isinstance(source, str):
        if source[:5].lower() == "data:":
            return None
        if _URL.match(source):
            from vision_backends.images.urls import without_query

            return without_query(source)
        return source
    name: object = None
    if isinstance(source, os.PathLike):
        name = os.fspath(source)
    elif not isinstance(source, bytes | bytearray | memoryview):
        name = getattr(source, "name", None) or getattr(source, "filename", None)  # of a file; of a PIL image
    return os.fsdecode(name) or None if isinstance(name, str | bytes) else None


def _read_url(url: str, *, limits: ImageLimits) -> Encoded:
    from vision_backends.images.urls import fetch, is_web_url, without_query

    if not limits.allow_urls:
        raise InvalidImageError(
            f"{without_query(url)} is a URL, and fetching URLs is off by design.",
            remedy="Fetch it yourself and pass its bytes, or set allow_urls = true in [images].",
        )
    if not is_web_url(url):
        raise InvalidImageError(f"{without_query(url)} is a URL of a kind that is never fetched.", remedy=ACCEPTED)
    return Encoded(name=without_query(url), data=fetch(url, limits=limits))


def _read_path(path: str | bytes, *, name: str, limits: ImageLimits) -> bytes:
    try:
        return read_regular(path, max_bytes=limits.max_bytes)
    except FileTooLargeError as error:
        raise limits.too_many_bytes(name) from error
    except NotRegularFileError as error:
        raise InvalidImageError(f"{name} is not a regular file.", remedy=ACCEPTED) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else None
        locked = isinstance(error, PermissionError)
        raise InvalidImageError(
            f"{name} cannot be read: {reason or 'it is not a valid path'}.", remedy=LOCKED if locked else NO_FILE
        ) from error


def _read_file(file: Any, *, name: str, limits: ImageLimits) -> bytes:  # noqa: ANN401 — any object with read()
    chunks: list[bytes] = []
    size_bytes = 0
    for _ in range(_MOST_READS):
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
        size_bytes += memoryview(chunk).nbytes
        limits.check_bytes(size_bytes, name=name)  # before a copy is made
        data = bytes(chunk)
        if not data:
            return b"".join(chunks)
        chunks.append(data)
    raise InvalidImageError(
        f"{name} was read {_MOST_READS:,} times and has not ended.", remedy="Read it yourself, and pass its bytes."
    )


def _copy_bytes(source: bytes | bytearray | memoryview, *, limits: ImageLimits) -> bytes:
    try:
        limits.check_bytes(memoryview(source).nbytes, name="The bytes object")
        return bytes(source)
    except ValueError as error:
        raise InvalidImageError("The memoryview has been released.", remedy=ACCEPTED) from error


def _decode_data_url(url: str, *, limits: ImageLimits) -> bytes:
    """Decode a data URL; its media type is ignored, because many in practice are wrong."""
    header, comma, payload = url[5:].partition(",")
    if not comma:
        raise InvalidImageError("The data URL has no comma, so it has no data.", remedy=_DATA_URL)
    is_base64 = header[-20:].lower().rstrip().endswith(";base64")
    limits.check_bytes(len(payload) // 4 * 3 - 2 if is_base64 else len(payload) // 3, name="The data URL")
    try:
        data = _unescape(payload.encode())
        if is_base64:  # of either alphabet, with or without padding and line breaks
            compact = data.translate(_URL_SAFE, string.whitespace.encode()).rstrip(b"=")
            data = binascii.a2b_base64(compact + b"=" * (-len(compact) % 4), strict_mode=True)
    except ValueError as error:
        raise InvalidImageError("The data URL is not valid base64.", remedy=_DATA_URL) from error
    limits.check_bytes(len(data), name="The data URL")
    return data


def _unescape(text: bytes) -> bytes:
    """Return a URL's bytes, of which some are written as ``%41``; `urllib.parse` takes a minute for 60 MB of ``%``."""
    pieces = []
    at = 0
    while (escaped := text.find(b"%", at)) >= 0:
        end = escaped + _CHUNK_BYTES
        end -= 1 if text[end - 1 : end] == b"%" else 2 if text[end - 2 : end - 1] == b"%" else 0  # none is cut in two
        pieces += [text[at:escaped], _unescape_piece(text[escaped:end])]
        at = end
    return b"".join([*pieces, text[at:]])


def _unescape_piece(text: bytes) -> bytes:
    import numpy as np

    letters = np.frombuffer(text, "uint8")
    values = np.array([int(chr(code), 16) if chr(code) in string.hexdigits else 16 for code in range(256)], "uint8")
    high, low = values[letters[1:-1]], values[letters[2:]]
    (places,) = np.nonzero((letters[:-2] == ord("%")) & (high < 16) & (low < 16))
    result = letters.copy()
    result[places] = high[places] * 16 + low[places]
    is_left = np.ones(len(letters), dtype=bool)
    is_left[places + 1] = is_left[places + 2] = False
    return result[is_left].tobytes()


def _shorten(name: str) -> str:
    """Return a name fit for one line of a log: content may have been passed as a path by mistake."""
    short = name if len(name) <= 120 else f"{name[:117]}…"
    return short if short.isprintable() else "".join(each if each.isprintable() else "�" for each in short)
