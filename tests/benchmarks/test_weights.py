"""Models without what they have learned: their sizes are the published ones, and the local rung runs them."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

import torch

from benchmarks.weights import make_checkpoint
from benchmarks.weights.checkpoints import build_model
from benchmarks.weights.vocabularies import BERT_WORDS, BLIP_MARKS, CLIP_WORDS, byte_pairs, word_pieces
from vision_backends import InvalidRequestError, Router
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.model_cards import model_card

PHOTO = "astronaut.jpg"


@pytest.mark.parametrize(
    ("role", "card", "known_to"),
    [
        ("caption", "blip-image-captioning-base", 0),
        ("embedding", "clip-vit-b-32", 0),
        ("detection", "dfine-small-coco", 0.02),  # the card has the figure of the paper, which counts less
    ],
)
def test_a_model_has_as_many_weights_as_the_published_one(role, card, known_to):
    """Nothing is allocated to count them."""
    with torch.device("meta"):
        count = sum(each.numel() for each in build_model(role).parameters())
    assert count == pytest.approx(model_card(card).parameters, rel=known_to, abs=0)


def test_the_second_detector_is_of_the_published_size():
    """20 million: https://github.com/lyuwenyu/RT-DETR, table of RT-DETRv2-S."""
    with torch.device("meta"):
        count = sum(each.numel() for each in build_model("detection-rtdetr").parameters())
    assert count == pytest.approx(20e6, rel=0.03)


def test_clips_words_are_as_many_as_the_published_ones():
    """A text begins and ends with CLIP's own marks, and is cut at its longest."""
    tokenizer = byte_pairs()
    tokens = tokenizer("a red bicycle")["input_ids"]
    assert len(tokenizer) == CLIP_WORDS
    assert (tokens[0], tokens[-1]) == (CLIP_WORDS - 2, CLIP_WORDS - 1)
    assert tokenizer.unk_token_id not in tokens[1:-1]
    assert len(tokenizer("a red bicycle " * 99, truncation=True)["input_ids"]) == 77


def test_blips_words_are_as_many_as_the_published_ones():
    """Its two marks stand behind BERT's words; the decoder begins with the first."""
    tokenizer = word_pieces()
    assert len(tokenizer) == BERT_WORDS + len(BLIP_MARKS)
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[CLS]", "[SEP]", "[DEC]"]) == [0, 101, 102, BERT_WORDS]
    assert tokenizer.unk_token_id not in tokenizer("a red bicycle")["input_ids"]
    assert tokenizer.decode(tokenizer("a red bicycle")["input_ids"], skip_special_tokens=True) == "a red bicycle"


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A checkpoint with weights of seed 1."""
    return make_checkpoint("detection", tmp_path_factory.mktemp("weights") / "made", seed=1)


@pytest.mark.parametrize("role", ["detection", "detection-rtdetr"])
def test_the_local_rung_runs_a_checkpoint_as_it_is(role, tmp_path, photos, detector):
    """It is complete: safetensors, processor, COCO's names."""
    folder = detector if role == "detection" else make_checkpoint(role, tmp_path / "made", seed=1)
    with Router([LocalBackend(detection_model=str(folder), engine="torch")], caching=False) as router:
        found = router.detect(photos / PHOTO, min_score=0.0)
    assert len(found) > 0
    assert {box.category_id for box in found} - {None}


def test_the_same_seed_makes_the_same_weights(tmp_path, detector):
    """And whatever else the process draws by chance does not depend on it."""
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    folders = [make_checkpoint("detection", tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    assert torch.equal(torch.rand(3), expected)
    first, again, other = ((folder / "model.safetensors").read_bytes() for folder in (detector, *folders))
    assert first == again
    assert first != other


def test_a_role_without_a_model_is_refused(tmp_path):
    """The message names those that there are."""
    with pytest.raises(InvalidRequestError, match="'caption-large'") as caught:
        make_checkpoint("caption-large", tmp_path, seed=1)
    assert "detection-rtdetr" in caught.value.remedy
