"""RF-DETR without torchvision; what it finds is tested with the other detectors, by family."""

from __future__ import annotations

import json

import pytest
from answering import answer
from PIL import Image as PILImage

from vision_backends.backends.local.runtime.rf_detr import RfDetrImages
from vision_backends.backends.requests import DetectRequest
from vision_backends.errors import NotReadyError


@pytest.mark.parametrize(("resample", "expected"), [(0, [1, 1]), (2, [0.5, 1])])
def test_pictures_are_scaled_without_smoothing(resample, expected):
    """By the nearest pixel or the two around it, as configured; a smoothing filter would see a third."""
    settings = {
        "size": {"height": 1, "width": 2},
        "resample": resample,
        "image_mean": [0, 0, 0],
        "image_std": [1, 1, 1],
    }
    line = PILImage.new("RGB", (4, 1), "white")
    line.putpixel((0, 0), (0, 0, 0))
    pixels = RfDetrImages(settings)(images=[line])["pixel_values"]
    assert pixels[0, :, 0].tolist() == [pytest.approx(expected)] * 3


def test_pictures_of_varying_size_are_refused(make_backend, model_copy, make_image):
    """No published model wants them; the message says so."""
    folder = model_copy("rf_detr")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": {"shortest_edge": 800, "longest_edge": 1333}}))
    with pytest.raises(NotReadyError, match="not of one height and width"):
        answer(make_backend(detection_model=folder).detect, [make_image()], DetectRequest(), timeout_s=60)
