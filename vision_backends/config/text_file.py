"""Text files as people's editors write them: with a byte order mark or without, and with line ends of any kind.

This module decides how bytes become text. It must not know what the text means.
"""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["decode_text", "read_text"]

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    r"""Return a file's text without its mark, with ``\n`` at the end of each line; UTF-8 unless the mark says else.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not in that encoding.
    """
    return decode_text(path.read_bytes())


def decode_text(data: bytes) -> str:
    """Return the text of a file that has been read; as `read_text`."""
    encoding = next((encoding for mark, encoding in MARKS if data.startswith(mark)), "utf-8")
    return io.StringIO(data.decode(encoding), newline=None).read()
