"""What is known about the classifier's words refers to words that exist, and to the right ones."""

from __future__ import annotations

import pytest

from vision_backends.backends.embedded.label_knowledge import BROAD, KINDS, MEMBERS, REFINEMENTS, SORTS
from vision_backends.backends.model_cards import asset, coco_categories

IMAGENET = asset("imagenet-1k.txt").read_text(encoding="utf-8").splitlines()


def test_the_knowledge_names_classes_that_exist():
    """Refinements are lines of the class list, kinds and genera are positions in it."""
    assert {name for names in REFINEMENTS.values() for name in names} <= set(IMAGENET)
    assert set(REFINEMENTS) | set(KINDS) | {label for labels in MEMBERS.values() for label in labels} <= set(
        coco_categories()
    )
    assert BROAD | set(MEMBERS) <= set(SORTS)
    assert all(number in range(1000) for numbers in (*KINDS.values(), *SORTS.values()) for number in numbers)


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
    ends = {genus: (IMAGENET[numbers[0]], IMAGENET[numbers[-1]]) for genus, numbers in SORTS.items()}
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
        "fruit": ("Granny Smith apple", "pomegranate"),
        "food": ("plate", "corn cob"),
        "clock": ("analog clock", "wall clock"),
        "ball": ("baseball", "volleyball"),
        "bottle": ("beer bottle", "wine bottle"),
        "hat": ("military hat", "sombrero"),
        "shoe": ("clogs", "sandal"),
        "bridge": ("through arch bridge", "viaduct"),
        "household appliance": ("dishwasher", "washing machine"),
        "furniture": ("barber chair", "wardrobe"),
        "clothing": ("abaya", "Windsor tie"),
    }


def test_kinds_do_not_share_classes():
    """A class belongs to one kind at most."""
    numbers = [number for kind in KINDS.values() for number in kind]
    assert len(numbers) == len(set(numbers))
