"""What ships beside the code is what the cards, the notice and the credits say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vision_backends.backends.model_cards import asset, model_cards

CARDS = [card for card in model_cards() if card.backend == "embedded"]
PHOTOS = Path(__file__).parents[3] / "benchmarks" / "photos"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_card_describes_the_file(card):
    """Checksum, size and revision in the card are those of the file, and the notice names the checksum."""
    content = asset(card.file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == card.sha256
    assert len(content) == card.size_bytes
    assert card.sha256.startswith(card.revision)
    assert card.sha256 in asset("NOTICE").read_text(encoding="utf-8")


def test_all_models_are_there():
    """One embeds images, one texts, one detects, two read; four describe."""
    tasks = [("embed", "describe"), ("embed_text", "embed"), ("detect", "describe"), ("describe",), ("describe",)]
    assert [card.tasks for card in CARDS] == tasks


def test_the_reader_has_its_characters():
    """One for each class of the recogniser but the blank and the space; the notice names the file's checksum."""
    content = asset("pp-ocrv6-characters.txt").read_bytes()
    characters = content.decode().removesuffix("\n").split("\n")
    assert len(set(characters)) == len(characters) == 6904
    assert all(len(character) == 1 for character in characters)
    assert hashlib.sha256(content).hexdigest() in asset("NOTICE").read_text(encoding="utf-8")


def test_there_are_a_thousand_class_names():
    """Two names occur twice, on purpose; all are fit for a sentence."""
    names = asset("imagenet-1k.txt").read_text(encoding="utf-8").splitlines()
    assert len(names) == 1000
    assert sorted({name for name in names if names.count(name) > 1}) == ["missile", "sunglasses"]
    assert not [name for name in names if set(name) & set("()/_,") or name != name.strip()]


def test_the_notice_has_the_checksum_of_the_sorts():
    """They were made by a script from WordNet, whose licence goes with them."""
    digest = hashlib.sha256(asset("imagenet-sorts.tsv").read_bytes()).hexdigest()
    assert digest in asset("NOTICE").read_text(encoding="utf-8")
    assert "Princeton University" in asset("LICENSE-WORDNET").read_text(encoding="utf-8")


def test_every_photo_has_its_credit():
    """Author, licence and source of each photo are in CREDITS.md, and none is larger than it needs to be."""
    credits_ = (PHOTOS / "CREDITS.md").read_text(encoding="utf-8")
    for photo in PHOTOS.glob("*.jpg"):
        assert f"`{photo.name}`" in credits_
        assert photo.stat().st_size <= (200_000 if photo.stem == "raccoon" else 150_000)
