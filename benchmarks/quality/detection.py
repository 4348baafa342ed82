"""How well objects are found: COCO's mean average precision, by its own implementation.

Values are computed by ``pycocotools``: mAP over IoU 0.50 to 0.95, and mAP50. Labels that the data set does not have are
left out. The intervals are made from the matches that it found: each sample of images counts them anew, which for every
image once gives the very same figures.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vision_backends.backends.model_cards import coco_categories

from ..records import Metric
from .bootstrap import interval_of
from .silence import silence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from ..datasets import TrueBox

    Found = Sequence[tuple[str, float, tuple[float, float, float, float]]]

__all__ = ["score_boxes"]

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
"""Where COCO reads the precision."""

EPSILON = np.spacing(1)


class Matches(NamedTuple):
    """What one label's boxes came to, best score first.

    Attributes:
        image: Place of the image of each box, [d].
        right: Whether it matches an object at each IoU, [t, d].
        ignored: Whether it counts as neither right nor wrong, [t, d].
        objects: How many objects each image has, [images].
    """

    image: npt.NDArray[np.intp]
    right: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.float64]


def score_boxes(
    found: Mapping[str, Found],
    true: Mapping[str, Sequence[TrueBox]],
    labels: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> list[Metric]:
    """Compare boxes with those that people have drawn.

    Args:
        found: For each image label, score and corners of each box.
        true: The objects of the same images.
        labels: All that the data set has.
        resamples: Bootstrap samples.
        seed: Of the samples.
    """
    ids = _category_ids(labels)
    evaluation = evaluate(found, true, ids)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, label], any size, 100 boxes per image
    names = {number: name for name, number in ids.items()}
    each = {names[number]: _mean(precision[:, :, place]) for place, number in enumerate(evaluation.params.catIds)}
    each_50 = {names[number]: _mean(precision[0, :, place]) for place, number in enumerate(evaluation.params.catIds)}
    matches = matches_of(evaluation)
    images = len(found)
    implementation = f"pycocotools {version('pycocotools')}"
    objects = sum(len(boxes) for boxes in true.values())
    note = f"{objects} objects of {sum(value is not None for value in each.values())} labels in {images} images"
    intervals = [
        interval_of(
            partial(mean_average_precision, matches=matches, only_50=only_50),
            images=images,
            resamples=resamples,
            seed=seed,
            width=max((len(each.image) for each in matches), default=0),
        )
        for only_50 in (False, True)
    ]
    return [
        Metric(
            name=name,
            value=_mean(values),
            interval=interval,
            implementation=implementation,
            note=note,
            per_class={label: value for label, value in by_label.items() if value is not None},
        )
        for name, values, interval, by_label in (
            ("mAP", precision, intervals[0], each),
            ("mAP50", precision[0], intervals[1], each_50),
        )
    ]


def evaluate(found: Mapping[str, Found], true: Mapping[str, Sequence[TrueBox]], ids: Mapping[str, int]) -> Any:  # noqa: ANN401 — pycocotools has no types
    """Return the evaluation of pycocotools, accumulated."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with silence():
        truth = COCO()
        truth.dataset = truth_in_coco(true, ids)
        truth.createIndex()
        rows = results_in_coco(found, ids)
        results = truth.loadRes(rows) if rows else _nothing(truth)
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def truth_in_coco(true: Mapping[str, Sequence[TrueBox]], ids: Mapping[str, int]) -> dict[str, Any]:
    """Return objects in the form of COCO's annotation file."""
    boxes = [(place, box) for place, name in enumerate(true, start=1) for box in true[name]]
    return {
        "info": {},
        "images": [{"id": place, "file_name": name} for place, name in enumerate(true, start=1)],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [
            {
                "id": number,
                "image_id": place,
                "category_id": ids[box.label],
                "bbox": _xywh(box.xyxy),
                "area": _area(box.xyxy),
                "iscrowd": int(box.is_crowd),
            }
            for number, (place, box) in enumerate(boxes, start=1)
        ],
    }


def results_in_coco(found: Mapping[str, Found], ids: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return boxes in the form of COCO's result file; images have the numbers of `truth_in_coco`."""
    return [
        {"image_id": place, "category_id": ids[label], "bbox": _xywh(xyxy), "score": score}
        for place, name in enumerate(found, start=1)
        for label, score, xyxy in found[name]
        if label in ids
    ]


def matches_of(evaluation: Any) -> list[Matches]:  # noqa: ANN401 — pycocotools has no types
    """Return which boxes matched which objects, for each label that some image has."""
    images = len(evaluation.params.imgIds)
    sizes = len(evaluation.params.areaRng)
    made = []
    for place in range(len(evaluation.params.catIds)):
        start = place * sizes * images  # the first size is any size
        rows = [(image, row) for image, row in enumerate(evaluation.evalImgs[start : start + images]) if row]
        objects = np.zeros(images)
        for image, row in rows:
            objects[image] = np.count_nonzero(np.asarray(row["gtIgnore"]) == 0)
        if not objects.any():
            continue
        scores = np.concatenate([np.asarray(row["dtScores"], dtype=np.float64) for _, row in rows])
        order = np.argsort(-scores, kind="mergesort")  # as pycocotools sorts, so that ties fall alike
        owner = np.concatenate([np.full(len(row["dtScores"]), image, dtype=np.intp) for image, row in rows])
        right = np.concatenate([np.asarray(row["dtMatches"]) for _, row in rows], axis=1)[:, order] > 0
        ignored = np.concatenate([np.asarray(row["dtIgnore"]) for _, row in rows], axis=1)[:, order].astype(bool)
        made.append(Matches(owner[order], right & ~ignored, ignored, objects))
    return made


def mean_average_precision(
    counts: npt.NDArray[Any], matches: Sequence[Matches], *, only_50: bool
) -> npt.NDArray[np.float64]:
    """Return COCO's figure for samples of images.

    Args:
        counts: How often each image is in each sample, [n, images].
        matches: One for each label.
        only_50: Whether only IoU 0.50 counts.

    Returns:
        Figures of shape [n]; not a number for a sample without objects.
    """
    sums, labels = np.zeros(len(counts)), np.zeros(len(counts))
    for each in matches:
        objects = counts @ each.objects
        weights = counts[:, each.image]
        rows = each.right[:1] if only_50 else each.right
        with np.errstate(invalid="ignore"):
            precisions = [
                _average_precision(weights, right, ignored, objects)
                for right, ignored in zip(rows, each.ignored, strict=False)
            ]
        there = objects > 0
        sums[there] += np.mean(precisions, axis=0)[there]
        labels += there
    with np.errstate(invalid="ignore"):
        return sums / np.where(labels > 0, labels, np.nan)


def _average_precision(
    weights: npt.NDArray[Any],
    right: npt.NDArray[np.bool_],
    ignored: npt.NDArray[np.bool_],
    objects: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the precision averaged over 101 recalls; weights [n, d], right and ignored [d], objects [n]."""
    if not weights.shape[1]:
        return np.zeros(len(weights))
    hits = np.cumsum(weights * right, axis=1)
    misses = np.cumsum(weights * ~(right | ignored), axis=1)
    precision = hits / (hits + misses + EPSILON)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / np.maximum(objects, 1)[:, None]
    averages = np.zeros(len(weights))
    for place in range(len(weights)):
        at = np.searchsorted(recall[place], RECALL_POINTS, side="left")
        reached = at < recall.shape[1]
        averages[place] = precision[place, at[reached]].sum() / len(RECALL_POINTS)
    return averages


def _category_ids(labels: Sequence[str]) -> dict[str, int]:
    """Return COCO's numbers for COCO's labels, and numbers from 1 for any others."""
    known = coco_categories()
    if set(labels) <= known.keys():
        return {label: known[label] for label in labels}
    return {label: number for number, label in enumerate(labels, start=1)}


def _nothing(truth: Any) -> Any:  # noqa: ANN401 — pycocotools cannot load an empty list
    from pycocotools.coco import COCO

    empty = COCO()
    empty.dataset = {"images": truth.dataset["images"], "categories": truth.dataset["categories"], "annotations": []}
    empty.createIndex()
    return empty


def _mean(precision: npt.NDArray[np.float64]) -> float | None:
    """Return the mean as COCO takes it: what there is no object of is -1, and left out."""
    there = precision[precision > -1]
    return float(there.mean()) if there.size else None


def _xywh(xyxy: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = xyxy
    return [x1, y1, x2 - x1, y2 - y1]


def _area(xyxy: Sequence[float]) -> float:
    x1, y1, x2, y2 = xyxy
    return (x2 - x1) * (y2 - y1)
