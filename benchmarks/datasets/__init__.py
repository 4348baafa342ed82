"""The data sets that rungs are measured on: from a name to images with what people have said about them.

``sample`` are the bundled photos. A folder is recognised by what is in it: ``annotations/`` of COCO, a Karpathy
``dataset_*.json`` of Flickr8k or Flickr30k, a ``.jsonl`` with captions and boxes, or just images. ``hf:ID`` is a data
set of the Hugging Face hub, or one that its library saved in a folder. ``#SPLIT`` at the end names a split.

This module decides which reader a name means, and which images are drawn. It must not know any format.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends import InvalidRequestError

from .coco import read_coco
from .karpathy import read_karpathy
from .lines import read_folder, read_lines
from .photo import Dataset, Photo, TrueBox

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SAMPLE", "Dataset", "Photo", "TrueBox", "open_dataset"]

SAMPLE = "sample"

HUB = "hf:"


def open_dataset(name: str, *, limit: int | None, seed: int) -> Dataset:
    """Return a data set in an order drawn by a seed, so that its beginning is a fair sample of all of it.

    Args:
        name: As the user gave it.
        limit: How many images at most; fewer are the beginning of more.
        seed: Of the order.

    Raises:
        InvalidRequestError: There is no such data set, or it cannot be read.
    """
    place, _, split = name.partition("#")
    if place.startswith(HUB):
        from .hub import read_hub

        order: random.Random = random.Random(seed)  # noqa: S311 — no secret
        return read_hub(place.removeprefix(HUB), split=split or None, draw=lambda count: _draw(count, limit, order))
    dataset = _read(place, split or None)
    if not dataset.photos:
        raise InvalidRequestError(f"The data set {name!r} holds no images.")
    names = [photo.name for photo in dataset.photos]
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise InvalidRequestError(f"The data set {name!r} has the image {twice!r} twice.")
    chosen = _draw(len(names), limit, random.Random(seed))  # noqa: S311
    return replace(dataset, photos=tuple(dataset.photos[place] for place in chosen))


def _read(place: str, split: str | None) -> Dataset:
    if place == SAMPLE:
        return replace(read_lines(Path(__file__).parents[1] / SAMPLE / "sample.jsonl"), name=SAMPLE)
    path = Path(place).expanduser()
    if path.suffix == ".jsonl":
        return read_lines(path)
    if path.suffix == ".json":
        return read_karpathy(path, split=split)
    if not path.is_dir():
        raise InvalidRequestError(
            f"There is no data set {place!r}.", remedy="Name a folder, a .jsonl or .json file, hf:ID or sample."
        )
    if (path / "annotations").is_dir():
        return read_coco(path, split=split)
    for pattern, read in (("dataset*.json", lambda file: read_karpathy(file, split=split)), ("*.jsonl", read_lines)):
        found = sorted(path.glob(pattern))
        if len(found) > 1:
            raise InvalidRequestError(
                f"{place!r} has several of {pattern}.", remedy=f"Name one of them, as {str(found[0])!r}."
            )
        if found:
            return read(found[0])
    return read_folder(path)


def _draw(count: int, limit: int | None, chance: random.Random) -> Sequence[int]:
    places = list(range(count))
    chance.shuffle(places)
    return places[:limit]
