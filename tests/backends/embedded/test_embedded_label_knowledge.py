"""What is known about the classifier's words refers to words that exist, and to the right ones."""

from __future__ import annotations

import pytest

from vision_backends.backends.embedded.label_knowledge import (
    DRAWING,
    GENERA,
    KINDS,
    MEMBERS,
    REFINEMENTS,
    read_sorts,
)
from vision_backends.backends.model_cards import asset, coco_categories

IMAGENET = asset("imagenet-1k.txt").read_text(encoding="utf-8").splitlines()
SORTS = {sort.label: sort for sort in read_sorts(asset("imagenet-sorts.tsv").read_text(encoding="utf-8"))}


def named(*numbers):
    """The names of classes."""
    return {IMAGENET[number] for number in numbers}


def test_the_knowledge_names_classes_that_exist():
    """Refinements are lines of the class list, kinds and genera are positions in it."""
    assert {name for names in REFINEMENTS.values() for name in names} <= set(IMAGENET)
    assert set(REFINEMENTS) | set(KINDS) | {label for labels in MEMBERS.values() for label in labels} <= set(
        coco_categories()
    )
    assert set(MEMBERS) <= set(SORTS)
    assert DRAWING in IMAGENET
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


@pytest.mark.parametrize(
    ("sort", "examples", "others"),
    [
        ("cat", ["tabby cat", "Egyptian Mau"], ["lion", "lynx"]),
        ("big cat", ["lion", "cheetah"], ["tabby cat"]),
        ("dog", ["Chihuahua", "Mexican hairless dog"], ["grey wolf", "red fox"]),
        ("bird", ["rooster", "king penguin", "albatross"], ["fox squirrel"]),
        ("animal", ["tench", "pufferfish", "jellyfish"], ["teddy bear"]),
        ("plant", ["daisy", "plant pot", "broccoli"], ["orange"]),
        ("fruit", ["strawberry", "pomegranate"], ["bell pepper", "acorn"]),
        ("food", ["pizza", "orange", "red wine"], ["hay", "menu"]),
        ("vehicle", ["school bus", "canoe", "airliner", "mountain bike"], ["shopping cart"]),
        ("train", ["freight car", "tram"], ["sports car"]),
        ("musical instrument", ["drum", "pan flute"], ["whistle"]),
        ("tool", ["hammer", "screwdriver"], ["spatula"]),
        ("furniture", ["desk", "bookcase", "couch"], ["toilet seat"]),
        ("clothing", ["jeans", "sombrero"], ["seat belt"]),
        ("building", ["palace", "castle"], ["suspension bridge"]),
        ("building or other structure", ["palace", "suspension bridge", "bell tower"], ["honeycomb", "coil"]),
        ("landscape", ["valley", "beach", "volcano"], ["coral reef"]),
    ],
)
def test_sorts_hold_what_people_call_so(sort, examples, others):
    """WordNet's hypernyms, mended where speech differs."""
    members = named(*SORTS[sort].numbers)
    assert set(examples) <= members
    assert members.isdisjoint(others)
    assert {*examples, *others} <= set(IMAGENET)


def test_the_narrower_sort_comes_first():
    """What is a cat is said to be a cat, not an animal."""
    sizes = [len(sort.numbers) for sort in SORTS.values()]
    assert sizes == sorted(sizes)
    assert all(len(sort.numbers) > 1 for sort in SORTS.values())


def test_sorts_that_claim_more_need_more():
    """An animal is said on less evidence than a cat."""
    shares = {label: sort.share for label, sort in SORTS.items()}
    assert shares["plant"] < shares["animal"] < shares["cat"] == shares["clock"] == shares["gun"]


def test_kinds_do_not_share_classes():
    """A class belongs to one kind at most."""
    numbers = [number for kind in KINDS.values() for number in kind]
    assert len(numbers) == len(set(numbers))
