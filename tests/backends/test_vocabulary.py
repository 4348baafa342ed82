"""Labels are said as English says them, and a caller's words find those of a vocabulary."""

from __future__ import annotations

import re

import pytest

from vision_backends.backends.model_cards import asset, coco_categories
from vision_backends.backends.vocabulary import (
    UNCOUNTABLE,
    counted,
    joined,
    match_labels,
    plural,
    spoken,
    with_article,
)

IMAGENET = asset("imagenet-1k.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("noun", "said"),
    [
        ("dog", "a dog"),
        ("apple", "an apple"),
        ("umbrella", "an umbrella"),
        ("unicycle", "a unicycle"),
        ("European polecat", "a European polecat"),
        ("one-piece bathing suit", "a one-piece bathing suit"),
        ("hourglass", "an hourglass"),
        ("honeycomb", "a honeycomb"),
        ("T-shirt", "a T-shirt"),
        ("scissors", "a pair of scissors"),
        ("skis", "a pair of skis"),
        ("mashed potatoes", "mashed potatoes"),
        ("wool", "wool"),
    ],
)
def test_articles_follow_the_sound(noun, said):
    """Vowel sounds take "an"; pairs and uncountable things take no article of their own."""
    assert with_article(noun) == said


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("person", "people"),
        ("bus", "buses"),
        ("bench", "benches"),
        ("couch", "couches"),
        ("toothbrush", "toothbrushes"),
        ("knife", "knives"),
        ("sheep", "sheep"),
        ("bighorn sheep", "bighorn sheep"),
        ("computer mouse", "computer mice"),
        ("wine glass", "wine glasses"),
        ("skis", "pairs of skis"),
        ("teddy bear", "teddy bears"),
        ("TV", "TVs"),
        ("grey wolf", "grey wolves"),
        ("goose", "geese"),
        ("mongoose", "mongooses"),
        ("Arctic fox", "Arctic foxes"),
        ("clownfish", "clownfish"),
        ("butterfly", "butterflies"),
        ("donkey", "donkeys"),
        ("broccoli", "portions of broccoli"),
    ],
)
def test_plurals(noun, many):
    """The last word takes the plural, by rule or by exception."""
    assert plural(noun) == many


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "a bus"), (2, "two buses"), (4, "four buses"), (5, "several buses"), (9, "several buses"), (10, "many buses")],
)
def test_counts_get_vague_when_they_get_large(count, said):
    """Up to four are counted; a detector's larger counts are not to be trusted."""
    assert counted("bus", count) == said


@pytest.mark.parametrize(
    ("parts", "said"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_lists(parts, said):
    """Commas, and "and" before the last."""
    assert joined(parts) == said


def test_every_label_of_the_detector_can_be_counted():
    """No plural of a label is the label itself, but for sheep."""
    for label in coco_categories():
        noun = spoken(label)
        assert plural(noun) != noun or noun == "sheep"
        assert counted(noun, 2).startswith("two ")


def test_every_word_of_the_classifier_gets_an_article_or_needs_none():
    """Words that look like plurals are known as pairs or as uncountable."""
    bare = [name for name in IMAGENET if with_article(name) == name]
    assert set(bare) <= UNCOUNTABLE
    looks_plural = [name for name in IMAGENET if re.search(r"[^aius]s$", name)]
    assert {name for name in looks_plural if re.match("an? (?!pair of)", with_article(name))} == {"triceratops"}


@pytest.mark.parametrize(
    ("label", "word"),
    [
        ("dog", "dog"),
        ("Dog", "dog"),
        ("a dog", "dog"),
        ("the dogs", "dog"),
        ("people", "person"),
        ("any  person.", "person"),
        ("\ufeffdog\r\n", "dog"),  # the first line of a file that some editors write
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
