"""The bundled sample: what its lines, photos and credits promise."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import PIL.Image
import pytest

from vision_backends import open_image

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "benchmarks" / "sample"
LINES = [json.loads(line) for line in (SAMPLE / "sample.jsonl").read_text(encoding="utf-8").splitlines()]
PHOTOS = sorted((SAMPLE / "photos").iterdir())
CLASSES = {
    line.split("\t")[1]
    for line in (ROOT / "models" / "coco-80.tsv").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
}

each_line = pytest.mark.parametrize("line", LINES, ids=lambda line: Path(line["image"]).stem)
each_photo = pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.stem)


def test_each_photo_has_one_line():
    """The lines name every photo of the folder, each once, and nothing else."""
    assert [line["image"] for line in LINES] == [f"photos/{photo.name}" for photo in PHOTOS]


def test_the_sample_is_small_and_varied():
    """It has 24 to 30 photos of together less than 3 MB, many classes, and some photos without any object."""
    assert 24 <= len(PHOTOS) <= 30
    assert sum(photo.stat().st_size for photo in PHOTOS) < 3_000_000
    assert len({box["label"] for line in LINES for box in line["boxes"]}) >= 20
    assert sum(not line["boxes"] for line in LINES) >= 3
    assert sum(len(line["boxes"]) >= 5 for line in LINES) >= 5


@each_line
def test_a_line_has_the_keys_of_the_format(line):
    """A line says image, captions, boxes and credit; a box label, corners and whether it is a crowd."""
    assert set(line) == {"image", "captions", "boxes", "credit"}
    assert all(set(box) | {"iscrowd"} == {"label", "xyxy", "iscrowd"} for box in line["boxes"])
    assert all(box.get("iscrowd", True) is True for box in line["boxes"])


@each_line
def test_captions_are_five_different_sentences(line):
    """Each photo has five captions, all different, each one sentence without stray spaces."""
    captions = line["captions"]
    assert len({caption.casefold() for caption in captions}) == len(captions) == 5
    assert all(re.fullmatch(r"[A-Z][^.!?\s]*( [^.!?\s]+)+\.", caption) for caption in captions)


@each_line
def test_boxes_lie_inside_the_upright_image(line):
    """Every box has a class of COCO, an area, corners inside the image, and no twin."""
    image = open_image(SAMPLE / line["image"])
    for box in line["boxes"]:
        x1, y1, x2, y2 = box["xyxy"]
        assert box["label"] in CLASSES
        assert 0 <= x1 < x2 <= image.width
        assert 0 <= y1 < y2 <= image.height
    marked = [(box["label"], *box["xyxy"]) for box in line["boxes"]]
    assert len(set(marked)) == len(marked)


@each_photo
def test_a_photo_is_a_small_jpeg_without_metadata(photo):
    """A photo has at most 640 pixels on its longer side, and nothing in it but pixels."""
    with PIL.Image.open(photo) as picture:
        assert (picture.format, picture.mode) == ("JPEG", "RGB")
        assert max(picture.size) <= 640
        assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert not picture.getexif()


def test_no_photo_is_stored_twice():
    """No photo of the sample is a copy of another one, or of one that tests and README use."""
    photos = [*PHOTOS, *(ROOT / "benchmarks" / "photos").glob("*.jpg")]
    assert len({hashlib.sha256(photo.read_bytes()).digest() for photo in photos}) == len(photos)


def test_credits_name_each_photo():
    """The table of credits has one row for each photo, with author and a free licence, as the photo's line says."""
    rows = re.findall(
        r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", (SAMPLE / "CREDITS.md").read_text("utf-8"), re.MULTILINE
    )
    assert [row[0] for row in rows] == [photo.name for photo in PHOTOS]
    for (_, author, licence, _, _), line in zip(rows, LINES, strict=True):
        name = re.sub(r"\[(.+)\]\(https://creativecommons\.org/.+\)", r"\1", licence)
        assert re.fullmatch(r"public domain|CC0 1\.0|CC BY(-SA)? \d\.0", name)
        assert line["credit"].startswith(f"{author}, {name}, ")
