"""Every family of detectors finds here what it finds by transformers alone, in pixels of the upright image."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import transformers as tf
from answering import answer
from PIL import Image as PILImage
from PIL import ImageOps

from vision_backends.backends.requests import DetectRequest
from vision_backends.images import open_image

CLOSED = [
    "detr",
    "conditional_detr",
    "table_transformer",
    "deformable_detr",
    "yolos",
    "rt_detr",
    "rt_detr_v2",
    "d_fine",
    "rf_detr",
    "lw_detr",
]
OPEN = ["grounding_dino", "mm_grounding_dino", "owlv2", "owlvit"]
NAMES = {"motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}
LABELS = ("a dog", "red Bicycle.")
EVERYTHING = DetectRequest(min_score=0.0)


@pytest.fixture
def pictures(photos):
    """Photos of odd sizes, tall and wide, without colour profiles, which `open_image` would apply."""
    sizes = {"cat": (96, 64), "coffee": (61, 97), "raccoon": (151, 40), "temple": (80, 80)}
    return [PILImage.open(photos / f"{name}.jpg").convert("RGB").resize(size) for name, size in sizes.items()]


def matched(found, expected):
    """Assert that the same things were found; queries that are nearly equal have no order."""
    height, width = found.height, found.width
    inside = [
        (label, score, (max(0, x1), max(0, y1), min(width, x2), min(height, y2)))
        for label, score, (x1, y1, x2, y2) in expected
    ]
    rest = [row for row in inside if row[2][0] < row[2][2] and row[2][1] < row[2][3]]
    assert len(found) == len(rest)
    assert rest
    for item in found:
        same = [row for row in rest if row[0] == item.label]
        assert same, f"no other {item.label}"
        score, box = item.score, np.array(item.xyxy)
        nearest = min(same, key=lambda row: abs(row[1] - score) + np.abs(np.array(row[2]) - box).max())
        assert score == pytest.approx(nearest[1], abs=1e-5)
        assert item.xyxy == pytest.approx(nearest[2], abs=1e-2)
        rest.remove(nearest)


class RfDetrProcessor:
    """What RF-DETR's processor does, by Pillow and numpy; its own is there with torchvision only."""

    def __call__(self, *, images, return_tensors):
        """Sample pictures of one size at the middles of pixels."""
        return {"pixel_values": torch.stack([self.prepared(image) for image in images])}

    def prepared(self, image):
        """Return pixels [3, 64, 64]."""
        step = (image.width / 64, 0, 0, 0, image.height / 64, 0)
        bands = [
            PILImage.fromarray(np.asarray(band, dtype=np.float32)).transform(
                (64, 64), PILImage.Transform.AFFINE, step, resample=PILImage.Resampling.BILINEAR
            )
            for band in image.split()
        ]
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        return torch.from_numpy((np.stack(bands, axis=-1) / 255 - mean) / std).permute(2, 0, 1).float()

    def post_process_object_detection(self, outputs, threshold, target_sizes):
        """Return the best of all pairs of query and class."""
        ((height, width),) = target_sizes
        scores = outputs.logits[0].sigmoid().numpy()
        order = np.argsort(-scores, axis=None)[: len(scores)]
        queries, labels = np.unravel_index(order, scores.shape)
        x, y, w, h = outputs.pred_boxes[0].numpy()[queries].T
        boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1) * [width, height, width, height]
        return [{"scores": scores[queries, labels], "labels": labels, "boxes": boxes}]


def closed(folder, pictures):
    """Return what transformers finds in each picture by itself: name, score, box."""
    model = tf.AutoModelForObjectDetection.from_pretrained(folder).eval()
    is_rf = model.config.model_type == "rf_detr"
    processor = RfDetrProcessor() if is_rf else tf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    names = {number: NAMES.get(name, name) for number, name in model.config.id2label.items()}
    for picture in pictures:
        with torch.inference_mode():
            outputs = model(**processor(images=[picture], return_tensors="pt"))
        sizes = [(picture.height, picture.width)]
        (raw,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        rows = zip(raw["labels"].tolist(), raw["scores"].tolist(), raw["boxes"].tolist(), strict=True)
        yield [(names[label], score, box) for label, score, box in rows]


def grounded(folder, pictures):
    """The same by Grounding DINO: each box has the label of its best token, and that token's score."""
    model = tf.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    words = tf.AutoTokenizer.from_pretrained(folder)
    text = words("a dog. red bicycle.", return_tensors="pt")
    assert words.convert_ids_to_tokens(text["input_ids"][0].tolist())[1:6] == ["a", "dog", ".", "red", "bicycle"]
    owner = {1: LABELS[0], 2: LABELS[0], 4: LABELS[1], 5: LABELS[1]}
    images = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    processor = tf.GroundingDinoProcessor(image_processor=images, tokenizer=words)
    for picture in pictures:
        with torch.inference_mode():
            outputs = model(**text, **images(images=[picture], return_tensors="pt"))
        sizes = [(picture.height, picture.width)]
        (raw,) = processor.post_process_grounded_object_detection(
            outputs, text["input_ids"], threshold=0.0, text_threshold=0.0, target_sizes=sizes
        )
        rows = outputs.logits[0].sigmoid()
        best = [max(owner, key=lambda number, row=row: row[number]) for row in rows]
        scores = [float(row[number]) for row, number in zip(rows, best, strict=True)]
        yield list(zip([owner[number] for number in best], scores, raw["boxes"].tolist(), strict=True))


def worded(folder, pictures):
    """The same by OWL: each box has the best of the labels."""
    model = tf.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    words = tf.AutoTokenizer.from_pretrained(folder)
    text = words(list(LABELS), padding="max_length", max_length=16, return_tensors="pt")
    for picture in pictures:
        with torch.inference_mode():
            outputs = model(**text, **processor(images=[picture], return_tensors="pt"))
        sizes = [(picture.height, picture.width)]
        (raw,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        rows = zip(raw["labels"].tolist(), raw["scores"].tolist(), raw["boxes"].tolist(), strict=True)
        yield [(LABELS[label], score, box) for label, score, box in rows]


def finder(make_backend, folder, kind):
    """Return what finds by this package, and what finds by transformers alone."""
    if kind in CLOSED:
        backend = make_backend(detection_model=folder)
        return lambda images: answer(backend.detect, images, EVERYTHING, timeout_s=60), closed
    backend, request = make_backend(open_vocabulary_model=folder), DetectRequest(labels=LABELS, min_score=0.0)
    return lambda images: answer(backend.detect, images, request, timeout_s=60), worded if "owl" in kind else grounded


@pytest.mark.parametrize("kind", [*CLOSED, *OPEN])
def test_boxes_equal_those_of_transformers(make_backend, model, pictures, kind):
    """To rounding, whatever else was asked with the picture; another picture has other boxes."""
    find, plain = finder(make_backend, model(kind), kind)
    expected = list(plain(model(kind), pictures))
    for picture, found, rows in zip(pictures, find([open_image(each) for each in pictures]), expected, strict=True):
        matched(found, rows)
        assert (found.width, found.height) == picture.size
    assert len({round(sum(score for _, score, _ in rows), 4) for rows in expected}) == len(pictures)


@pytest.mark.parametrize("kind", [*CLOSED, *OPEN])
def test_boxes_are_those_of_the_upright_picture(make_backend, model, pictures, kind):
    """Though the file holds it lying on its side."""
    file, exif = io.BytesIO(), PILImage.Exif()
    exif[0x0112] = 6
    pictures[1].save(file, "JPEG", quality=95, exif=exif)
    upright = ImageOps.exif_transpose(PILImage.open(file))
    assert upright.size == pictures[1].size[::-1]
    find, plain = finder(make_backend, model(kind), kind)
    (found,) = find([open_image(file.getvalue())])
    assert (found.width, found.height) == upright.size
    matched(found, next(plain(model(kind), [upright])))
