"""The detector agrees with a slow one that is written a second time, in plain loops, and places boxes exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vision_backends.backends.embedded.models import Detector, suppress
from vision_backends.backends.embedded.session import OnnxModel
from vision_backends.backends.model_cards import asset, coco_categories, model_card

CARD = model_card("nanodet-g-416")
LABELS = list(coco_categories())


@pytest.fixture(scope="module")
def model():
    """The shipped NanoDet."""
    return OnnxModel(asset(CARD.file), sha256=CARD.sha256, threads=2)


@pytest.fixture(scope="module")
def detector(model):
    """The detector under test."""
    return Detector(model, categories=coco_categories())


def reference_input(image):
    """Return NanoDet's input, pixel by pixel: fitted, on black up to strides of 32, blue-green-red, normalised."""
    scale = 416 / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    fitted = np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0), dtype=np.float64)
    width, height = (math.ceil(side / 32) * 32 for side in size)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    planes = np.zeros((1, 3, height, width))
    for plane, (mean, std) in enumerate([(103.53, 57.375), (116.28, 57.12), (123.675, 58.395)]):
        planes[0, plane] = -mean / std
        planes[0, plane, top : top + size[1], left : left + size[0]] = (fitted[:, :, 2 - plane] - mean) / std
    return planes.astype(np.float32), (left, top, size)


def reference_boxes(scores, sides, min_score, *, shape):
    """Return (score, label, box in the input) for every cell and class at or above a score."""
    boxes, point = [], 0
    for stride in (8, 16, 32):
        for row in range(shape[0] // stride):
            for column in range(shape[1] // stride):
                for label in range(80):
                    if scores[label, point] >= min_score:
                        lengths = []
                        for side in range(4):
                            weights = [math.exp(float(sides[side * 11 + step, point])) for step in range(11)]
                            mean = sum(step * weight for step, weight in enumerate(weights)) / sum(weights)
                            lengths.append(mean * stride)
                        x, y = (column + 0.5) * stride, (row + 0.5) * stride
                        box = (x - lengths[0], y - lengths[1], x + lengths[2], y + lengths[3])
                        boxes.append((float(scores[label, point]), LABELS[label], box))
                point += 1
    return boxes


def reference_overlap(a, b):
    """Return intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared) if shared else 0.0


def reference_detections(model, image, min_score):
    """Return (score, label, box) as the detector should, best first."""
    planes, (left, top, size) = reference_input(image)
    scores, sides = model.run(["scores", "sides"], planes)
    found = []
    for score, label, box in reference_boxes(scores[0], sides[0], min_score, shape=planes.shape[2:]):
        xs = [min(max((x - left) * image.width / size[0], 0), image.width) for x in box[0::2]]
        ys = [min(max((y - top) * image.height / size[1], 0), image.height) for y in box[1::2]]
        if xs[0] < xs[1] and ys[0] < ys[1]:
            found.append((score, label, (xs[0], ys[0], xs[1], ys[1])))
    found.sort(key=lambda item: -item[0])
    by_class = []
    for item in found:
        rivals = (kept for kept in by_class if kept[1] == item[1])
        if not any(reference_overlap(item[2], kept[2]) > 0.6 for kept in rivals):
            by_class.append(item)
    across = []
    for item in by_class:
        if not any(reference_overlap(item[2], kept[2]) > 0.75 for kept in across):
            across.append(item)
    return across


@pytest.mark.parametrize("name", ["astronaut", "cat", "raccoon", "temple"])
def test_it_agrees_with_a_plain_implementation(detector, model, photos, name):
    """Labels and scores are the same, and boxes to a tenth of a pixel, down to weak detections."""
    image = Image.open(photos[name]).convert("RGB")
    expected = reference_detections(model, image, 0.15)
    found = detector.detect(image, width=image.width, height=image.height, min_score=0.15)
    assert expected
    assert [item.label for item in found] == [label for _, label, _ in expected]
    for item, (score, _, box) in zip(found, expected, strict=True):
        assert item.score == pytest.approx(score, abs=1e-4)
        assert item.xyxy == pytest.approx(box, abs=0.1)


def test_boxes_refer_to_the_full_image_whatever_was_decoded(detector, photos):
    """Half the pixels give boxes within 3 % of those of all pixels, in the same coordinates."""
    image = Image.open(photos["astronaut"]).convert("RGB")
    (full,) = detector.detect(image, width=1024, height=1024)
    (half,) = detector.detect(image.reduce(2), width=1024, height=1024)
    assert half.label == full.label
    assert half.xyxy == pytest.approx(full.xyxy, abs=30)


def test_category_ids_are_those_of_coco(detector, photos):
    """A cat is category 17 of COCO, not class 15 of 80."""
    image = Image.open(photos["cat"]).convert("RGB")
    (cat,) = detector.detect(image, width=image.width, height=image.height)
    assert (cat.label, cat.category_id) == ("cat", 17)


@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (20, 3000), (416, 416), (417, 3)])
def test_every_shape_of_image_works(detector, size):
    """Boxes of the oddest images are inside them and not empty; the result record would refuse them otherwise."""
    found = detector.detect(Image.new("RGB", size, "teal"), width=size[0], height=size[1], min_score=0.0)
    assert len(found) <= 100
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)


def test_a_higher_score_only_drops_boxes(detector, photos):
    """What is found at 0.5 is found at 0.3 too, first."""
    image = Image.open(photos["photographer"]).convert("RGB")
    few = detector.detect(image, width=512, height=512, min_score=0.5)
    many = detector.detect(image, width=512, height=512, min_score=0.3)
    assert many[: len(few)] == few


class StubModel:
    """Answers with outputs in which one cell is sure of one class; negative places count from the end."""

    def __init__(self, *, stride, row, column, label, bins):
        self.stride, self.row, self.column = stride, row, column
        self.label, self.bins = label, bins

    def run(self, outputs, image):
        """Return outputs for an input of any shape."""
        height, width = image.shape[2:]
        assert (height % 32, width % 32, max(height, width)) == (0, 0, 416)
        cells = {stride: (height // stride, width // stride) for stride in (8, 16, 32)}
        before = sum(rows * columns for stride, (rows, columns) in cells.items() if stride < self.stride)
        rows, columns = cells[self.stride]
        point = before + self.row % rows * columns + self.column % columns
        points = sum(rows * columns for rows, columns in cells.values())
        scores = np.zeros((1, 80, points), dtype=np.float32)
        sides = np.full((1, 44, points), -50, dtype=np.float32)
        scores[0, self.label, point] = 0.9
        for side, step in enumerate(self.bins):
            sides[0, side * 11 + step, point] = 50
        return [{"scores": scores, "sides": sides}[name] for name in outputs]


@pytest.mark.parametrize(
    ("stride", "place", "expected"),
    [
        (8, 0, (-4, -12, 28, 36)),  # first cell: centre (4, 4)
        (16, 0, (-8, -24, 56, 72)),  # first cell: centre (8, 8)
        (32, -1, (400 - 32, 400 - 64, 400 + 96, 400 + 128)),  # last cell: centre (400, 400)
    ],
)
def test_a_cell_becomes_a_box_around_its_centre(stride, place, expected):
    """Left, top, right and bottom are 1, 2, 3 and 4 strides from the centre of the cell."""
    model = StubModel(stride=stride, row=place, column=place, label=5, bins=(1, 2, 3, 4))
    detector = Detector(model, categories=coco_categories())
    (found,) = detector.detect(Image.new("RGB", (416, 416)), width=416, height=416)
    assert found.label == "bus"
    assert found.xyxy == pytest.approx([min(max(side, 0), 416) for side in expected], abs=1e-3)


@given(width=st.integers(1, 300), height=st.integers(1, 300), factor=st.integers(1, 8), place=st.sampled_from([0, -1]))
def test_boxes_are_mapped_back_from_the_input(width, height, factor, place):
    """Whatever the shape and the scale of the image: it lies centred in the input, and boxes are clipped to it."""
    model = StubModel(stride=16, row=place, column=place, label=5, bins=(1, 1, 1, 1))
    detector = Detector(model, categories=coco_categories())
    (found,) = detector.detect(
        Image.new("RGB", (width, height)), width=factor * width, height=factor * height, min_score=0.5
    )
    expected = []
    for step, limit in zip((-16, -16, 16, 16), (width, height) * 2, strict=True):
        inner = max(1, round(limit * 416 / max(width, height)))
        side = math.ceil(inner / 32) * 32
        centre = 8 if place == 0 else side - 8
        mapped = (centre + step - (side - inner) // 2) * factor * limit / inner
        expected.append(min(max(mapped, 0), factor * limit))
    assert found.xyxy == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize(
    ("size", "seen"), [((800, 600), (320, 416)), ((600, 800), (416, 320)), ((1600, 900), (256, 416))]
)
def test_the_detector_sees_no_more_black_than_its_strides_ask_for(model, size, seen):
    """A photo of 4:3 costs a quarter less than a square, and nothing is seen at the edge of a large black area."""
    shapes = []

    class Watching:
        def run(self, outputs, image):
            shapes.append(image.shape[2:])
            return model.run(outputs, image)

    Detector(Watching(), categories=coco_categories()).detect(Image.new("RGB", size), width=size[0], height=size[1])
    assert shapes == [seen]


@st.composite
def box_lists(draw, most=12):
    """Draw [K, 4] boxes with integer corners, some of them equal, some empty."""
    corner = st.integers(min_value=0, max_value=12)
    rows = draw(st.lists(st.tuples(corner, corner, corner, corner), max_size=most))
    boxes = np.array(rows, dtype=np.float32).reshape(-1, 4)
    return np.hstack([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])])


@given(boxes=box_lists(), iou=st.sampled_from([0.0, 0.3, 0.6, 0.9]), data=st.data())
def test_suppression_drops_exactly_what_a_better_box_covers(boxes, iou, data):
    """No two kept boxes of a class overlap by more than the limit, and each dropped one has a kept, better rival."""
    numbers = st.lists(st.integers(0, 2), min_size=len(boxes), max_size=len(boxes))
    classes = np.array(data.draw(numbers), dtype=np.intp)
    kept = suppress(boxes, iou=iou, classes=classes).tolist()

    def are_rivals(one, other):
        return classes[one] == classes[other] and reference_overlap(boxes[one], boxes[other]) > iou + 1e-6

    assert kept == sorted(kept)
    assert not any(are_rivals(a, b) for a in kept for b in kept if a < b)
    for index in set(range(len(boxes))) - set(kept):
        assert any(are_rivals(better, index) for better in kept if better < index)


def test_overlap_is_intersection_over_union():
    """Two squares of 2 × 2 that share a quarter overlap by 1 / 7; empty boxes overlap nothing."""
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [1, 1, 1, 3]], dtype=np.float32)
    assert suppress(boxes, iou=0.143).tolist() == [0, 1, 2]
    assert suppress(boxes, iou=0.142).tolist() == [0, 2]


def test_without_classes_everything_competes():
    """The same box under two classes survives a class-wise pass and not one across classes."""
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 4]], dtype=np.float32)
    assert suppress(boxes, iou=0.6, classes=np.array([2, 7])).tolist() == [0, 1]
    assert suppress(boxes, iou=0.6).tolist() == [0]
