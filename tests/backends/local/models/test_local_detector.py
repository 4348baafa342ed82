"""What a detector reports and refuses; that its boxes are the right ones is tested by family."""

from __future__ import annotations

import re

import pytest
from answering import answer
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file

from vision_backends.backends.local.models.detector import vocabulary
from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.requests import DetectRequest
from vision_backends.errors import InvalidReplyError, NotReadyError, NotSupportedError
from vision_backends.images import open_image

CLOSED = ["detr", "rt_detr_v2", "d_fine"]
OPEN = ["grounding_dino", "owlv2"]
LABELS = ("a dog", "red bicycle")
EVERYTHING = DetectRequest(min_score=0.0)


@pytest.fixture
def images(make_image):
    """Three images of different shapes."""
    return [make_image(96, 64), make_image(64, 96, left="red"), make_image(80, 80, right="green")]


@pytest.mark.parametrize("kind", CLOSED)
def test_labels_are_cocos_own(make_backend, model, images, kind):
    """However the checkpoint spells them, with COCO's ids."""
    coco = coco_categories()
    backend = make_backend(detection_model=model(kind))
    items = [item for found in answer(backend.detect, images, EVERYTHING, timeout_s=60) for item in found]
    assert items
    assert all(coco[item.label] == item.category_id for item in items)


def test_min_score_is_the_lowest_reported(make_backend, model, images):
    """By default the configured one."""
    folder = model("rt_detr_v2")
    everything = answer(make_backend(detection_model=folder).detect, images, EVERYTHING, timeout_s=60)
    scores = sorted(item.score for found in everything for item in found)
    middle = scores[len(scores) // 2]
    for backend, request in (
        (make_backend(detection_model=folder), DetectRequest(min_score=middle)),
        (make_backend(detection_model=folder, min_score=middle), DetectRequest()),
    ):
        kept = [item.score for found in answer(backend.detect, images, request, timeout_s=60) for item in found]
        assert 0 < len(kept) < len(scores)
        assert min(kept) >= middle


@pytest.mark.parametrize(
    ("kind", "dead", "what"),
    [
        ("detr", "class_labels_classifier.weight", "score"),
        ("yolos", "class_labels_classifier.layers.2.weight", "score"),
        ("yolos", "bbox_predictor.layers.2.weight", "box"),
        ("deformable_detr", "class_embed.0.weight", "score"),
    ],
)
def test_what_is_found_without_a_look_is_no_answer(make_backend, model_copy, make_image, kind, dead, what):
    """Weights of zeros say the same of every place of every image; a rung below may do better."""
    folder = model_copy(kind)
    tensors = load_file(folder / "model.safetensors")
    tensors[dead].zero_()
    tensors.get(dead.replace("weight", "bias"), tensors[dead]).zero_()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    backend = make_backend(detection_model=folder)
    with pytest.raises(InvalidReplyError, match=f"one {what} for all") as caught:
        answer(backend.detect, [make_image()], DetectRequest(), timeout_s=60)
    assert caught.value.code == "all_alike"
    answer(backend.detect, [open_image(PILImage.new("RGB", (96, 64)))], DetectRequest(), timeout_s=60)  # all black


def test_boxes_belong_to_the_whole_upright_image(make_backend, model, photos):
    """Though the pixels were decoded at reduced scale."""
    backend = make_backend(detection_model=model("rt_detr_v2"))
    path = photos / "cat.jpg"
    small, whole = open_image(path, min_side_px=128), open_image(PILImage.open(path))
    (one,), (other,) = (answer(backend.detect, [image], EVERYTHING, timeout_s=60) for image in (small, whole))
    assert (one.width, one.height) == (whole.width, whole.height)
    assert one[0].xyxy == pytest.approx(other[0].xyxy, abs=whole.width * 0.05)


def test_a_closed_vocabulary_knows_its_labels_in_any_form(make_backend, model, images):
    """Answers carry the caller's word; anything else is refused before the model is loaded."""
    backend = make_backend(detection_model=model("rt_detr_v2"))
    with pytest.raises(NotSupportedError, match=r"None of the 5 classes of .* matches 'a scooter'"):
        backend.check(DetectRequest(labels=("a scooter", "a dog")))
    request = DetectRequest(labels=("people", "a motorbike"), min_score=0.0)
    backend.check(request)
    everything = answer(backend.detect, images, EVERYTHING, timeout_s=60)
    found = answer(backend.detect, images, request, timeout_s=60)
    words = {"person": "people", "motorcycle": "a motorbike"}
    expected = [[words[item.label] for item in each if item.label in words] for each in everything]
    assert [[item.label for item in each] for each in found] == expected
    assert any(expected)


def test_a_vocabulary_that_is_not_cocos_keeps_its_words():
    """Its mouse may be an animal; numbers without a class are dropped."""
    assert vocabulary({0: "mouse", 1: "owl", 2: "N/A"}) == {0: ("mouse", None), 1: ("owl", None)}
    assert vocabulary({0: "mouse", 1: "sofa"}) == {0: ("mouse", 74), 1: ("couch", 63)}
    detr = dict(enumerate([*coco_categories(), "street sign"]))
    assert vocabulary(detr)[0] == ("person", 1)
    assert vocabulary(detr)[80] == ("street sign", None)


@pytest.mark.parametrize("kind", OPEN)
def test_labels_are_the_callers_own_words(make_backend, model, images, kind):
    """With COCO's id where one of its objects is meant."""
    backend = make_backend(open_vocabulary_model=model(kind), detection_model=model("detr"))
    request = DetectRequest(labels=("a dog", "scooter"), min_score=0.0)
    backend.check(request)
    items = [item for found in answer(backend.detect, images, request, timeout_s=60) for item in found]
    assert {item.label for item in items} <= {"a dog", "scooter"}
    assert {item.category_id for item in items if item.label == "a dog"} <= {18}
    assert {item.category_id for item in items if item.label == "scooter"} <= {None}
    assert answer(backend.detect, images, DetectRequest(labels=("cat",), min_score=1.0), timeout_s=60)[0].items == ()


def test_more_labels_than_the_model_reads_are_refused(make_backend, model, images):
    """Cutting the list would look like not finding the rest."""
    labels = tuple(f"cat {number}" for number in range(20))
    with pytest.raises(NotSupportedError, match=r"20 labels are \d+ tokens; the model reads at most 32"):
        answer(
            make_backend(open_vocabulary_model=model("grounding_dino")).detect,
            images,
            DetectRequest(labels=labels),
            timeout_s=60,
        )


def test_labels_beyond_the_cut_are_named_and_not_looked_for(make_backend, model, images):
    """Where the caller has allowed to leave them out."""
    labels = tuple(f"cat {number}" for number in range(20))
    backend = make_backend(open_vocabulary_model=model("grounding_dino"))
    request = DetectRequest(labels=labels, min_score=0.0, truncate=True)
    (found,) = answer(backend.detect, images[:1], request, timeout_s=60)
    (note,) = found.trace.notes
    assert re.fullmatch(r"20 labels are \d+ tokens; the model has read 32 of them, without '.*cat 19\.'\.|.*…'\.", note)
    assert {item.label for item in found} <= set(labels[:19])


@pytest.mark.parametrize("kind", ["owlv2", "owlvit"])
def test_a_label_that_is_longer_than_the_model_reads_is_refused_unless_it_may_be_cut(make_backend, model, images, kind):
    """Two labels that differ behind the cut would have the same scores."""
    labels = ("a cat", "two cats red snow " * 8 + "dog")
    backend = make_backend(open_vocabulary_model=model(kind))
    with pytest.raises(NotSupportedError, match=r"The label 'two cats.*' is \d+ tokens; the model reads at most 16"):
        answer(backend.detect, images[:1], DetectRequest(labels=labels), timeout_s=60)
    request = DetectRequest(labels=labels, min_score=0.0, truncate=True)
    (found,) = answer(backend.detect, images[:1], request, timeout_s=60)
    (note,) = found.trace.notes
    assert note.startswith("The label 'two cats")


def test_a_label_of_which_the_model_reads_nothing_is_refused(make_backend, model, images):
    """It is named; the others would otherwise be found in its place."""
    backend = make_backend(open_vocabulary_model=model("grounding_dino"))
    with pytest.raises(NotSupportedError, match=r"cannot read the label '\.\.'"):
        answer(backend.detect, images, DetectRequest(labels=("a dog", "..")), timeout_s=60)


def test_a_closed_model_cannot_look_for_any_words(make_backend, model, images):
    """It is refused when it is loaded."""
    with pytest.raises(NotReadyError):
        answer(
            make_backend(open_vocabulary_model=model("detr")).detect, images, DetectRequest(labels=LABELS), timeout_s=60
        )


def test_boxes_that_are_not_finite_are_no_answer(make_backend, model_copy, images):
    """A NaN must not become an empty picture."""
    folder = model_copy("detr")
    tensors = load_file(folder / "model.safetensors")
    tensors["class_labels_classifier.bias"][:] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidReplyError, match="not finite"):
        answer(make_backend(detection_model=folder).detect, images, EVERYTHING, timeout_s=60)


@pytest.mark.parametrize("kind", ["owlv2", "grounding_dino"])
def test_a_label_of_a_megabyte_is_not_tokenized_as_a_whole(make_backend, model, make_image, kind):
    """It is refused, or cut where that is allowed; the message does not repeat it."""
    backend = make_backend(open_vocabulary_model=model(kind))
    labels = ("two cats " * 100_000,)
    with pytest.raises(NotSupportedError, match=r"characters long; the model reads at most \d+ tokens") as caught:
        answer(backend.detect, [make_image()], DetectRequest(labels=labels), timeout_s=60)
    assert len(str(caught.value)) < 500
    request = DetectRequest(labels=labels, min_score=0.0, truncate=True)
    (found,) = answer(backend.detect, [make_image()], request, timeout_s=60)
    assert len(found.trace.notes[0]) < 500
