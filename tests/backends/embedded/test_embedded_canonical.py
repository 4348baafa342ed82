"""The shipped models say about the sample photos what they said when somebody last looked at it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from make_canonical import FILE, JOINT_STEP, STEP, observe

CANONICAL = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def said(backend, photos):
    """What the backend says about every photo now."""
    return {name: observe(backend, path) for name, path in photos.items()}


def test_every_photo_is_pinned(photos):
    """A photo that is added to the samples is added here."""
    assert sorted(photos) == sorted(CANONICAL)


@pytest.mark.parametrize("name", CANONICAL)
def test_boxes_are_where_they_were(said, name):
    """Labels are the same, scores within 0.02 and sides within 2 px: decoders of JPEG differ a little."""
    now, pinned = said[name]["boxes"], CANONICAL[name]["boxes"]
    assert [box[0] for box in now] == [box[0] for box in pinned]
    for (_, score, *sides), (_, pinned_score, *pinned_sides) in zip(now, pinned, strict=True):
        assert score == pytest.approx(pinned_score, abs=0.02)
        assert sides == pytest.approx(pinned_sides, abs=2)


@pytest.mark.parametrize(("kind", "length"), [("vector", 1280 // STEP), ("joint", 128 // JOINT_STEP)])
@pytest.mark.parametrize("name", CANONICAL)
def test_vectors_are_what_they_were(said, name, kind, length):
    """The pinned components of both vectors point the same way, to a cosine of 0.999."""
    now, pinned = np.array(said[name][kind]), np.array(CANONICAL[name][kind])
    assert len(now) == length
    assert now @ pinned / (np.linalg.norm(now) * np.linalg.norm(pinned)) > 0.999


@pytest.mark.parametrize("name", CANONICAL)
def test_descriptions_read_as_they_did(said, name):
    """Text and scene are the same to the letter."""
    assert said[name]["text"] == CANONICAL[name]["text"]
    assert said[name]["scene"] == CANONICAL[name]["scene"]


def test_a_photo_is_nearest_to_its_own_part(backend, photos):
    """Embeddings are good for search: the centre of each photo finds that photo among all."""
    from PIL import Image

    from vision_backends.backends.requests import EmbedRequest
    from vision_backends.images import open_image

    whole, part = [], []
    for path in photos.values():
        picture = Image.open(path).convert("RGB")
        width, height = picture.size
        crop = picture.crop((width // 8, height // 8, width * 7 // 8, height * 7 // 8))
        whole.append(open_image(picture))
        part.append(open_image(crop))
    gallery, queries = (
        np.stack([found.vector for found in backend.embed(images, EmbedRequest(), timeout_s=60)])
        for images in (whole, part)
    )
    assert (queries @ gallery.T).argmax(axis=1).tolist() == list(range(len(photos)))
