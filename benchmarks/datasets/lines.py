"""A folder of one's own pictures: a file of lines with captions and boxes, or nothing but images.

A line is a JSON object::

    {"image": "photos/a.jpg", "captions": ["a cat on a sofa"], "credit": "author, licence, source",
     "boxes": [{"label": "cat", "xyxy": [12, 40, 250, 310]}, {"label": "person", "xyxy": [...], "iscrowd": true}]}

``image`` is relative to the file; the rest may be left out. ``boxes`` names all objects, in pixels of the upright
image; an empty list says that there are none, no list that nobody looked.
"""

from __future__ import annotations

from pathlib import Path, PurePath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vision_backends import InvalidRequestError, VisionError
from vision_backends.cli.inputs import find_images
from vision_backends.config.text_file import read_text

from .photo import Dataset, Photo, TrueBox

__all__ = ["read_folder", "read_lines"]

MAX_BYTES = 50_000_000


class _BoxLine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    label: str = Field(min_length=1)
    xyxy: tuple[float, float, float, float]
    iscrowd: bool = False


class _PhotoLine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image: str = Field(min_length=1)
    captions: tuple[str, ...] = ()
    boxes: tuple[_BoxLine, ...] | None = None
    credit: str | None = None


def read_lines(path: Path) -> Dataset:
    """Read a file of lines.

    Raises:
        InvalidRequestError: It is missing, or a line is wrong; says which and why.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{str(path)!r} cannot be read: {error}.") from error
    photos = [_photo(line, path, number) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    labels = {box.label: None for photo in photos for box in photo.boxes or ()}
    return Dataset(name=path.stem, photos=tuple(photos), labels=tuple(labels))


def read_folder(path: Path) -> Dataset:
    """Take the images of a folder, about which nobody has said anything."""
    try:
        found = find_images([str(path)], max_bytes=MAX_BYTES)
    except VisionError as error:
        raise InvalidRequestError(error.message, remedy=error.remedy) from error
    photos = [Photo(name=each.source.name, source=each.source) for each in found if isinstance(each.source, Path)]
    return Dataset(name=path.resolve().name, photos=tuple(photos))


def _photo(line: str, path: Path, number: int) -> Photo:
    where = f"{str(path)!r}, line {number}"
    try:
        said = _PhotoLine.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(f"{where}: {key or 'it'}: {first['msg']}.") from None
    if PurePath(said.image).is_absolute():
        raise InvalidRequestError(f"{where}: {said.image!r} is not a path relative to the file.")
    for box in said.boxes or ():
        x1, y1, x2, y2 = box.xyxy
        if not (0 <= x1 < x2 and 0 <= y1 < y2):
            raise InvalidRequestError(f"{where}: {list(box.xyxy)} is not a box [x1, y1, x2, y2] with x1 < x2, y1 < y2.")
    boxes = tuple(TrueBox(label=box.label, xyxy=box.xyxy, is_crowd=box.iscrowd) for box in said.boxes or ())
    return Photo(
        name=said.image,
        source=path.parent / said.image,
        captions=said.captions,
        boxes=None if said.boxes is None else boxes,
        credit=said.credit,
    )
