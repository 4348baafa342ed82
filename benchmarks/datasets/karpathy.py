"""Flickr8k, Flickr30k and COCO in Karpathy's form: one JSON file with the captions and splits of all images.

The split is ``test`` unless another is named. Images are looked for in the folder of the file and in the folders
below it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vision_backends import InvalidRequestError
from vision_backends.config.text_file import read_text

from .photo import Dataset, Photo

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_karpathy"]

USUAL_SPLIT = "test"


def read_karpathy(path: Path, *, split: str | None) -> Dataset:
    """Read one split.

    Raises:
        InvalidRequestError: The file is missing or of another form, or the split or its images are missing.
    """
    split = split or USUAL_SPLIT
    try:
        content = json.loads(read_text(path))
        images = [each for each in content["images"] if each["split"] == split]
        captions = [tuple(str(said["raw"]).strip() for said in each["sentences"]) for each in images]
        files = ["/".join(filter(None, (each.get("filepath"), each["filename"]))) for each in images]
        splits = sorted({str(each["split"]) for each in content["images"]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequestError(f"{str(path)!r} is not a data set in Karpathy's form: {error!r}.") from error
    if not images:
        raise InvalidRequestError(f"{str(path)!r} has no split {split!r}.", remedy=f"There are: {', '.join(splits)}.")
    folder = _folder_of(path.parent, files[0])
    photos = [Photo(name=name, source=folder / name, captions=said) for name, said in zip(files, captions, strict=True)]
    name = content.get("dataset") if isinstance(content.get("dataset"), str) else path.stem
    return Dataset(name=f"{name} {split}", photos=tuple(photos))


def _folder_of(root: Path, name: str) -> Path:
    for folder in (root, *sorted(each for each in root.iterdir() if each.is_dir())):
        if (folder / name).is_file():
            return folder
    raise InvalidRequestError(
        f"The image {name!r} is neither in {str(root)!r} nor in a folder of it.", remedy="Put the images there."
    )
