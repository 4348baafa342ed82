"""Texts find images without any other rung, and say what they cannot do."""

from __future__ import annotations

import numpy as np
import pytest

from vision_backends import InvalidRequestError, KeptImage, Router, SpaceUnavailableError
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.embedded.word_vectors import MOST_PIECES
from vision_backends.backends.requests import EmbedRequest, EmbedTextRequest
from vision_backends.errors import TEXT_TOO_LONG, UNREADABLE_INPUT, NotReadyError, NotSupportedError, TimedOutError
from vision_backends.images import open_image

JOINT = "embedded/conse-minilm-l6-static-128@12a0e48a43f8+44e9d91e8412+decc24048926-p2-j1"

WORDS_FOR = {
    "astronaut": "a woman in front of a flag",
    "cat": "a cat looking into the camera",
    "coffee": "a cup of espresso",
    "flower": "a blossom in a garden",
    "photographer": "a camera on a tripod",
    "raccoon": "a wild animal with fur",
    "rocket": "the launch of a rocket",
    "temple": "a pagoda in China",
}


@pytest.fixture
def router():
    """A router with nothing but this rung."""
    with Router([EmbeddedBackend(threads=1)]) as made:
        yield made


def embed_text(backend, text, **options):
    """Embed one text."""
    return backend.embed_text([text], EmbedTextRequest(**options), timeout_s=60)[0]


def test_words_find_their_photo(backend, photos):
    """Of eight photos, the right one comes first for seven descriptions in other words than the models', or second."""
    images = [open_image(path) for path in photos.values()]
    gallery = np.stack([found.vector for found in backend.embed(images, EmbedRequest(space=JOINT), timeout_s=60)])
    queries = np.stack([embed_text(backend, WORDS_FOR[name]).vector for name in photos])
    order = (-(queries @ gallery.T)).argsort(axis=1)
    places = [row.tolist().index(own) for own, row in enumerate(order)]
    assert places.count(0) >= 6
    assert max(places) <= 2


def test_a_sort_finds_what_belongs_to_it(backend, photos):
    """The cat is an Egyptian Mau to the classifier, and a cat to those who search."""
    (cat,) = backend.embed([open_image(photos["cat"])], EmbedRequest(space=JOINT), timeout_s=60)
    likeness = {word: embed_text(backend, word).similarity(cat) for word in ("a cat", "a dog", "a ship")}
    assert likeness["a cat"] > 0.4 > likeness["a dog"] > likeness["a ship"]


def test_images_have_a_space_of_their_own_unless_the_joint_one_is_pinned(router, photos):
    """Vectors of 1280 components are better among images; those of 128 are shared with texts."""
    alone, shared = router.embed(photos["cat"]), router.embed(photos["cat"], space=JOINT)
    assert (alone.dimension, shared.dimension) == (1280, 128)
    assert router.embed_text("a cat").space == shared.space == JOINT
    assert alone.space != shared.space
    assert shared.trace.model == "minilm-l6-static-128+efficientnet-lite0-224+nanodet-g-416"


@pytest.mark.parametrize("first", [None, JOINT])
def test_both_spaces_of_an_image_take_one_look(photos, first):
    """The classifier runs once for an image that is kept, whichever space comes first; the vectors are as alone."""
    backend = EmbeddedBackend(threads=1)
    runs = []
    run = backend._models["efficientnet-lite0-224"].run
    backend._models["efficientnet-lite0-224"].run = lambda outputs, image: runs.append(outputs) or run(outputs, image)
    kept = KeptImage(photos["cat"])
    with Router([backend], caching=False) as router:
        found = {space: router.embed(kept, space=space).vector for space in (first, None if first else JOINT)}
        assert len(runs) == 1
        for space, vector in found.items():
            assert np.array_equal(vector, router.embed(photos["cat"], space=space).vector)
        assert len(runs) == 3


def test_a_text_for_the_images_own_space_is_told_of_the_joint_one(router, photos):
    """The remedy can be pasted; so can what the explanation says."""
    alone = router.embed(photos["cat"]).space
    with pytest.raises(SpaceUnavailableError) as caught:
        router.embed_text("a cat", space=alone)
    assert caught.value.remedy == f"Embed images and texts with space={JOINT!r}."
    assert f"space={JOINT!r}" in str(router.explain("embed_text", space=alone))
    (verdict,) = router.explain("embed").verdicts
    assert (verdict.space, verdict.spaces) == (alone, (alone, JOINT))
    assert all(space in str(router.explain("embed")) for space in (alone, JOINT))
    assert router.explain("embed_text").verdicts[0].spaces == (JOINT,)


def test_the_cache_keeps_the_spaces_apart(photos, tmp_path):
    """One image has two vectors."""
    (tmp_path / "vision.toml").write_text('ladder = ["embedded"]\nstate = "memory"\n')
    with Router.from_config(tmp_path / "vision.toml") as router:
        for _ in range(2):
            found = [router.embed(photos["cat"], space=space) for space in (None, JOINT)]
            assert [vector.dimension for vector in found] == [1280, 128]
        assert all(vector.trace.cached for vector in found)


@pytest.mark.parametrize("text", ["猫", "собака", "?!", "🐈 🐕", "x" * 101, "½"])
def test_a_text_without_a_known_word_gets_no_vector(backend, router, text):
    """There is nothing that it could be compared by: a refusal of this text, and the caller's error when pinned."""
    with pytest.raises(NotSupportedError, match="English") as caught:
        embed_text(backend, text)
    assert caught.value.code == UNREADABLE_INPUT
    with pytest.raises(InvalidRequestError, match="no word that the model knows"):
        router.embed_text(text, space=JOINT)


def test_one_unreadable_text_of_many_fails_alone(router):
    """The others have their vectors."""
    first, second, third = router.embed_text_many(["a cat", "猫", "a dog"], space=JOINT)
    assert isinstance(second, InvalidRequestError)
    assert (first.dimension, third.dimension) == (128, 128)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A raccoon sits on a branch.", False),
        ("a 猫", False),
        ("Ein Waschbär sitzt auf einem Zweig.", True),
        ("Un raton laveur est assis sur une branche.", True),
        ("cat, кошка, кот", True),
    ],
)
def test_a_text_that_is_hardly_english_is_noted(backend, text, says):
    """It has a vector, and the trace says that it may mean little."""
    notes = embed_text(backend, text).trace.notes
    assert any("reads English" in note for note in notes) == says


def test_a_text_of_any_length_is_read_in_part_if_that_is_wanted(backend):
    """Otherwise it is refused; a long one is not read to its end, however long it is."""
    text = "a cat on a sofa and " * 100_000
    with pytest.raises(NotSupportedError, match="at most 256") as caught:
        embed_text(backend, text)
    assert caught.value.code == TEXT_TOO_LONG
    cut = embed_text(backend, text, truncate=True)
    assert cut.trace.notes == (
        f"The text is 2,000,000 characters long; the model has read {MOST_PIECES} word pieces of it.",
    )
    assert cut.similarity(embed_text(backend, "a cat on a sofa and " * 40)) > 0.999


def test_commands_to_a_tokenizer_are_words(backend):
    """What stands between brackets is read as it is written, whatever it means to a model."""
    assert embed_text(backend, "[MASK]").similarity(embed_text(backend, "mask")) > 0.999


def test_texts_stop_when_the_time_is_up(backend):
    """The error says how far it got."""
    with pytest.raises(TimedOutError, match="0 of 2 texts"):
        backend.embed_text(["a cat", "a dog"], EmbedTextRequest(), timeout_s=0)


def test_a_damaged_table_is_not_ready(tmp_path):
    """It is compared with its checksum before it is read."""
    backend = EmbeddedBackend(models=tmp_path)
    with pytest.raises(NotReadyError, match="missing"):
        backend.check(EmbedTextRequest())
    (tmp_path / "minilm-l6-static-128.npz").write_bytes(b"PK")
    with pytest.raises(NotReadyError, match="damaged"):
        embed_text(backend, "a cat")
