"""Recall is what others compute from the same vectors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from benchmarks.quality.retrieval import quarters_metrics, ranks, text_metrics, without_texts


def unit(rows):
    """Rows of length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def vectors():
    """Of 40 images with 2 to 5 captions each, which resemble their image somewhat."""
    random = np.random.default_rng(3)
    images = unit(random.normal(size=(40, 16)))
    captions = [
        unit(image + 0.6 * random.normal(size=(int(count), 16)))
        for image, count in zip(images, random.integers(2, 6, 40), strict=True)
    ]
    return images, captions


def test_text_to_image_is_the_top_k_accuracy_of_scikit_learn(vectors):
    """Each caption is a query whose class is its image."""
    images, captions = vectors
    owner = np.repeat(np.arange(40), [len(each) for each in captions])
    scores = np.concatenate(captions) @ images.T
    found = {metric.name: metric for metric in text_metrics(images, captions, resamples=50, seed=1)}
    for place in (1, 5, 10):
        expected = top_k_accuracy_score(owner, scores, k=place, labels=np.arange(40))
        metric = found[f"R@{place} text→image"]
        assert metric.value == pytest.approx(expected, abs=1e-6)
        assert metric.interval.low <= metric.value <= metric.interval.high
    assert 0.2 < found["R@1 text→image"].value < found["R@10 text→image"].value < 1


def test_image_to_text_is_the_accuracy_of_sentence_transformers(vectors):
    """Whether any of an image's captions is among the first, as its evaluator of retrieval counts."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    images, captions = vectors
    texts = {f"{image}-{place}": row for image, rows in enumerate(captions) for place, row in enumerate(rows)}
    evaluator = InformationRetrievalEvaluator(
        queries={str(image): "" for image in range(40)},
        corpus=dict.fromkeys(texts, ""),
        relevant_docs={
            str(image): {f"{image}-{place}" for place in range(len(captions[image]))} for image in range(40)
        },
        accuracy_at_k=[1, 5, 10],
    )
    ordered = [[{"corpus_id": name, "score": float(image @ row)} for name, row in texts.items()] for image in images]
    expected = evaluator.compute_metrics(ordered)["accuracy@k"]
    found = {metric.name: metric.value for metric in text_metrics(images, captions, resamples=5, seed=1)}
    assert {place: found[f"R@{place} image→text"] for place in (1, 5, 10)} == pytest.approx(expected, abs=1e-6)
    assert 0.2 < expected[1] < 1


def test_quarters_look_for_each_other_both_ways():
    """The figure is the mean of both directions."""
    random = np.random.default_rng(4)
    first = unit(random.normal(size=(30, 8)))
    second = unit(first + 0.5 * random.normal(size=(30, 8)))
    expected = [top_k_accuracy_score(np.arange(30), scores, k=1) for scores in (first @ second.T, second @ first.T)]
    metric = quarters_metrics(first, second, resamples=5, seed=1)[0]
    assert metric.name == "R@1 image↔image"
    assert metric.value == pytest.approx(np.mean(expected), abs=1e-6)
    assert 0.2 < metric.value < 1


def test_a_tie_counts_against_the_rung():
    """Who gives every image the same vector finds nothing."""
    same = np.ones((6, 6))
    assert list(ranks(same, np.eye(6, dtype=bool))) == [5] * 6


def test_there_is_no_figure_where_nothing_can_be_missed():
    """Among four images every one is among the first five."""
    vectors = np.eye(4)
    found = {metric.name: metric for metric in quarters_metrics(vectors, vectors, resamples=5, seed=1)}
    assert found["R@1 image↔image"].value == 1.0
    assert found["R@5 image↔image"].value is None
    assert "nothing can be missed" in found["R@5 image↔image"].note


def test_a_rung_without_text_tower_has_no_figures_and_a_reason():
    """For every place and direction, so that tables of rungs have the same rows."""
    metrics = without_texts("it embeds no texts")
    assert [metric.value for metric in metrics] == [None] * 6
    assert {metric.note for metric in metrics} == {"it embeds no texts"}
