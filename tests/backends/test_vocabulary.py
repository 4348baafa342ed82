"""A caller's words find the detector's."""

from __future__ import annotations

import pytest

from vision_backends.backends.english import plural, spoken, with_article
from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.vocabulary import match_labels


@pytest.mark.parametrize(
    ("label", "word"),
    [
        ("dog", "dog"),
        ("Dog", "dog"),
        ("a dog", "dog"),
        ("the dogs", "dog"),
        ("people", "person"),
        ("any  person.", "person"),
        ("an umbrella", "umbrella"),
        ("sofas", "couch"),
        ("TV", "tv"),
        ("a television", "tv"),
        ("remote control", "remote"),
        ("motorbikes", "motorcycle"),
        ("tvmonitor", "tv"),
        ("scooter", None),
        ("a red dog", None),
        ("", None),
    ],
)
def test_articles_plurals_and_synonyms_are_understood(label, word):
    """What means exactly one of the 80 words is that word; anything more is not."""
    assert match_labels([label], known=coco_categories()) == {label: word}


@pytest.mark.parametrize("word", coco_categories())
def test_every_word_is_found_in_every_form(word):
    """Singular, plural and with its article."""
    forms = [word, spoken(word), plural(spoken(word)), with_article(word) if " of " not in with_article(word) else word]
    assert set(match_labels(forms, known=coco_categories()).values()) == {word}


def test_other_vocabularies_are_matched_by_their_own_words():
    """A synonym counts only where the vocabulary has its word; case is the vocabulary's own."""
    assert match_labels(["sofas", "helmets", "a Mouse"], known=["Helmet", "couch"]) == {
        "sofas": "couch",
        "helmets": "Helmet",
        "a Mouse": None,
    }


def test_a_word_of_the_vocabulary_is_no_synonym_there():
    """Who knows planes beside airplanes means something else by them."""
    assert match_labels(["plane"], known=["plane", "airplane"]) == {"plane": "plane"}
