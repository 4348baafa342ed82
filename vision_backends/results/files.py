"""An answer as a file: JSON, a page, or the image with its boxes.

This module decides which by the name of the file, and that the image that was asked about is not overwritten.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends.arguments import shown
from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from vision_backends.images import ImageSource

__all__ = ["path_of", "refuse_source", "save", "written"]

PICTURES = {".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}


def save(answer: Any, path: str | os.PathLike[str], *, image: ImageSource | None) -> None:  # noqa: ANN401 — any answer
    """Write an answer to a file. Arguments and errors as in `Description.save`."""
    file = path_of(path)
    suffix = file.suffix.lower()
    has_boxes = hasattr(answer, "items")
    if suffix not in {".json", ".html"} and not (has_boxes and suffix in PICTURES):
        formats = ", ".join([".json", ".html", *(PICTURES if has_boxes else ())])
        raise InvalidRequestError(f"{file.name} says no format that is known.", remedy=f"End it in {formats}.")
    refuse_source(file, getattr(answer, "sources", None) or (answer.source,), image)
    if suffix == ".json":
        written(file, json.dumps(answer.to_dict(), allow_nan=False, indent=2) + "\n")
    elif suffix == ".html":
        from vision_backends.results.cards import card

        head = '<!doctype html><meta charset="utf-8"><title>vision-backends</title>'
        written(file, f"{head}\n{card(answer, image=image)}\n")
    else:
        from vision_backends.results.pictures import picture

        _save_picture(picture(answer, image), file, PICTURES[suffix])


def path_of(path: object) -> Path:
    """Return where a file or folder goes.

    Raises:
        InvalidRequestError: It is not a path.
    """
    if not isinstance(path, str | os.PathLike) or "\0" in os.fsdecode(path):
        raise InvalidRequestError(f"{shown(path)} is not a path.", remedy='Write for example: "answers/photo.json"')
    return Path(os.fsdecode(path))


def written(path: Path, text: str) -> None:
    """Write a file in UTF-8, and make its folder; the name of an image may hold what is no character.

    Raises:
        InvalidRequestError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise _unwritable(path, error) from error


def refuse_source(path: Path, *sources: object) -> None:
    """Return if a file is none of the images.

    Raises:
        InvalidRequestError: It is one of them.
    """
    listed = [each for source in sources for each in (source if isinstance(source, tuple) else (source,))]
    for source in listed:
        if isinstance(source, str | os.PathLike) and _is_same(path, Path(source)):
            raise InvalidRequestError(f"{path} is the image itself.", remedy="Name another file.")


def _is_same(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except (OSError, ValueError):  # one of them is not there; a text that is not a path
        return False


def _save_picture(made: Any, path: Path, kind: str) -> None:  # noqa: ANN401 — a PIL image
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save(path, kind)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"{path} cannot be written: {error.strerror or error}.", remedy="Name another file.")
