"""Which of 52 words fit the photos of the sample and of the documentation: judged by eye, before anything was measured.

This module is knowledge as data; it must not know what is measured with it.
"""

from __future__ import annotations

__all__ = ["ARGUABLE", "PRESENT", "WORDS"]

WORDS = (
    *("lighthouse", "violin", "waterfall", "crab", "swan", "train tracks", "swimming pool", "red wine"),
    *("theatre stage", "stove", "musicians", "castle", "mountains", "ocean", "blossom", "rocket launch", "espresso"),
    *("pagoda", "raccoon", "tripod", "kitten", "puppy", "foal", "chicken", "fig", "drum kit", "electric guitar"),
    *("cutlery", "panda", "giraffes", "cattle", "parking lot", "armchair", "wall clock", "cinema", "didgeridoo"),
    *("ball of wool", "tourist", "space suit", "helicopter", "snake", "pizza slice", "penguin", "submarine"),
    *("wedding dress", "skyscraper", "tractor", "tent", "snowman", "elephants", "mushroom", "lamb"),
)

PRESENT: dict[str, frozenset[str]] = {
    "bench": frozenset({"ocean"}),
    "chair": frozenset(),
    "cinema": frozenset({"cinema"}),
    "clock": frozenset({"wall clock"}),
    "crab": frozenset({"crab"}),
    "cutlery": frozenset({"cutlery"}),
    "didgeridoo": frozenset({"didgeridoo", "musicians"}),
    "drums": frozenset({"drum kit", "electric guitar"}),
    "fig": frozenset({"fig"}),
    "folk-band": frozenset({"musicians", "theatre stage", "violin"}),
    "garage": frozenset({"parking lot"}),
    "giraffes": frozenset({"giraffes"}),
    "hens": frozenset({"chicken"}),
    "kitchen": frozenset({"stove"}),
    "kitten": frozenset({"kitten"}),
    "mares": frozenset({"foal"}),
    "opera": frozenset({"theatre stage"}),
    "panda": frozenset({"panda"}),
    "parked-cars": frozenset({"parking lot"}),
    "pasture": frozenset({"cattle"}),
    "pool": frozenset({"swimming pool"}),
    "railway": frozenset({"mountains", "train tracks"}),
    "sheep": frozenset({"lamb"}),
    "shepherd": frozenset(),
    "spaniels": frozenset(),
    "square": frozenset({"castle", "tourist"}),
    "swans": frozenset({"swan"}),
    "wine": frozenset({"red wine"}),
    "yarn": frozenset({"ball of wool", "kitten"}),
    "astronaut": frozenset({"space suit"}),
    "cat": frozenset(),
    "coffee": frozenset({"espresso"}),
    "flower": frozenset({"blossom"}),
    "photographer": frozenset({"tripod"}),
    "raccoon": frozenset({"raccoon"}),
    "rocket": frozenset({"rocket launch"}),
    "temple": frozenset({"pagoda"}),
}
"""By photo, what is there; a word of `WORDS` that is in neither table is not."""

ARGUABLE: dict[str, frozenset[str]] = {
    "bench": frozenset({"armchair", "mountains"}),
    "cat": frozenset({"kitten"}),
    "chair": frozenset({"armchair"}),
    "cinema": frozenset({"parking lot", "skyscraper", "theatre stage"}),
    "crab": frozenset({"ocean"}),
    "didgeridoo": frozenset({"theatre stage", "tourist"}),
    "drums": frozenset({"musicians", "theatre stage"}),
    "folk-band": frozenset({"electric guitar"}),
    "garage": frozenset({"skyscraper"}),
    "kitchen": frozenset({"cutlery"}),
    "mares": frozenset({"mountains"}),
    "opera": frozenset({"musicians", "wedding dress"}),
    "photographer": frozenset({"skyscraper", "tourist"}),
    "pool": frozenset({"armchair", "ocean", "tent", "tourist"}),
    "shepherd": frozenset({"puppy"}),
    "spaniels": frozenset({"puppy"}),
    "square": frozenset({"skyscraper"}),
    "swans": frozenset({"ocean"}),
    "temple": frozenset({"castle", "mountains", "tourist"}),
    "astronaut": frozenset({"rocket launch", "tourist"}),
    "wine": frozenset({"espresso"}),
}
"""By photo, what some would say is there; these count neither way."""
