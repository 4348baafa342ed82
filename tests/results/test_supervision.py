"""Detections as supervision takes them: drawn, picked, put together and counted by it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from vision_backends import Detection, Detections


@pytest.fixture(scope="module")
def sv():
    """The library; it warns where OpenCV is not beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("supervision")


def found(*labels: str, categories: dict[str, int] | None = None) -> Detections:
    """One box for each label, each a little further to the right and less certain."""
    items = [
        Detection(
            label=label,
            score=0.9 - place / 10,
            xyxy=(10 + place, 10, 60 + place, 50),
            category_id=(categories or {}).get(label),
        )
        for place, label in enumerate(labels)
    ]
    return Detections(items=tuple(items), width=100, height=80)


def test_boxes_scores_ids_and_names_are_arrays(sv):
    """A label that is not COCO's has an id above COCO's."""
    boxes = found("cat", "scooter", categories={"cat": 17}).to_supervision()
    assert isinstance(boxes, sv.Detections)
    assert boxes.xyxy.tolist() == [[10, 10, 60, 50], [11, 10, 61, 50]]
    assert boxes.confidence.tolist() == pytest.approx([0.9, 0.8])
    assert boxes.class_id.tolist() == [17, 91]
    assert boxes.data["class_name"].tolist() == ["cat", "scooter"]


def test_labels_of_any_words_have_ids_of_their_own(sv):
    """Its colours and metrics go by the id, so no two labels share one."""
    boxes = found("a red scooter", "a kite", "a red scooter")
    assert boxes.to_supervision().class_id.tolist() == [92, 91, 92]
    named = boxes.to_supervision(classes=["a red scooter", "a swan", "a kite"])
    assert named.class_id.tolist() == [0, 2, 0]
    assert named[named.class_id == 0].data["class_name"].tolist() == ["a red scooter"] * 2


def test_they_are_picked_and_suppressed_by_their_class(sv):
    """Boxes of one place: the better of two alike stays, and so does one of another class."""
    boxes = found("a kite", "a scooter", "a kite").to_supervision()
    assert boxes[:2].data["class_name"].tolist() == ["a kite", "a scooter"]
    assert boxes[boxes.confidence > 0.85].class_id.tolist() == [91]
    assert sorted(boxes.with_nms(threshold=0.5).data["class_name"]) == ["a kite", "a scooter"]
    assert boxes.with_nms(threshold=0.5, class_agnostic=True).data["class_name"].tolist() == ["a kite"]


@pytest.mark.parametrize("labels", [(), ("cat",), ("a red scooter", "cat")])
def test_they_are_drawn(sv, labels):
    """With names and colours; nothing found leaves the picture as it is."""
    picture = np.full((80, 100, 3), 127, np.uint8)
    boxes = found(*labels).to_supervision()
    drawn = sv.LabelAnnotator().annotate(sv.BoxAnnotator().annotate(picture.copy(), boxes), boxes)
    assert (drawn != picture).any() == bool(labels)


def test_nothing_found_goes_with_what_was_found(sv):
    """Of the right shape, with its columns."""
    nothing = found().to_supervision()
    assert (nothing.xyxy.shape, nothing.is_empty()) == ((0, 4), True)
    assert nothing.data["class_name"].tolist() == []
    merged = sv.Detections.merge([nothing, found("cat").to_supervision(), nothing])
    assert merged.data["class_name"].tolist() == ["cat"]
    zone = sv.PolygonZone(polygon=np.array([[0, 0], [90, 0], [90, 70], [0, 70]]))
    assert zone.trigger(merged).tolist() == [True]
    assert zone.trigger(nothing).tolist() == []
