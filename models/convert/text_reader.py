"""The text reader, PP-OCRv6 tiny: both ONNX files as published, and the list of characters out of the recogniser.

The files are copied byte by byte; only the list, which the recogniser has in its metadata, becomes a file of its own.
"""

from __future__ import annotations

import onnx

KEY = "character"
COUNT = 6904


def read_characters(recogniser: bytes) -> list[str]:
    """Return the characters in the order of the recogniser's classes, without the blank before and the space after.

    Raises:
        ValueError: The model no longer holds as many characters.
    """
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(recogniser).metadata_props}
    characters = metadata.get(KEY, "").split("\n")
    if len(characters) != COUNT or any(len(character) != 1 for character in characters):
        raise ValueError(f"The recogniser names {len(characters)} characters, not {COUNT}.")
    return characters
