"""Boxes are scored as COCO's own implementation scores them, and so is every sample of images."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools.coco import COCO as OldTruth  # noqa: N811 — a class
from pycocotools.cocoeval import COCOeval as OldEval

from benchmarks.datasets import TrueBox
from benchmarks.quality.bootstrap import draw
from benchmarks.quality.detection import (
    evaluate,
    matches_of,
    mean_average_precision,
    results_in_coco,
    score_boxes,
    truth_in_coco,
)
from vision_backends.backends.model_cards import coco_categories

LABELS = ("person", "bicycle", "car", "cat", "dog", "cup")

NEVER_SEEN = ("toaster",)


def make_boxes(images, *, seed, ties=True):
    """True boxes, and found ones that hit, miss, repeat, tie and are mislabelled."""
    chance = random.Random(seed)  # noqa: S311 — no secret
    true, found = {}, {}
    for place in range(images):
        name = f"{place}.jpg"
        true[name], found[name] = [], []
        for _ in range(chance.choice([0, 1, 2, 5])):
            x, y, w, h = (chance.uniform(5, 300) for _ in range(4))
            label = chance.choice(LABELS)
            crowd = chance.random() < 0.1
            true[name].append(TrueBox(label=label, xyxy=(x, y, x + w, y + h), is_crowd=crowd))
            for _ in range(chance.choice([0, 1, 1, 2])):
                shake = [chance.gauss(0, 0.08) * side for side in (w, h, w, h)]
                xyxy = (x + shake[0], y + shake[1], x + w + shake[2], y + h + shake[3])
                said = label if chance.random() < 0.8 else chance.choice(LABELS)
                score = chance.choice([0.5, chance.random()]) if ties else chance.random()
                found[name].append((said, score, xyxy))
        for _ in range(chance.choice([0, 0, 3])):
            x, y = chance.uniform(0, 300), chance.uniform(0, 300)
            label = chance.choice((*LABELS, *NEVER_SEEN))
            found[name].append((label, chance.random(), (x, y, x + 50, y + 60)))
    return true, found


@pytest.fixture
def files(tmp_path):
    """A writer of COCO's annotation and result files; returns their paths."""

    def write(true, found):
        ids = {label: coco_categories()[label] for label in LABELS}
        paths = tmp_path / "instances.json", tmp_path / "results.json"
        for path, content in zip(paths, (truth_in_coco(true, ids), results_in_coco(found, ids)), strict=True):
            path.write_text(json.dumps(content))
        return [str(path) for path in paths]

    return write


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_figures_equal_both_reference_implementations(files, seed):
    """To the sixth digit, from files in COCO's own format: mAP, mAP50 and the figure of each label."""
    true, found = make_boxes(30, seed=seed)
    metrics = {each.name: each for each in score_boxes(found, true, LABELS, resamples=5, seed=1)}
    instances, results = files(true, found)
    new_truth, old_truth = COCO(instances), OldTruth(instances)
    for evaluation in (
        COCOeval_faster(new_truth, new_truth.loadRes(results), "bbox", print_function=lambda *_: None),
        OldEval(old_truth, old_truth.loadRes(results), "bbox"),
    ):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert metrics["mAP"].value == pytest.approx(evaluation.stats[0], abs=1e-6)
        assert metrics["mAP50"].value == pytest.approx(evaluation.stats[1], abs=1e-6)
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        names = {number: label for label, number in coco_categories().items()}
        each = {names[number]: precision[:, :, place].mean() for place, number in enumerate(evaluation.params.catIds)}
        assert metrics["mAP"].per_class == pytest.approx(each, abs=1e-6)
    assert 0.05 < metrics["mAP"].value < metrics["mAP50"].value < 1


@pytest.mark.parametrize("only_50", [False, True])
def test_a_sample_of_images_has_the_reference_figure_for_just_these_images(only_50):
    """Images that appear twice count twice, and those left out not at all: as if the files were written so."""
    true, found = make_boxes(12, seed=4, ties=False)  # equal scores of copies would come in another order
    ids = {label: coco_categories()[label] for label in LABELS}
    counts = draw(12, resamples=6, seed=3)
    matches = matches_of(evaluate(found, true, ids))
    figures = mean_average_precision(counts, matches, only_50=only_50)
    for row, figure in zip(counts, figures, strict=True):
        copies = [(f"{name} {copy}", name) for name, count in zip(true, row, strict=True) for copy in range(count)]
        sample = [{copy: boxes[name] for copy, name in copies} for boxes in (found, true)]
        again = evaluate(*sample, ids)
        again.summarize()
        assert figure == pytest.approx(again.stats[1 if only_50 else 0], abs=1e-6)


@pytest.mark.parametrize("only_50", [False, True])
def test_every_image_once_has_the_very_figure(only_50):
    """What intervals are made of is the same computation."""
    true, found = make_boxes(25, seed=5)
    metrics = score_boxes(found, true, LABELS, resamples=5, seed=1)
    matches = matches_of(evaluate(found, true, {label: coco_categories()[label] for label in LABELS}))
    figure = mean_average_precision(np.ones((1, 25), dtype=int), matches, only_50=only_50)
    assert figure[0] == pytest.approx(metrics[int(only_50)].value, abs=1e-9)


def test_the_interval_surrounds_the_figure():
    """From lower to higher."""
    true, found = make_boxes(25, seed=6)
    for metric in score_boxes(found, true, LABELS, resamples=100, seed=1):
        assert metric.interval.low < metric.value < metric.interval.high


def test_who_finds_nothing_has_the_worst_figure():
    """Zero, not none: it answered."""
    true, _ = make_boxes(10, seed=7)
    metrics = score_boxes(dict.fromkeys(true, ()), true, LABELS, resamples=5, seed=1)
    assert [metric.value for metric in metrics] == [0.0, 0.0]
    assert set(metrics[0].per_class.values()) == {0.0}


def test_labels_that_are_not_cocos_get_numbers_of_their_own():
    """Whatever people call the objects of their own pictures."""
    box = (10.0, 10.0, 60.0, 80.0)
    true = {"a.jpg": [TrueBox(label="scooter", xyxy=box)], "b.jpg": [TrueBox(label="parcel", xyxy=box)]}
    found = {"a.jpg": [("scooter", 0.9, box)], "b.jpg": [("scooter", 0.8, box)]}
    (metric, _) = score_boxes(found, true, ("scooter", "parcel"), resamples=5, seed=1)
    assert metric.per_class == pytest.approx({"scooter": 1.0, "parcel": 0.0}, abs=1e-9)
