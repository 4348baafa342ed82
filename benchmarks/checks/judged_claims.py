"""Which words are right for photos of which a sort of thing is said, or what was half seen: judged by eye.

Keys are the names of the bundled photos, and of topics of GCompris with or without the name of one picture. This module
is knowledge as data; it must not know what is measured with it.
"""

from __future__ import annotations

__all__ = ["ARGUABLE", "RIGHT"]

BUILT = frozenset({"building", "building or other structure", "bridge"})

RIGHT: dict[str, frozenset[str]] = {
    "bench": frozenset({"bench", "landscape"}),
    "chair": frozenset({"chair", "furniture"}),
    "cinema": BUILT,
    "crab": frozenset({"animal", "crab"}),
    "drums": frozenset({"guitar", "musical instrument"}),
    "fig": frozenset({"food", "fruit"}),
    "flower": frozenset({"flower", "plant"}),
    "folk-band": frozenset({"musical instrument"}),
    "kitten": frozenset({"animal", "cat"}),
    "railway": frozenset({"landscape", "train tracks"}),
    "spaniels": frozenset({"animal", "dog"}),
    "temple": BUILT,
    "yarn": frozenset({"animal", "cat"}),
    "fishes": frozenset({"animal", "fish"}),
    "monuments": BUILT,
    "renewable": BUILT,
    "tools": frozenset({"tool"}),
    "monuments/ajantaCave": frozenset({"landscape"}),
    "monuments/greatWallofChina": frozenset({"landscape"}),
    "monuments/montStMichel": frozenset({"landscape"}),
    "monuments/rocamadour": frozenset({"landscape"}),
    "others/chair": frozenset({"chair", "furniture"}),
    "others/igloo": BUILT,
    "square": BUILT,
    "swans": frozenset({"animal", "bird"}),
}
"""By photo or topic, what may be said; anything else is wrong."""

ARGUABLE: frozenset[tuple[str, str]] = frozenset(
    {
        ("monuments/bentPyramid", "landscape"),
        ("monuments/meidumPyramid", "landscape"),
        ("monuments/mountRushmore", "landscape"),
        ("others/buffetset", "bowl"),
        ("rocket", "vehicle"),
    }
)
"""What some would say is there."""
