"""Labels are said as English says them."""

from __future__ import annotations

import re

import pytest

from vision_backends.backends.embedded.label_knowledge import GENERA, KINDS, REFINEMENTS
from vision_backends.backends.english import UNCOUNTABLE, counted, joined, plural, spoken, with_article
from vision_backends.backends.model_cards import asset, coco_categories

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


def test_the_knowledge_names_classes_that_exist():
    """Refinements are lines of the class list, kinds and genera are positions in it."""
    assert {name for names in REFINEMENTS.values() for name in names} <= set(IMAGENET)
    assert set(REFINEMENTS) | set(KINDS) <= set(coco_categories())
    assert all(number in range(1000) for numbers in (*KINDS.values(), *GENERA.values()) for number in numbers)


@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        ("cat", ["tabby cat", "Egyptian Mau"]),
        ("dog", ["Chihuahua", "Golden Retriever", "Mexican hairless dog"]),
        ("bird", ["rooster", "great grey owl", "black grouse", "hummingbird", "white stork", "albatross"]),
        ("bear", ["brown bear", "sloth bear"]),
        ("elephant", ["Asian elephant", "African bush elephant"]),
        ("horse", ["common sorrel horse"]),
        ("zebra", ["zebra"]),
    ],
)
def test_kinds_hold_their_own(kind, examples):
    """The positions given for a kind are the classes that are meant."""
    assert set(examples) <= {IMAGENET[number] for number in KINDS[kind]}


def test_genera_hold_their_own():
    """Spot checks at the ends of every range of positions."""
    ends = {genus: (IMAGENET[numbers[0]], IMAGENET[numbers[-1]]) for genus, numbers in GENERA.items()}
    assert ends == {
        "cat": ("tabby cat", "Egyptian Mau"),
        "dog": ("Chihuahua", "Mexican hairless dog"),
        "bear": ("brown bear", "sloth bear"),
        "bird": ("rooster", "albatross"),
        "fish": ("tench", "pufferfish"),
        "frog": ("American bullfrog", "tailed frog"),
        "turtle": ("loggerhead sea turtle", "box turtle"),
        "lizard": ("banded gecko", "Komodo dragon"),
        "snake": ("worm snake", "sidewinder rattlesnake"),
        "spider": ("yellow garden spider", "wolf spider"),
        "butterfly": ("red admiral butterfly", "gossamer-winged butterfly"),
        "insect": ("tiger beetle", "gossamer-winged butterfly"),
        "animal": ("tench", "pufferfish"),
        "boat": ("canoe", "sailboat"),
        "train": ("high-speed train", "tram"),
        "building": ("barn", "yurt"),
        "vehicle": ("ambulance", "trolleybus"),
        "musical instrument": ("accordion", "violin"),
        "mushroom": ("mushroom", "bolete"),
    }
