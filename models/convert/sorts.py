"""The sorts of things that ImageNet's 1000 classes fall into, by the hypernyms of WordNet 3.0.

A sort has all classes below its synsets, less those that nobody would call so (hay is food there, and a honeycomb a
structure), with some that WordNet has elsewhere. The list below says which sorts there are, and where speech differs.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MEMBER = "dict/data.noun"
HYPERNYMS = frozenset({"@", "@i"})
HEADER = "# sort, share of the probability that is enough to say it, lines of imagenet-1k.txt counted from 0"

NARROW = 0.6
BROAD = 0.42
"""For what claims little; what is hardly ever taken for anything else needs still less. All shares were chosen on
pictures that the figures in ``docs/embedded-models.md`` are not of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """One sort.

    Attributes:
        label: The word for it.
        synsets: What it has all classes of, as WordNet's identifiers of nouns.
        more: Other classes of it, by name.
        less: Classes that are none of it in speech.
        share: So much of the probability, beyond chance, is enough to say it.
    """

    label: str
    synsets: Sequence[str]
    more: frozenset[str] = frozenset()
    less: frozenset[str] = frozenset()
    share: float = NARROW


PLANTS = frozenset(
    {
        *("acorn", "artichoke", "broccoli", "cabbage", "cardoon", "cauliflower", "corn", "corn cob", "daisy"),
        *("greenhouse", "hay", "horse chestnut seed", "plant pot", "rapeseed", "rose hip", "yellow lady's slipper"),
    }
)

TOWERS = frozenset({"bell tower", "dome", "thatched roof", "tile roof", "water tower"})

NO_BUILDINGS = frozenset(
    {
        *("brass memorial plaque", "coil", "honeycomb", "mobile home", "plate rack", "radiator grille", "scoreboard"),
        "sliding door",
    }
)

SORTS = (
    Sort(label="cat", synsets=["n02121808"]),
    Sort(label="big cat", synsets=["n02127808"]),
    Sort(label="dog", synsets=["n02084071"]),
    Sort(label="wolf", synsets=["n02114100"]),
    Sort(label="fox", synsets=["n02118333"]),
    Sort(label="bear", synsets=["n02131653"]),
    Sort(label="elephant", synsets=["n02503517"]),
    Sort(label="rabbit", synsets=["n02324045"], more=frozenset({"hare"})),
    Sort(label="monkey", synsets=["n02484322"]),
    Sort(label="ape", synsets=["n02470325"]),
    Sort(label="parrot", synsets=["n01816887"]),
    Sort(label="bird of prey", synsets=["n01604330"]),
    Sort(label="bird", synsets=["n01503061"], share=BROAD),
    Sort(label="snake", synsets=["n01726692"]),
    Sort(label="lizard", synsets=["n01674464"]),
    Sort(label="turtle", synsets=["n01662784"]),
    Sort(label="frog", synsets=["n01639765"]),
    Sort(label="crocodile", synsets=["n01696633"]),
    Sort(label="reptile", synsets=["n01661091"]),
    Sort(label="fish", synsets=["n02512053"]),
    Sort(label="crab", synsets=["n01976957"]),
    Sort(label="spider", synsets=["n01772222"]),
    Sort(label="butterfly", synsets=["n02274259"]),
    Sort(label="beetle", synsets=["n02164464"]),
    Sort(label="insect", synsets=["n02159955"]),
    Sort(label="animal", synsets=["n00015388"], share=BROAD),
    Sort(label="mushroom", synsets=["n12992868"], more=frozenset({"mushroom"})),
    Sort(label="flower", synsets=["n11669921"]),
    Sort(label="plant", synsets=[], more=PLANTS, share=0.3),
    Sort(label="fruit", synsets=["n07705931"]),
    Sort(label="vegetable", synsets=["n07707451"], less=frozenset({"mashed potatoes", "mushroom"})),
    Sort(
        label="food",
        synsets=["n07555863", "n00021265"],
        less=frozenset({"hay", "menu", "plate", "tea cup"}),
        share=BROAD,
    ),
    Sort(label="car", synsets=["n02958343"]),
    Sort(label="truck", synsets=["n04490091"], less=frozenset({"minivan", "police van"})),
    Sort(label="bus", synsets=["n02924116"]),
    Sort(
        label="train",
        synsets=["n03684823", "n02959942"],
        more=frozenset({"high-speed train", "electric locomotive", "steam locomotive", "tram"}),
    ),
    Sort(label="aircraft", synsets=["n02686568"]),
    Sort(label="boat", synsets=["n04530566"], less=frozenset({"shipwreck"})),
    Sort(
        label="vehicle",
        synsets=["n04524313", "n02924116"],
        less=frozenset({"mobile home", "shopping cart"}),
        share=BROAD,
    ),
    Sort(label="guitar", synsets=["n03467517"]),
    Sort(label="piano", synsets=["n03928116"]),
    Sort(label="musical instrument", synsets=["n03800933"], share=BROAD),
    Sort(label="gun", synsets=["n03467984"]),
    Sort(label="tool", synsets=["n04451818"], share=BROAD),
    Sort(label="household appliance", synsets=["n03528263"], less=frozenset({"Dutch oven"})),
    Sort(label="furniture", synsets=["n03405725"], less=frozenset({"toilet seat"}), share=BROAD),
    Sort(label="hat", synsets=["n03497657"]),
    Sort(label="shoe", synsets=["n03380867"]),
    Sort(label="clothing", synsets=["n03051540"], less=frozenset({"hair wig", "seat belt"})),
    Sort(label="clock", synsets=["n03046257"]),
    Sort(label="ball", synsets=["n02778669"], less=frozenset({"punching bag"})),
    Sort(label="bottle", synsets=["n02876657"], less=frozenset({"water jug", "whiskey jug"})),
    Sort(label="bridge", synsets=["n02898711"]),
    Sort(
        label="building",
        synsets=["n02913152"],
        more=TOWERS | {"castle", "cliff dwelling", "lighthouse", "prison", "sawmill", "yurt"},
        less=frozenset({"apiary", "home theater"}),
    ),
    Sort(
        label="building or other structure",
        synsets=["n04341686", "n02913152"],
        more=TOWERS | {"drilling rig", "pier", "vaulted ceiling"},
        less=NO_BUILDINGS,
        share=0.35,
    ),
    Sort(
        label="landscape",
        synsets=["n09287968"],
        more=frozenset({"breakwater", "pier"}),
        less=frozenset({"coral reef", "geyser"}),
        share=0.3,
    ),
)


def read_hypernyms(archive: bytes) -> dict[str, list[str]]:
    """Return the hypernyms of every noun's synset, all by identifiers.

    Args:
        archive: WordNet's dictionary, as a gzipped tar file.
    """
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(MEMBER)
        if file is None:
            raise ValueError(f"The archive has no file {MEMBER}.")
        lines = file.read().decode("latin-1").splitlines()
    return dict(_read_synset(line) for line in lines if not line.startswith(" "))


def _read_synset(line: str) -> tuple[str, list[str]]:
    """Return a synset and its hypernyms; the format is described in WordNet's ``wndb(5WN)``."""
    fields = line.partition(" | ")[0].split()
    pointers = fields[4 + 2 * int(fields[3], 16) :]
    targets = [pointers[start : start + 2] for start in range(1, 4 * int(pointers[0]), 4)]
    return f"n{fields[0]}", [f"n{target}" for symbol, target in targets if symbol in HYPERNYMS]


def convert(archive: bytes, *, synsets: Sequence[str], names: Sequence[str]) -> bytes:
    """Return the table of sorts.

    Args:
        archive: WordNet's dictionary, as a gzipped tar file.
        synsets: The synset of each class.
        names: The name of each class.

    Raises:
        ValueError: A sort names a synset or a class that there is not.
    """
    hypernyms = read_hypernyms(archive)
    above = [_above(synset, hypernyms) for synset in synsets]
    rows = []
    for sort in SORTS:
        numbers = {number for number, found in enumerate(above) if not found.isdisjoint(sort.synsets)}
        unknown = {*sort.synsets} - hypernyms.keys() or (sort.more | sort.less) - {*names}
        if unknown:
            raise ValueError(f"The sort {sort.label!r} names {', '.join(sorted(unknown))}, which there is not.")
        numbers |= {number for number, name in enumerate(names) if name in sort.more}
        numbers -= {number for number, name in enumerate(names) if name in sort.less}
        rows.append((len(numbers), f"{sort.label}\t{sort.share}\t{_ranges(sorted(numbers))}"))
    return "\n".join([HEADER, *(row for _, row in sorted(rows)), ""]).encode()


def _above(synset: str, hypernyms: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [synset]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += hypernyms[each]
    return found


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers in order with those that follow each other put together: ``"7-24 80 127-146"``."""
    ends = [place for place, (one, two) in enumerate(pairwise(numbers), start=1) if two != one + 1]
    runs: Iterable[Sequence[int]] = (
        numbers[start:end] for start, end in zip([0, *ends], [*ends, len(numbers)], strict=True)
    )
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
