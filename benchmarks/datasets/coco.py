"""COCO as it is published: ``annotations/captions_val2017.json``, ``annotations/instances_val2017.json``, ``val2017/``.

Either annotation file may be missing. Of several splits, ``val2017`` is taken unless another is named.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from vision_backends import InvalidRequestError
from vision_backends.config.text_file import read_text

from .photo import Dataset, Photo, TrueBox

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_coco"]

USUAL_SPLIT = "val2017"


def read_coco(root: Path, *, split: str | None) -> Dataset:
    """Read one split.

    Args:
        root: The folder with ``annotations``.
        split: Such as ``"val2017"``.

    Raises:
        InvalidRequestError: The split or its annotations are missing or broken.
    """
    split = split or _only_split(root)
    captions_of: dict[int, list[str]] = defaultdict(list)
    boxes_of: dict[int, list[TrueBox]] | None = None
    names: dict[int, str] = {}
    labels: tuple[str, ...] = ()
    captions, instances = (_load(root / "annotations" / f"{kind}_{split}.json") for kind in ("captions", "instances"))
    if captions is None and instances is None:
        raise InvalidRequestError(f"{str(root)!r} has no annotations of the split {split!r}.")
    try:
        if captions is not None:
            names |= {each["id"]: each["file_name"] for each in captions["images"]}
            for each in captions["annotations"]:
                captions_of[each["image_id"]].append(str(each["caption"]).strip())
        if instances is not None:
            names |= {each["id"]: each["file_name"] for each in instances["images"]}
            label_of = {each["id"]: each["name"] for each in instances["categories"]}
            labels = tuple(label_of.values())
            boxes_of = defaultdict(list)
            for each in instances["annotations"]:
                boxes_of[each["image_id"]].append(_box(each, label_of))
    except (KeyError, TypeError) as error:
        raise InvalidRequestError(f"The annotations of {split!r} are not COCO's: {error!r}.") from error
    photos = [
        Photo(
            name=name,
            source=root / split / name,
            captions=tuple(captions_of[number]),
            boxes=None if boxes_of is None else tuple(boxes_of[number]),
        )
        for number, name in sorted(names.items())
    ]
    return Dataset(name=f"COCO {split}", photos=tuple(photos), labels=labels)


def _box(annotation: dict[str, Any], label_of: dict[int, str]) -> TrueBox:
    x, y, width, height = annotation["bbox"]
    return TrueBox(
        label=label_of[annotation["category_id"]],
        xyxy=(x, y, x + width, y + height),
        is_crowd=bool(annotation.get("iscrowd", 0)),
    )


def _only_split(root: Path) -> str:
    found = {
        path.stem.partition("_")[2]
        for kind in ("captions", "instances")
        for path in (root / "annotations").glob(f"{kind}_*.json")
    }
    if len(found) == 1:
        return found.pop()
    if USUAL_SPLIT in found or not found:
        return USUAL_SPLIT
    raise InvalidRequestError(
        f"{str(root)!r} has the splits {', '.join(sorted(found))}.", remedy=f"Name one: {root}#{min(found)}"
    )


def _load(path: Path) -> Any:  # noqa: ANN401 — JSON
    if not path.exists():
        return None
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{str(path)!r} cannot be read: {error}.") from error
