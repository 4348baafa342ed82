"""A data set of the Hugging Face hub, or one that the library ``datasets`` has saved in a folder.

Columns are found by what they are: the first of images; captions by the names that data sets of captions use; boxes in
a column ``objects`` with ``bbox`` ([x, y, width, height] in pixels, as COCO's) and ``category`` or ``label``. No code
of a data set is run.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends import ConfigError, InvalidRequestError

from .photo import Dataset, Photo, TrueBox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["read_hub"]

CAPTIONS = ("captions", "caption", "sentences", "sentence", "raw", "text", "texts")

OBJECTS = ("objects", "annotations")

SPLITS = ("test", "validation", "val", "train")
"""In this order, unless a split is named."""


def read_hub(name: str, *, split: str | None, draw: Callable[[int], Sequence[int]]) -> Dataset:
    """Read some images of a split.

    Args:
        name: An id on the hub, with ``@revision`` where one is wanted, or a folder of ``save_to_disk``.
        split: Such as ``"test"``.
        draw: Chooses places, given how many there are.

    Raises:
        ConfigError: The library is not installed.
        InvalidRequestError: There is no such data set, split or column.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ConfigError(
            "hf: needs the library datasets.", remedy="Run: pip install 'vision-backends[bench]' datasets"
        ) from error
    try:
        found = _open(datasets, name)
        if isinstance(found, datasets.DatasetDict):
            split = split or next((each for each in SPLITS if each in found), next(iter(found)))
            if split not in found:
                raise InvalidRequestError(f"{name!r} has no split {split!r}.", remedy=f"There are: {', '.join(found)}.")
            found = found[split]
    except (OSError, ValueError, RuntimeError) as error:  # its own errors, and those of the hub, are among these
        raise InvalidRequestError(f"The data set {name!r} cannot be opened: {error}") from error
    images = [column for column, kind in found.features.items() if isinstance(kind, datasets.Image)]
    if not images:
        raise InvalidRequestError(f"{name!r} has no column of images.", remedy=f"It has: {', '.join(found.features)}.")
    rows = found.cast_column(images[0], datasets.Image(decode=False)).select(list(draw(len(found))))
    captions = next((column for column in CAPTIONS if column in found.features), None)
    objects = next((column for column in OBJECTS if column in found.features), None)
    names = _label_names(found.features[objects]) if objects else None
    texts: list[Any] = rows[captions][:] if captions else [()] * len(rows)
    marks: list[Any] = rows[objects][:] if objects else [None] * len(rows)
    photos = [
        Photo(
            name=f"{place:06d}",
            source=partial(_bytes_of, rows, place, images[0]),
            captions=_captions(said),
            boxes=None if marked is None else _boxes(marked, names),
        )
        for place, (said, marked) in enumerate(zip(texts, marks, strict=True))
    ]
    labels = names or {box.label: None for photo in photos for box in photo.boxes or ()}
    title = Path(name).name if Path(name).is_dir() else name
    return Dataset(name=f"{title} {split}" if split else title, photos=tuple(photos), labels=tuple(labels))


def _open(datasets: Any, name: str) -> Any:  # noqa: ANN401 — imported only here
    if Path(name).is_dir():
        return datasets.load_from_disk(name)
    place, _, revision = name.partition("@")
    return datasets.load_dataset(place, revision=revision or None)


def _bytes_of(rows: Any, place: int, column: str) -> bytes:  # noqa: ANN401 — a table of datasets
    cell = rows[place][column]
    return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()


def _captions(said: Any) -> tuple[str, ...]:  # noqa: ANN401 — a text, texts, or tables with a raw text each
    if isinstance(said, str):
        return (said.strip(),)
    return tuple(str(each["raw"] if isinstance(each, dict) else each).strip() for each in said)


def _label_names(feature: Any) -> tuple[str, ...] | None:  # noqa: ANN401 — a feature of datasets
    """Return the names behind the numbers of a column of objects."""
    inner = getattr(feature, "feature", feature)
    for key in ("category", "label", "categories", "labels"):
        kind = inner.get(key) if isinstance(inner, dict) else None
        names = getattr(getattr(kind, "feature", kind), "names", None)
        if names:
            return tuple(names)
    return None


def _boxes(marked: Any, names: Sequence[str] | None) -> tuple[TrueBox, ...]:  # noqa: ANN401 — a table of lists, or a list
    if isinstance(marked, list):
        marked = {key: [each[key] for each in marked] for key in (marked[0] if marked else ())}
    key = next((key for key in ("category", "label", "categories", "labels") if key in marked), None)
    if not marked:
        return ()
    if key is None or "bbox" not in marked:
        raise InvalidRequestError("The objects have no bbox and category.", remedy=f"They have: {', '.join(marked)}.")
    crowds = marked.get("iscrowd") or marked.get("is_crowd") or [False] * len(marked["bbox"])
    boxes = []
    for (x, y, width, height), label, crowd in zip(marked["bbox"], marked[key], crowds, strict=True):
        if not isinstance(label, str) and names is None:
            raise InvalidRequestError(f"Nothing says which label the number {label} is.")
        text = label if isinstance(label, str) else (names or ())[label]
        boxes.append(TrueBox(label=text, xyxy=(x, y, x + width, y + height), is_crowd=bool(crowd)))
    return tuple(boxes)
