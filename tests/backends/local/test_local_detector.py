"""Boxes are those of the plain pipelines on the same weights, in pixels of the upright image."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file

from vision_backends.backends.local.detector import vocabulary
from vision_backends.backends.requests import DetectRequest
from vision_backends.catalog import coco_categories
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


def clipped(box, image):
    """Return a box cut to its image."""
    x1, y1, x2, y2 = box
    return max(0, x1), max(0, y1), min(image.width, x2), min(image.height, y2)


def near(found, expected):
    """Whether the same boxes with the same scores were found."""
    assert len(found) == len(expected)
    for item, (score, box) in zip(found, sorted(expected, key=lambda pair: -pair[0]), strict=True):
        assert item.score == pytest.approx(score, abs=1e-5)
        assert item.xyxy == pytest.approx(box, abs=1e-2)


@pytest.mark.parametrize("kind", CLOSED)
def test_boxes_equal_those_of_transformers(make_backend, model, images, kind):
    """To rounding, and whatever else was asked with the image."""
    plain = tf.AutoModelForObjectDetection.from_pretrained(model(kind)).eval()
    processor = tf.AutoImageProcessor.from_pretrained(model(kind), backend="pil")
    found = make_backend(detection_model=model(kind)).detect(images, EVERYTHING, timeout_s=60)
    for image, mine in zip(images, found, strict=True):
        with torch.no_grad():
            outputs = plain(**processor(images=image.rgb(), return_tensors="pt"))
        (raw,) = processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[(image.height, image.width)]
        )
        boxes = [clipped(box, image) for box in raw["boxes"].tolist()]
        near(mine, list(zip(raw["scores"].tolist(), boxes, strict=True)))
        assert (mine.width, mine.height) == (image.width, image.height)


@pytest.mark.parametrize("kind", CLOSED)
def test_labels_are_cocos_own(make_backend, model, images, kind):
    """However the checkpoint spells them, with COCO's ids."""
    coco = coco_categories()
    backend = make_backend(detection_model=model(kind))
    items = [item for found in backend.detect(images, EVERYTHING, timeout_s=60) for item in found]
    assert items
    assert all(coco[item.label] == item.category_id for item in items)


def test_min_score_is_the_lowest_reported(make_backend, model, images):
    """By default the configured one."""
    folder = model("rt_detr_v2")
    everything = make_backend(detection_model=folder).detect(images, EVERYTHING, timeout_s=60)
    scores = sorted(item.score for found in everything for item in found)
    middle = scores[len(scores) // 2]
    for backend, request in (
        (make_backend(detection_model=folder), DetectRequest(min_score=middle)),
        (make_backend(detection_model=folder, min_score=middle), DetectRequest()),
    ):
        kept = [item.score for found in backend.detect(images, request, timeout_s=60) for item in found]
        assert 0 < len(kept) < len(scores)
        assert min(kept) >= middle


def test_boxes_belong_to_the_whole_upright_image(make_backend, model, photos):
    """Though the pixels were decoded at reduced scale."""
    backend = make_backend(detection_model=model("rt_detr_v2"))
    path = photos / "cat.jpg"
    small, whole = open_image(path, min_side_px=128), open_image(PILImage.open(path))
    (one,), (other,) = (backend.detect([image], EVERYTHING, timeout_s=60) for image in (small, whole))
    assert (one.width, one.height) == (whole.width, whole.height)
    assert one[0].xyxy == pytest.approx(other[0].xyxy, abs=whole.width * 0.05)


def test_a_closed_vocabulary_knows_its_labels_in_any_form(make_backend, model, images):
    """Answers carry the caller's word; anything else is refused before the model is loaded."""
    backend = make_backend(detection_model=model("detr"))
    with pytest.raises(NotSupportedError, match="knows 5 classes, which 'a scooter' are not"):
        backend.check(DetectRequest(labels=("a scooter", "a dog")))
    request = DetectRequest(labels=("people", "a motorbike"), min_score=0.0)
    backend.check(request)
    everything = backend.detect(images, EVERYTHING, timeout_s=60)
    found = backend.detect(images, request, timeout_s=60)
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


def test_owlv2_equals_transformers(make_backend, model, images):
    """Each box has the best of the labels."""
    folder = model("owlv2")
    plain = tf.Owlv2ForObjectDetection.from_pretrained(folder).eval()
    processor, words = tf.Owlv2ImageProcessorPil.from_pretrained(folder), tf.AutoTokenizer.from_pretrained(folder)
    request = DetectRequest(labels=LABELS, min_score=0.0)
    found = make_backend(open_vocabulary_model=folder).detect(images, request, timeout_s=60)
    text = words(list(LABELS), padding="max_length", max_length=16, return_tensors="pt")
    for image, mine in zip(images, found, strict=True):
        with torch.no_grad():
            outputs = plain(**text, **processor(images=image.rgb(), return_tensors="pt"))
        sizes = [(image.height, image.width)]
        (raw,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        rows = zip(raw["scores"].tolist(), (clipped(box, image) for box in raw["boxes"].tolist()), strict=True)
        near(mine, [(score, box) for score, box in rows if box[0] < box[2] and box[1] < box[3]])


def test_grounding_dino_equals_transformers(make_backend, model, images):
    """The same boxes; each has the label of its best token, and that token's score."""
    folder = model("grounding_dino")
    plain = tf.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    images_of, words = (
        tf.GroundingDinoImageProcessorPil.from_pretrained(folder),
        tf.AutoTokenizer.from_pretrained(folder),
    )
    processor = tf.GroundingDinoProcessor(image_processor=images_of, tokenizer=words)
    request = DetectRequest(labels=("a dog", "red Bicycle."), min_score=0.0)
    found = make_backend(open_vocabulary_model=folder).detect(images, request, timeout_s=60)
    text = words("a dog. red bicycle.", return_tensors="pt")
    owner = {1: "a dog", 2: "a dog", 4: "red Bicycle.", 5: "red Bicycle."}
    assert words.convert_ids_to_tokens(text["input_ids"][0].tolist())[1:6] == ["a", "dog", ".", "red", "bicycle"]
    for image, mine in zip(images, found, strict=True):
        with torch.no_grad():
            outputs = plain(**text, **images_of(images=image.rgb(), return_tensors="pt"))
        (raw,) = processor.post_process_grounded_object_detection(
            outputs, text["input_ids"], threshold=0.0, text_threshold=0.0, target_sizes=[(image.height, image.width)]
        )
        assert len(mine) == len(raw["scores"])
        boxes = {tuple(round(side, 2) for side in item.xyxy): item for item in mine}
        for row, box in zip(outputs.logits[0].sigmoid(), raw["boxes"].tolist(), strict=True):
            item = boxes[tuple(round(side, 2) for side in clipped(box, image))]
            best = max(owner, key=lambda number: row[number])
            assert (item.label, item.score) == (owner[best], pytest.approx(float(row[best]), abs=1e-5))


@pytest.mark.parametrize("kind", OPEN)
def test_labels_are_the_callers_own_words(make_backend, model, images, kind):
    """With COCO's id where one of its objects is meant."""
    backend = make_backend(open_vocabulary_model=model(kind), detection_model=model("detr"))
    request = DetectRequest(labels=("a dog", "scooter"), min_score=0.0)
    backend.check(request)
    items = [item for found in backend.detect(images, request, timeout_s=60) for item in found]
    assert {item.label for item in items} <= {"a dog", "scooter"}
    assert {item.category_id for item in items if item.label == "a dog"} <= {18}
    assert {item.category_id for item in items if item.label == "scooter"} <= {None}
    assert backend.detect(images, DetectRequest(labels=("cat",), min_score=1.0), timeout_s=60)[0].items == ()


def test_more_labels_than_the_model_reads_are_refused(make_backend, model, images):
    """Cutting the list would look like not finding the rest."""
    labels = tuple(f"cat {number}" for number in range(20))
    with pytest.raises(NotSupportedError, match=r"20 labels are \d+ tokens; the model reads 32 at once"):
        make_backend(open_vocabulary_model=model("grounding_dino")).detect(
            images, DetectRequest(labels=labels), timeout_s=60
        )


def test_a_closed_model_cannot_look_for_any_words(make_backend, model, images):
    """It is refused when it is loaded."""
    with pytest.raises(NotReadyError):
        make_backend(open_vocabulary_model=model("detr")).detect(images, DetectRequest(labels=LABELS), timeout_s=60)


def test_boxes_that_are_not_finite_are_no_answer(make_backend, model_copy, images):
    """A NaN must not become an empty picture."""
    folder = model_copy("detr")
    tensors = load_file(folder / "model.safetensors")
    tensors["class_labels_classifier.bias"][:] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidReplyError, match="not finite"):
        make_backend(detection_model=folder).detect(images, EVERYTHING, timeout_s=60)
