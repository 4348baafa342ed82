"""Detections as data sets that other programs train on and evaluate with: COCO, YOLO, Pascal VOC.

This module decides what stands in their files, by their specifications. Images are named, never copied: labels of the
whole image have no box, and no place in these formats. It must not know how anything is found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from vision_backends.arguments import shown
from vision_backends.errors import InvalidRequestError
from vision_backends.foreign_text import printable
from vision_backends.results.files import path_of, written
from vision_backends.results.tables import class_ids, each_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from xml.etree import ElementTree as ET

    from vision_backends.types import Detection, Detections

__all__ = ["coco_rows", "save_coco", "save_voc", "save_yolo", "to_coco"]


def coco_rows(found: Detections, *, image_id: int, categories: Mapping[str, int] | None) -> list[dict[str, Any]]:
    """Return COCO result rows. Arguments and errors as in `Detections.to_coco`."""
    _check_categories(categories)
    rows = []
    for item in found.items:
        category = item.category_id if categories is None else categories.get(item.label)
        if category is None:
            raise InvalidRequestError(
                f"The label {item.label!r} has no COCO category.", remedy="Pass categories={label: id} to to_coco."
            )
        x1, y1, x2, y2 = item.xyxy
        box = [x1, y1, x2 - x1, y2 - y1]
        rows.append({"image_id": image_id, "category_id": category, "bbox": box, "score": item.score})
    return rows


def to_coco(
    results: Detections | Iterable[Detections], *, categories: Mapping[str, int] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return a COCO data set: ``{"images": […], "annotations": […], "categories": […]}``, as its JSON file has it.

    Images have ids from 1 in their order, and are named by their source. Annotations keep their score, which
    `pycocotools` passes over.

    Args:
        results: What was found in one image or several.
        categories: Label to category id. By default COCO's labels have COCO's own, and the others 91 and more.

    Raises:
        InvalidRequestError: A label has no category id, or an error is among the results.

    Examples:
        >>> from vision_backends.results import to_coco
        >>> found = router.detect_many(["cat.jpg", "astronaut.jpg"], min_score=0.5)
        >>> dataset = to_coco(found)
        >>> [image["file_name"] for image in dataset["images"]], len(dataset["annotations"])
        (['cat.jpg', 'astronaut.jpg'], 2)
    """
    listed = _detections(results)
    _check_categories(categories)
    ids: Mapping[str, int] = class_ids(listed, None) if categories is None else categories
    annotations: list[dict[str, Any]] = []
    for image_id, found in enumerate(listed, start=1):
        for row, item in zip(coco_rows(found, image_id=image_id, categories=ids), found.items, strict=True):
            number = len(annotations) + 1
            annotations.append({"id": number, **row, "area": item.area_px, "iscrowd": 0, "segmentation": []})
    images = [
        {"id": number, "file_name": found.source or f"image-{number}", "width": found.width, "height": found.height}
        for number, found in enumerate(listed, start=1)
    ]
    names = [{"id": number, "name": label} for label, number in sorted(ids.items(), key=lambda each: each[1])]
    return {"images": images, "annotations": annotations, "categories": names}


def save_coco(
    results: Detections | Iterable[Detections],
    path: str | os.PathLike[str],
    *,
    categories: Mapping[str, int] | None = None,
) -> None:
    """Write a COCO data set to a JSON file; one that is there is replaced. Arguments and errors as in `to_coco`.

    Examples:
        >>> from vision_backends.results import save_coco
        >>> save_coco(router.detect_many(["cat.jpg", "astronaut.jpg"]), "boxes.json")
    """
    written(path_of(path), json.dumps(to_coco(results, categories=categories)) + "\n")


def save_yolo(
    results: Detections | Iterable[Detections],
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
) -> None:
    """Write a YOLO data set: ``labels/NAME.txt`` for each image, and ``data.yaml`` with the names of the classes.

    A line is ``class x y width height``: the centre and the size of a box, as shares of the image's sides. The images
    belong beside it, in ``images/``.

    Args:
        results: What was found in one image or several.
        folder: Where they go; files that are there are replaced.
        classes: The labels in the order of their ids, from 0; by default all that were found, in that of the alphabet.

    Raises:
        InvalidRequestError: A label is none of the classes, two images have one name or one has none, an error is among
            the results, or a file cannot be written.

    Examples:
        >>> from pathlib import Path
        >>> from vision_backends.results import save_yolo
        >>> save_yolo(router.detect_many(["cat.jpg", "astronaut.jpg"], min_score=0.5), "yolo")
        >>> sorted(path.name for path in Path("yolo").rglob("*.txt"))
        ['astronaut.txt', 'cat.txt']
    """
    listed = _detections(results)
    every = sorted({item.label for found in listed for item in found.items})
    ids = class_ids(listed, every if classes is None else classes)
    files = _named(listed)
    root = path_of(folder)
    for stem, found in files.items():
        lines = [_yolo_line(ids[item.label], item, found) for item in found.items]
        written(root / "labels" / f"{stem}.txt", "".join(f"{line}\n" for line in lines))
    rows = [f"  {number}: {json.dumps(name, ensure_ascii=True)}\n" for name, number in ids.items()]
    written(root / "data.yaml", f"train: images\nval: images\nnames:{' {}' if not rows else ''}\n{''.join(rows)}")


def save_voc(results: Detections | Iterable[Detections], folder: str | os.PathLike[str]) -> None:
    """Write a file of Pascal VOC, ``NAME.xml``, for each image, with boxes in whole pixels that are counted from 1.

    Args:
        results: What was found in one image or several.
        folder: Where they go; files that are there are replaced.

    Raises:
        InvalidRequestError: Two images have one name or one has none, an error is among the results, or a file cannot
            be written.

    Examples:
        >>> from pathlib import Path
        >>> from vision_backends.results import save_voc
        >>> save_voc(router.detect_many(["cat.jpg", "astronaut.jpg"]), "voc")
        >>> sorted(path.name for path in Path("voc").rglob("*.xml"))
        ['astronaut.xml', 'cat.xml']
    """
    from xml.etree import ElementTree as ET

    root = path_of(folder)
    for stem, found in _named(_detections(results)).items():
        tree = ET.Element("annotation")
        _add(tree, "filename", PurePath(found.source or "").name)
        size = ET.SubElement(tree, "size")
        for name, value in (("width", found.width), ("height", found.height), ("depth", 3)):
            _add(size, name, value)
        for item in found.items:
            _add_voc_object(tree, item)
        ET.indent(tree)
        written(root / f"{stem}.xml", ET.tostring(tree, encoding="unicode") + "\n")


def _add_voc_object(tree: ET.Element, item: Detection) -> None:
    from xml.etree import ElementTree as ET

    element = ET.SubElement(tree, "object")
    for name, value in (("name", item.label), ("difficult", 0), ("truncated", 0), ("score", item.score)):
        _add(element, name, value)
    x1, y1, x2, y2 = item.xyxy
    box = ET.SubElement(element, "bndbox")
    sides = {"xmin": math.floor(x1) + 1, "ymin": math.floor(y1) + 1, "xmax": math.ceil(x2), "ymax": math.ceil(y2)}
    for name, value in sides.items():
        _add(box, name, value)


def _add(parent: ET.Element, name: str, value: object) -> None:
    from xml.etree import ElementTree as ET

    ET.SubElement(parent, name).text = printable(str(value))  # XML has no control characters


def _yolo_line(number: int, item: Detection, found: Detections) -> str:
    x1, y1, x2, y2 = item.xyxy
    shares = ((x1 + x2) / 2 / found.width, (y1 + y2) / 2 / found.height)
    sides = ((x2 - x1) / found.width, (y2 - y1) / found.height)
    return " ".join([str(number), *(f"{share:.6f}" for share in (*shares, *sides))])


def _detections(results: Any) -> list[Detections]:  # noqa: ANN401 — one or several
    listed = each_of(results, errors=False)
    for found in listed:
        if not hasattr(found, "image_labels"):
            raise InvalidRequestError(f"{shown(found)} is not a Detections.", remedy="Pass what detect returned.")
    return listed


def _named(listed: Sequence[Detections]) -> dict[str, Detections]:
    """Return detections by the name of their image, without its suffix: the files of a format are called so."""
    named: dict[str, Detections] = {}
    for found in listed:
        stem = PurePath(found.source or "").stem
        if not stem:
            raise InvalidRequestError(
                "An image without a name has no file to go by.",
                remedy='Name it: dataclasses.replace(found, source="photo.jpg").',
            )
        if stem in named:
            raise InvalidRequestError(
                f"Two images are called {stem}: {named[stem].source} and {found.source}.",
                remedy="Write them to different folders, or name one: dataclasses.replace(found, source=…).",
            )
        named[stem] = found
    return named


def _check_categories(categories: object) -> None:
    if categories is not None and not isinstance(categories, Mapping):
        raise InvalidRequestError(
            f"categories={shown(categories)} gives no label an id.", remedy='Pass categories={"cat": 17}.'
        )
