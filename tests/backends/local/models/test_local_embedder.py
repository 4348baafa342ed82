"""Vectors are those of the plain pipelines on the same weights."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import transformers as tf
from answering import answer
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file

from vision_backends import Router
from vision_backends.backends.requests import EmbedRequest, EmbedTextRequest
from vision_backends.errors import (
    TEXT_TOO_LONG,
    AllBackendsFailedError,
    InvalidReplyError,
    InvalidRequestError,
    NotReadyError,
    NotSupportedError,
)
from vision_backends.images import open_image
from vision_backends.testing import FakeBackend

TEXTS = ["two cats", "A red bicycle, snow", "dog " * 50]
KINDS = ["clip", "sentence_clip", "siglip", "siglip2", "siglip2_naflex"]


@pytest.fixture
def pictures(photos):
    """Photos of three sizes and shapes, without colour profiles, which `open_image` would apply."""
    sizes = {"cat": (96, 64), "coffee": (64, 96), "raccoon": (200, 50)}
    return [PILImage.open(photos / f"{name}.jpg").convert("RGB").resize(size) for name, size in sizes.items()]


def plain(folder, pictures, texts=TEXTS):
    """Return the vectors of images and texts that transformers computes by itself."""
    model = tf.AutoModel.from_pretrained(folder).eval()
    images = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    words = tf.AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if "siglip" in folder.name else True
    with torch.no_grad():
        seen = [model.get_image_features(**images(images=[p], return_tensors="pt")).pooler_output[0] for p in pictures]
        read = [
            model.get_text_features(**words([t], padding=padding, truncation=True, return_tensors="pt")).pooler_output[
                0
            ]
            for t in texts
        ]
    return [[(vector / vector.norm()).numpy() for vector in vectors] for vectors in (seen, read)]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_equal_those_of_transformers(make_backend, model, pictures, kind):
    """Of images and of texts, to rounding; all of length 1, float32, in one space."""
    backend = make_backend(embedding_model=model(kind))
    inner = model(kind) / "0_CLIPModel" if kind == "sentence_clip" else model(kind)
    seen, read = plain(inner, pictures)
    images = answer(backend.embed, [open_image(p) for p in pictures], EmbedRequest(), timeout_s=60)
    texts = answer(backend.embed_text, TEXTS, EmbedTextRequest(truncate=True), timeout_s=60)
    for mine, theirs in zip([*images, *texts], [*seen, *read], strict=True):
        np.testing.assert_allclose(mine.vector, theirs, atol=2e-6)
        assert mine.vector.dtype == np.float32
    for vectors in (seen, read):
        assert np.ptp(vectors, axis=0).max() > 0.1, "a model to which all looks the same shows nothing"
    assert len({each.space for each in [*images, *texts]}) == 1
    assert len({each.dimension for each in [*images, *texts]}) == 1


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # sentence-transformers' own, on old layouts
@pytest.mark.parametrize("new", [False, True])
def test_vectors_equal_those_of_sentence_transformers(make_backend, model, pictures, tmp_path, new):
    """Which is the library that the default model is published for; in its layout of old and of today."""
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(model("sentence_clip")), device="cpu", local_files_only=True)
    theirs.save(str(tmp_path / "saved"), create_model_card=False)
    backend = make_backend(embedding_model=tmp_path / "saved" if new else model("sentence_clip"))
    images = answer(backend.embed, [open_image(p) for p in pictures], EmbedRequest(), timeout_s=60)
    texts = answer(backend.embed_text, TEXTS, EmbedTextRequest(truncate=True), timeout_s=60)
    for mine, inputs in ((images, pictures), (texts, TEXTS)):
        expected = theirs.encode(inputs, normalize_embeddings=True, show_progress_bar=False)
        np.testing.assert_allclose([each.vector for each in mine], expected, atol=2e-6)


def test_the_same_weights_make_one_space_however_they_are_wrapped(make_backend, model, make_image):
    """The layout of sentence-transformers changes no vector."""
    one, other = (
        answer(make_backend(embedding_model=model(kind)).embed, [make_image()], EmbedRequest(), timeout_s=60)[0]
        for kind in ("clip", "sentence_clip")
    )
    np.testing.assert_array_equal(one.vector, other.vector)


def test_a_vector_does_not_depend_on_its_neighbours(make_backend, model, pictures):
    """Sizes may differ, and lists be longer than a batch."""
    backend = make_backend(embedding_model=model("siglip2_naflex"))
    images = [open_image(p) for p in pictures]
    many = answer(backend.embed, images * 5, EmbedRequest(), timeout_s=60)
    for number, image in enumerate(images):
        alone = answer(backend.embed, [image], EmbedRequest(), timeout_s=60)[0]
        for each in many[number::3]:
            np.testing.assert_allclose(each.vector, alone.vector, atol=1e-6)


def test_the_space_names_model_and_revision(make_backend, model, make_image):
    """Other weights are another space; where the folder lies does not matter."""
    backend = make_backend(embedding_model=model("clip"))
    space = backend.model_for(EmbedRequest()).space
    revision = backend.model_for(EmbedRequest()).revision
    assert space == f"local/clip@{revision}"
    (vector,) = answer(backend.embed, [make_image()], EmbedRequest(space=space), timeout_s=60)
    assert (vector.space, vector.trace.revision) == (space, revision)
    assert space == backend.model_for(EmbedTextRequest()).space == backend.model_for(EmbedRequest()).space
    for request in (EmbedRequest(space="openai/other"), EmbedTextRequest(space="openai/other")):
        with pytest.raises(NotSupportedError, match="local/clip@"):
            backend.check(request)
    with pytest.raises(NotSupportedError):
        answer(backend.embed, [make_image()], EmbedRequest(space="openai/other"), timeout_s=60)


def test_numbers_that_are_not_finite_are_no_answer(make_backend, model_copy, make_image):
    """A damaged checkpoint must not reach an index."""
    folder = model_copy("clip")
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"][:] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    backend = make_backend(embedding_model=folder)
    with pytest.raises(InvalidReplyError, match="not finite"):
        answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
    assert answer(backend.embed_text, ["cat"], EmbedTextRequest(), timeout_s=60)


def test_missing_weights_are_never_made_up(make_backend, model_copy, make_image):
    """Transformers would fill them with random numbers, and only warn."""
    folder = model_copy("clip")
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotReadyError, match=r"lacks 1 weights, such as visual_projection\.weight"):
        answer(make_backend(embedding_model=folder).embed, [make_image()], EmbedRequest(), timeout_s=60)


def test_a_model_of_one_tower_is_refused(make_backend, model, make_image):
    """It could not embed texts in the same space."""
    with pytest.raises(NotReadyError, match="has no text tower"):
        answer(make_backend(embedding_model=model("detr")).embed, [make_image()], EmbedRequest(), timeout_s=60)


LONG = {"clip": ("cat " * 30 + "dog", 21), "siglip": ("cat " * 30 + "dog", 16), "siglip2": ("cat " * 30 + "dog", 16)}


@pytest.mark.parametrize("kind", LONG)
def test_a_text_that_is_longer_than_the_model_reads_is_refused(make_backend, model, kind):
    """With both lengths; the others of its call are not to blame, and the router asks for them again."""
    text, longest = LONG[kind]
    backend = make_backend(embedding_model=model(kind))
    with pytest.raises(
        NotSupportedError, match=rf"The text is \d+ tokens; the model reads at most {longest}"
    ) as caught:
        answer(backend.embed_text, ["a cat", text], EmbedTextRequest(), timeout_s=60)
    assert caught.value.code == TEXT_TOO_LONG
    assert "truncate=True" in caught.value.remedy


@pytest.mark.parametrize("kind", LONG)
def test_a_long_text_is_cut_where_that_is_allowed_and_the_trace_says_what_was_left_out(make_backend, model, kind):
    """Texts that fit have nothing to say."""
    backend = make_backend(embedding_model=model(kind))
    texts = [LONG[kind][0], "a cat"]
    cut, whole = answer(backend.embed_text, texts, EmbedTextRequest(truncate=True), timeout_s=60)
    (note,) = cut.trace.notes
    assert re.fullmatch(
        rf"The text is \d+ tokens; the model has read {LONG[kind][1]} of them(, without '.*cat.*)?\.", note
    )
    assert whole.trace.notes == ()


@pytest.fixture
def make_router(make_backend, model):
    """A router over a tiny CLIP and a spare rung with another space, which are closed afterwards."""
    made = []

    def make(*spare):
        made.append(Router([make_backend(embedding_model=model("clip")), *spare], deadline_s=60))
        return made[-1]

    yield make
    for router in made:
        router.close()


def test_a_text_that_one_rung_cannot_read_is_embedded_by_the_next(make_router):
    """Which is told, as the better rung has been asked."""
    router = make_router(FakeBackend("spare"))
    answered = router.embed_text(LONG["clip"][0])
    assert (answered.trace.backend, answered.trace.degraded) == ("spare", True)
    assert answered.trace.attempts[0].error == "not_supported"


def test_with_its_space_pinned_a_text_that_is_too_long_is_the_callers_error(make_router):
    """No other rung may answer, and waiting does not help."""
    router = make_router(FakeBackend("spare"))
    space = router.embed_text("a cat").space
    with pytest.raises(InvalidRequestError, match=r"92 tokens; the model reads at most 21.*truncate=True"):
        router.embed_text(LONG["clip"][0].removesuffix("dog"), space=space)


def test_one_long_text_of_a_list_fails_alone(make_router):
    """The others are embedded, in the same space."""
    router = make_router()
    first, long, last = router.embed_text_many(["a cat", LONG["clip"][0], "a dog"])
    assert first.space == last.space
    assert isinstance(long, AllBackendsFailedError)
    assert "tokens; the model reads at most 21" in str(long)


def test_a_cut_text_is_cached_as_the_whole_text_that_it_is(make_router):
    """Two texts that differ behind the cut are two entries, and neither is the answer where nothing may be cut."""
    router = make_router()
    texts = [LONG["clip"][0], LONG["clip"][0].replace("dog", "snow")]
    first, second = (router.embed_text(text, truncate=True) for text in texts)
    assert not second.trace.cached
    assert first.similarity(second) == pytest.approx(1)
    again = router.embed_text(texts[0], truncate=True)
    assert again.trace.cached
    assert again.trace.notes == first.trace.notes != ()
    with pytest.raises(AllBackendsFailedError):
        router.embed_text(texts[0])


ENDLESS = {
    "words": "two cats and a red dog in the snow " * 3000,
    "one word": "ab" * 50_000,
    "letters of all kinds": "".join(chr(0x1F600 + n % 70) + chr(0x4E00 + n % 3000) for n in range(50_000)),
    "a long indentation": " " * 30_000 + "two cats " * 8_000,
}
"""Texts of 100,000 characters."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ENDLESS)
def test_the_beginning_of_an_endless_text_is_read_as_in_the_whole(make_backend, model, kind, name):
    """Only a part of it is tokenized, but what is read of it is the same."""
    backend = make_backend(embedding_model=model(kind))
    inner = model(kind) / "0_CLIPModel" if kind == "sentence_clip" else model(kind)
    (found,) = answer(backend.embed_text, [ENDLESS[name]], EmbedTextRequest(truncate=True), timeout_s=60)
    _, (expected,) = plain(inner, [], [ENDLESS[name]])
    assert found.vector == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("text", ["two cats " * 2_000_000, "c" * 20_000_000, " " * 20_000_000 + "two cats"])
def test_a_text_of_megabytes_is_not_tokenized_as_a_whole(make_backend, model, text):
    """That would take minutes and gigabytes, for a few words that are read."""
    backend, given = make_backend(embedding_model=model("clip")), []
    backend.warm_up(EmbedTextRequest())
    tokenizer = backend._models["embedding"]._slot.value.loaded.tokenizer
    whole = type(tokenizer).__call__

    class Watched(type(tokenizer)):
        def __call__(self, text, **options):
            given.append(len(text[0]) if isinstance(text, list) else len(text))
            return whole(self, text, **options)

    tokenizer.__class__ = Watched
    with pytest.raises(NotSupportedError, match=r"is [\d,]+ characters long; the model reads at most 21 tokens"):
        answer(backend.embed_text, [text], EmbedTextRequest(), timeout_s=60)
    (found,) = answer(backend.embed_text, [text], EmbedTextRequest(truncate=True), timeout_s=60)
    assert re.match(r"The text is [\d,]+ characters long; the model has read \d+ tokens of it", found.trace.notes[0])
    assert 0 < max(given) <= 200_000
