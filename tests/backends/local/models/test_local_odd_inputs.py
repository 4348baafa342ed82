"""Inputs that no model was made for: the one that is at fault is told, and nobody else has to suffer."""

from __future__ import annotations

import resource
import sys

import numpy as np
import pytest
from PIL import Image as PILImage

from vision_backends import AllBackendsFailedError, Router
from vision_backends.backends.local import LocalBackend

SIZES = [(1, 1), (3, 3), (1, 40), (40, 1), (3, 40), (40, 3), (600, 3), (3, 600), (2000, 1), (1, 2000)]

SETTINGS = {
    **dict.fromkeys(("clip", "siglip", "siglip2_naflex"), "embedding_model"),
    **dict.fromkeys(("detr", "yolos", "conditional_detr", "rt_detr", "rf_detr"), "detection_model"),
    **dict.fromkeys(("grounding_dino", "owlv2"), "open_vocabulary_model"),
    **dict.fromkeys(("blip", "llava", "florence2", "idefics3", "qwen2_vl", "llava_onevision"), "caption_model"),
}


def picture(width, height, seed=3):
    """Return a picture with some structure."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return PILImage.fromarray(pixels)


@pytest.fixture
def route(make_backend):
    """A maker of routers over one local model."""
    made = []

    def make(**settings) -> Router:
        made.append(Router([make_backend(**settings)], caching=False, deadline_s=100))
        return made[-1]

    yield make
    for router in made:
        router.close()


def ask(router, setting, image):
    """Return the answer for an image."""
    if setting == "embedding_model":
        return router.embed(image)
    if setting == "caption_model":
        return router.describe(image, max_words=3)
    return router.detect(image, labels=["cat"] if setting.startswith("open") else None, min_score=0.0)


@pytest.mark.parametrize("kind", SETTINGS)
def test_pictures_of_any_shape_are_answered(route, model, kind):
    """Sides of one pixel, of three, which look like colours, and strips a thousand times as long as high."""
    router = route(**{SETTINGS[kind]: model(kind)})
    for size in SIZES:
        answer = ask(router, SETTINGS[kind], picture(*size))
        assert answer.trace.backend == "local"


@pytest.mark.parametrize("size", [(3, 12), (12, 3), (1, 4), (2, 2)])
def test_a_side_of_three_pixels_is_not_taken_for_the_colours(route, model, size):
    """The vector is that of the same picture, larger."""
    router = route(embedding_model=model("clip"))
    small = picture(*size)
    large = small.resize((size[0] * 8, size[1] * 8), PILImage.Resampling.NEAREST)
    assert router.embed(small).similarity(router.embed(large)) > 0.9


@pytest.mark.parametrize("prompt", ["what does <image> mean in html", "<image>", "</s> what is it", "<pad> two cats"])
def test_marks_of_the_model_in_a_prompt_are_letters(route, model, prompt):
    """However many people ask so, the rung stays open for the others."""
    router = route(caption_model=model("llava"))
    for seed in range(6):
        assert router.describe(picture(40, 30, seed), prompt=prompt).trace.backend == "local"
    assert router.describe(picture(40, 30), prompt="what is it").text


def test_what_stands_behind_a_mark_in_a_text_is_read(route, model):
    """An end of text in the middle of one is letters."""
    router = route(embedding_model=model("siglip"))
    one, two = router.embed_text("cat"), router.embed_text("cat </s> dog")
    assert one.similarity(two) < 0.999


def test_a_prompt_that_is_longer_than_the_model_reads_is_refused(route, model):
    """With both lengths, and no gate is closed by it."""
    router = route(caption_model=model("llava"))
    for _ in range(6):
        with pytest.raises(AllBackendsFailedError) as caught:
            router.describe(picture(40, 30), prompt="what is it " * 400)
        (attempt,) = caught.value.attempts
        assert (attempt.error, attempt.code) == ("not_supported", "prompt_too_long")
        assert "256" in attempt.message
    assert router.describe(picture(40, 30), prompt="what is it").text


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in kilobytes on Linux")
@pytest.mark.parametrize("kind", ["clip", "detr", "owlv2"])
@pytest.mark.parametrize("size", [(40_000, 6), (6, 40_000)])
def test_a_strip_of_a_few_kilobytes_takes_no_gigabytes(model, kind, size):
    """The peak of the whole process, before and after."""
    setting = SETTINGS[kind]
    with Router([LocalBackend(**{setting: str(model(kind)), "engine": "torch", "download": "never"})]) as router:
        ask(router, setting, picture(64, 48))
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ask(router, setting, PILImage.new("RGB", size, "red"))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 300_000
