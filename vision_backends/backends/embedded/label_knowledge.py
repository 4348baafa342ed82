"""How the classifier's 1000 words relate to the detector's 80: which may correct which.

This module is knowledge as data; it must not know how either model is run. Numbers are positions in
``models/imagenet-1k.txt``, words are lines of it. Sorts by WordNet's hypernyms are in ``models/imagenet-sorts.tsv``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ANIMALS",
    "DRAWING",
    "DRAWN",
    "GENERA",
    "KINDS",
    "MEMBERS",
    "PLACES",
    "REFINEMENTS",
    "SPECIES",
    "UNSPOKEN",
    "Sort",
    "read_sorts",
]

ANIMALS = range(398)
"""ImageNet's animals come first and without a gap."""

KINDS: dict[str, tuple[int, ...]] = {
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "cat": (*range(281, 286),),
    "dog": (*range(151, 269),),
    "horse": (339,),
    "sheep": (348, 349),
    "cow": (345,),
    "elephant": (101, 385, 386),
    "bear": (*range(294, 298),),
    "zebra": (340,),
}
"""The detector's animals, each with the classes that are one of them."""

GENERA: dict[str, tuple[int, ...]] = {
    "cat": KINDS["cat"],
    "dog": KINDS["dog"],
    "bear": KINDS["bear"],
    "bird": KINDS["bird"],
    "fish": (*range(7), *range(389, 398)),
    "frog": (30, 31, 32),
    "turtle": (*range(33, 38),),
    "lizard": (*range(38, 49),),
    "snake": (*range(52, 69),),
    "spider": (*range(72, 78),),
    "butterfly": (*range(321, 327),),
    "insect": (*range(300, 327),),
    "animal": (*ANIMALS,),
    "boat": (472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914),
    "train": (466, 547, 565, 705, 820, 829),
    "building": (
        *(425, 437, 442, 449, 483, 497, 500, 538, 580, 663, 668, 698),
        *(727, 743, 832, 853, 858, 900, 915),
    ),
    "vehicle": (
        *(407, 408, 436, 468, 511, 555, 569, 573, 575, 586, 609, 627, 654, 656, 661, 665, 670, 675),
        *(717, 734, 751, 757, 779, 802, 803, 817, 847, 864, 866, 867, 874),
    ),
    "musical instrument": (
        *(401, 402, 420, 432, 486, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642, 683, 684),
        *(687, 699, 776, 822, 875, 881, 889),
    ),
    "mushroom": (947, *range(991, 998)),
}
"""Sorts of classes that the space which images share with texts is made of: a change here is another space."""

DRAWING = "comic book"
"""The class that drawings of anything are taken for."""

DRAWN = "drawing"
"""What is said of it."""

MEMBERS: dict[str, frozenset[str]] = {
    "animal": frozenset({*KINDS, "giraffe"}),
    "plant": frozenset({"potted plant"}),
    "vegetable": frozenset({"broccoli", "carrot"}),
    "aircraft": frozenset({"airplane"}),
    "vehicle": frozenset({"airplane", "bicycle", "boat", "bus", "car", "motorcycle", "train", "truck"}),
    "food": frozenset(
        {"apple", "banana", "broccoli", "cake", "carrot", "donut", "hot dog", "orange", "pizza", "sandwich"}
    ),
    "fruit": frozenset({"apple", "banana", "orange"}),
    "tool": frozenset({"knife", "scissors"}),
    "furniture": frozenset({"bed", "bench", "chair", "couch", "dining table"}),
    "household appliance": frozenset({"microwave", "oven", "refrigerator", "toaster"}),
    "ball": frozenset({"sports ball"}),
    "clothing": frozenset({"tie"}),
}
"""The detector's words that say more exactly what a sort says."""

UNSPOKEN = frozenset({"baseball player", "bridegroom", "scuba diver"})
"""Classes that say who somebody is or what they do."""

SPECIES = frozenset({"bear", "bird", "dog"})
"""Kinds whose classes are worth naming; "Egyptian Mau" is a poor guess where "cat" is a good one."""

REFINEMENTS: dict[str, frozenset[str]] = {
    "airplane": frozenset({"airliner", "military aircraft", "space shuttle"}),
    "backpack": frozenset({"backpack"}),
    "bench": frozenset({"park bench"}),
    "bicycle": frozenset({"mountain bike", "tandem bicycle", "tricycle", "unicycle"}),
    "boat": frozenset(
        {
            "aircraft carrier",
            "canoe",
            "catamaran",
            "container ship",
            "fireboat",
            "gondola",
            "lifeboat",
            "motorboat",
            "ocean liner",
            "pirate ship",
            "sailboat",
            "schooner",
            "submarine",
            "trimaran",
        }
    ),
    "bottle": frozenset({"beer bottle", "pill bottle", "soda bottle", "water bottle", "wine bottle"}),
    "bowl": frozenset({"guacamole", "mixing bowl", "soup bowl"}),
    "bus": frozenset({"minibus", "school bus", "trolleybus"}),
    "car": frozenset(
        {
            "Ford Model T",
            "ambulance",
            "convertible",
            "go-kart",
            "golf cart",
            "jeep",
            "limousine",
            "minivan",
            "pickup truck",
            "police van",
            "race car",
            "sports car",
            "station wagon",
            "taxicab",
        }
    ),
    "chair": frozenset({"barber chair", "folding chair", "rocking chair", "throne"}),
    "clock": frozenset({"analog clock", "digital clock", "stopwatch", "wall clock"}),
    "cup": frozenset({"coffee mug", "espresso", "goblet", "measuring cup", "tea cup"}),
    "motorcycle": frozenset({"moped", "motor scooter"}),
    "sports ball": frozenset(
        {
            "baseball",
            "basketball",
            "croquet ball",
            "golf ball",
            "ping-pong ball",
            "rugby ball",
            "soccer ball",
            "tennis ball",
            "volleyball",
        }
    ),
    "tie": frozenset({"Windsor tie", "bolo tie", "bow tie"}),
    "train": frozenset(
        {
            "electric locomotive",
            "freight car",
            "high-speed train",
            "railroad car",
            "steam locomotive",
            "tram",
        }
    ),
    "truck": frozenset(
        {
            "ambulance",
            "fire truck",
            "garbage truck",
            "moving van",
            "pickup truck",
            "police van",
            "recreational vehicle",
            "semi-trailer truck",
            "snowplow",
            "tow truck",
            "tractor",
        }
    ),
}
"""The detector's other words, each with the classes that say it more exactly."""

PLACES = frozenset(
    {
        "bakery",
        "barbershop",
        "beach",
        "bookstore",
        "butcher shop",
        "candy store",
        "coral reef",
        "greenhouse",
        "grocery store",
        "home theater",
        "lakeshore",
        "library",
        "movie theater",
        "patio",
        "prison",
        "restaurant",
        "sandbar",
        "sawmill",
        "shoe store",
        "stage",
        "tobacco shop",
        "toy store",
        "valley",
    }
)
"""Classes that are a setting rather than a thing in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """A sort of classes, to be said where the classifier wavers between them.

    Attributes:
        label: The word for it.
        share: So much of the probability, beyond chance, is enough to say it.
        numbers: The classes.
    """

    label: str
    share: float
    numbers: frozenset[int]


def read_sorts(table: str) -> list[Sort]:
    """Return the sorts that ``models/imagenet-sorts.tsv`` lists, the narrower first."""
    rows = (line.split("\t") for line in table.splitlines() if not line.startswith("#"))
    return [Sort(label=label, share=float(share), numbers=_numbers(runs)) for label, share, runs in rows]


def _numbers(runs: str) -> frozenset[int]:
    """Return the numbers that are written as ``"7-24 80"``."""
    ends = [[int(end) for end in run.split("-")] for run in runs.split()]
    return frozenset(number for run in ends for number in range(run[0], run[-1] + 1))
