"""Labels of any words: boxes where an object fits them, the whole image otherwise, and nothing where neither does."""

from __future__ import annotations

import numpy as np
import pytest

from vision_backends import AllBackendsFailedError, ImageLabel, Router, UnavailableError
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.requests import DescribeRequest, DetectRequest
from vision_backends.errors import NotReadyError, NotSupportedError
from vision_backends.images import open_image
from vision_backends.testing import FakeBackend


@pytest.fixture
def router():
    """A router with nothing but this rung."""
    with Router([EmbeddedBackend(threads=1)]) as made:
        yield made


def test_a_label_has_the_box_of_an_object_that_it_fits(router, photos):
    """The cat's, in the caller's words, and no surer than the detector was."""
    found = router.detect(photos["cat"], labels=["a kitten", "a helicopter"])
    (plain,) = router.detect(photos["cat"])
    assert [(box.label, box.xyxy, box.category_id) for box in found] == [("a kitten", plain.xyxy, None)]
    assert found[0].score <= plain.score
    assert found.image_labels == ()


def test_what_is_known_of_the_whole_only_has_no_box(router, photos):
    """A rocket is none of the 80 objects; nobody says where it is."""
    found = router.detect(photos["rocket"], labels=["a rocket launch", "a swan"])
    assert len(found) == 0
    assert [known.label for known in found.image_labels] == ["a rocket launch"]
    assert 0.5 <= found.image_labels[0].score <= 1


def test_a_box_that_only_holds_a_label_is_not_its_box(router, photos):
    """The detector takes the whole table for one object, whose middle is an espresso."""
    found = router.detect(photos["coffee"], labels=["espresso"])
    assert [box.label for box in found] == []
    assert [known.label for known in found.image_labels] == ["espresso"]


def test_words_of_the_detector_stay_its_own(router, photos):
    """Beside free labels they are boxes as ever, with their category, and never of the whole image."""
    found = router.detect(photos["astronaut"], labels=["a person", "a dog", "a violin"])
    assert [(box.label, box.category_id) for box in found] == [("a person", 1)]
    assert found.image_labels == ()


def test_the_lowest_score_is_the_callers(router, photos):
    """With 0 every free label is scored, by falling score."""
    labels = ["a swan", "a rocket launch", "a pizza"]
    found = router.detect(photos["rocket"], labels=labels, min_score=0.0)
    scores = {known.label: known.score for known in found.image_labels}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert next(iter(scores)) == "a rocket launch"
    assert router.detect(photos["rocket"], labels=labels, min_score=0.99).image_labels == ()


def test_a_doubtful_box_does_not_stand_for_the_whole_image(router, photos):
    """Asked for everything, the detector has weak boxes for a clock that the whole image is sure of."""
    clock = photos["cat"].parents[1] / "sample" / "photos" / "clock.jpg"
    found = router.detect(clock, labels=["wall clock", "castle"], min_score=0.0)
    assert 0.0 <= max(box.score for box in found if box.label == "wall clock") < 0.5
    assert {known.label: known.score > 0.9 for known in found.image_labels}["wall clock"]


@pytest.mark.parametrize("min_score", [0.0, 0.7])
def test_the_detector_looks_once(photos, min_score):
    """What it has found serves the boxes and the image as a whole; the latter is scored as with a look of its own."""
    backend = EmbeddedBackend(threads=1)
    runs = []
    run = backend._models["nanodet-g-416"].run
    backend._models["nanodet-g-416"].run = lambda outputs, image: runs.append(outputs) or run(outputs, image)
    panda = photos["cat"].parents[1] / "sample" / "photos" / "panda.jpg"  # the detector is sure of a bear
    image = open_image(panda, min_side_px=640)
    request = DetectRequest(labels=("a zoo", "a panda", "a guitar"), min_score=min_score)
    (found,) = backend.detect([image], request, timeout_s=60)
    assert len(runs) == 1
    whole = backend._joint.embed(image.rgb(min_side_px=640), looks=2)
    likeness = {label: float(whole @ backend._joint.embed_text(label)) for label in request.labels}
    for known in found.image_labels:
        assert known.score == pytest.approx(np.interp(likeness[known.label], [0, 0.35, 1], [0, 0.5, 1]), abs=1e-4)
    assert max(known.score for known in found.image_labels) > min_score
    assert all(box.score >= min_score for box in found)


def test_the_trace_says_what_was_localised(router, photos):
    """Three models took part; the note names the labels, and closed questions have none."""
    trace = router.detect(photos["cat"], labels=["a kitten", "a cat"]).trace
    assert trace.model == "nanodet-g-416+efficientnet-lite0-224+minilm-l6-static-128"
    (note,) = trace.notes
    assert "'a kitten'" in note
    assert "'a cat'" not in note
    assert router.detect(photos["cat"], labels=["a cat"]).trace.notes == ()


def test_it_is_degraded_below_a_rung_with_an_open_vocabulary(photos):
    """That rung's boxes are better; without it, this answer says so."""
    best = FakeBackend("open")
    with Router([best, EmbeddedBackend(threads=1)]) as router:
        assert router.detect(photos["rocket"], labels=["a rocket"]).trace.backend == "open"
        best.play(UnavailableError("It is down."))
        answer = router.detect(photos["rocket"], labels=["a swan"])
    assert (answer.trace.backend, answer.trace.degraded) == ("embedded", True)


def test_a_label_that_cannot_be_read_is_refused(router, photos):
    """Silence would say that it is not there."""
    with pytest.raises(AllBackendsFailedError, match="no word that the model knows"):
        router.detect(photos["cat"], labels=["a kitten", "猫"])


def test_free_labels_are_cached_with_what_is_known_of_the_whole(photos, tmp_path):
    """The second answer is the first."""
    (tmp_path / "vision.toml").write_text('ladder = ["embedded"]\nstate = "memory"\n')
    with Router.from_config(tmp_path / "vision.toml") as router:
        first, second = (router.detect(photos["rocket"], labels=["a rocket launch"]) for _ in range(2))
    assert second.trace.cached
    assert second.image_labels == first.image_labels != ()
    assert second.trace.notes == first.trace.notes


def test_a_list_of_photos_is_answered_photo_by_photo(router, photos):
    """Scores do not depend on what else is asked about."""
    names = ["rocket", "raccoon"]
    together = router.detect_many([photos[name] for name in names], labels=["a rocket launch"])
    alone = [router.detect(photos[name], labels=["a rocket launch"]) for name in names]
    assert [each.image_labels for each in together] == [each.image_labels for each in alone]
    assert isinstance(together[0].image_labels[0], ImageLabel)


def test_without_the_word_vectors_only_free_labels_are_not_ready(tmp_path, backend, photos):
    """The detector's own words do not need them."""
    for name in ("nanodet-g-416.onnx", "efficientnet-lite0-224.onnx"):
        (tmp_path / name).write_bytes(b"")
    bare = EmbeddedBackend(models=tmp_path)
    bare.check(DetectRequest(labels=("a dog",)))
    with pytest.raises(NotReadyError, match="minilm"):
        bare.check(DetectRequest(labels=("a scooter",)))


def test_large_images_are_looked_at_in_enough_detail(backend):
    """Parts of it are classified, as for a description."""
    assert backend.image_px(DetectRequest(labels=("a scooter",))) == backend.image_px(DescribeRequest())
    assert backend.image_px(DetectRequest(labels=("a dog",))) < backend.image_px(DescribeRequest())


def test_a_label_is_read_to_its_end_or_refused(backend, photos):
    """Unless the rest may be left out."""
    label = "a very " * 200 + "red scooter"
    image = open_image(photos["cat"])
    with pytest.raises(NotSupportedError, match="at most 256"):
        backend.detect([image], DetectRequest(labels=(label,)), timeout_s=60)
    assert backend.detect([image], DetectRequest(labels=(label,), truncate=True), timeout_s=60)
