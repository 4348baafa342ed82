"""How the classifier's 1000 words relate to the detector's 80: which may correct which.

This module is knowledge as data; it must not know how either model is run. Numbers are positions in
``models/imagenet-1k.txt``, words are lines of it.
"""

from __future__ import annotations

__all__ = ["ANIMALS", "BROAD", "GENERA", "KINDS", "MEMBERS", "PLACES", "REFINEMENTS", "SORTS", "SPECIES", "UNSPOKEN"]

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
"""Sorts of classes; the narrower sort comes first. The space that images share with texts is made of them too: a change
here is another space."""

SORTS: dict[str, tuple[int, ...]] = GENERA | {
    "fruit": (*range(948, 958),),
    "food": (*range(923, 947), *range(948, 958), *range(959, 966), 987, 998),
    "clock": (409, 530, 892),
    "ball": (429, 430, 522, 574, 722, 768, 805, 852, 890),
    "bottle": (440, 720, 737, 898, 907),
    "hat": (439, 452, 515, 808),
    "shoe": (502, 514, 630, 770, 774),
    "bridge": (821, 839, 888),
    "household appliance": (534, 550, 606, 651, 760, 766, 827, 859, 882, 891, 897),
    "furniture": (
        *(423, 431, 453, 493, 495, 516, 520, 526, 532, 548, 553, 559, 564, 648, 703, 736, 765, 831),
        *(846, 857, 861, 894),
    ),
    "clothing": (
        *(399, 400, 411, 439, 445, 451, 452, 457, 459, 474, 502, 514, 515, 568, 578, 601, 608, 610, 614, 617, 630),
        *(638, 639, 652, 655, 658, 667, 689, 697, 735, 770, 774, 775, 806, 808, 834, 841, 842, 869, 887, 906),
    ),
}
"""What to say when the classifier wavers between classes of one sort. The sorts of things follow the hypernyms of
WordNet 3.0 (https://wordnet.princeton.edu), less what is not called so in speech."""

BROAD = frozenset({"animal", "building", "clothing", "food", "furniture", "musical instrument", "vehicle"})
"""Sorts that claim little: less is enough to say them."""

MEMBERS: dict[str, frozenset[str]] = {
    "animal": frozenset({*KINDS, "giraffe"}),
    "vehicle": frozenset({"airplane", "bicycle", "boat", "bus", "car", "motorcycle", "train", "truck"}),
    "food": frozenset(
        {"apple", "banana", "broccoli", "cake", "carrot", "donut", "hot dog", "orange", "pizza", "sandwich"}
    ),
    "fruit": frozenset({"apple", "banana", "orange"}),
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
