"""What two small models and a palette support about an image: the facts that a description may use.

This module decides what counts as seen and how sure it is, by letting the classifier check the detector. It must
not know how the facts are worded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vision_backends.backends.embedded.classifier import centre_box
from vision_backends.backends.embedded.label_knowledge import (
    ANIMALS,
    GENERA,
    KINDS,
    REFINEMENTS,
    SPECIES,
    UNSPOKEN,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.embedded.classifier import Classifier
    from vision_backends.backends.embedded.colours import Palette, Tones
    from vision_backends.backends.embedded.detector import Detector
    from vision_backends.backends.embedded.ocr import Reader, TextLine
    from vision_backends.types import Detection

    Floats = npt.NDArray[np.float32]

__all__ = ["Evidence", "Guess", "Observer", "Place", "SeenObject"]

Place = Literal["left", "centre", "right", "foreground"]

SURE_SCORE = 0.6
"""Of 24 pictures without any of the 80 objects, 2 had a detection above 0.5, none above this."""

STUBBORN_SCORE = 0.65
"""A detected animal that the classifier does not see keeps its name from here on."""

KIND_SHARE = 0.3
"""So much probability on a kind's classes confirms the kind."""

CORRECTION_SHARE = 0.5
REFINEMENT_SHARE = 0.7

ANIMAL_SHARE = 0.4
"""Like `GENUS_SHARE`, but here the detector says so as well."""

SCENE_SHARE = 0.6
"""Below this the classifier's word for a whole image is wrong too often to be repeated."""

SCENE_SURE_SHARE = 0.8

GENUS_SHARE = 0.7
"""Of the probability that a sort of classes would not have by chance."""

FOREGROUND_SHARE = 0.35
MOST_CROPS = 3
"""Each costs one pass of the classifier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The classifier's word for the image as a whole.

    Attributes:
        label: The word.
        score: Its probability, the mean over the whole image and its centre.
        sure: Whether it may be said without a "probably".
    """

    label: str
    score: float
    sure: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {"label": self.label, "score": round(self.score, 4), "sure": self.sure}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenObject:
    """One object.

    Attributes:
        label: What it is, after the classifier has had its say.
        detected_as: What the detector called it.
        score: The detector's score.
        sure: Whether it may be said without a "perhaps".
        place: Where it is; in the foreground when it fills much of the image.
        share: Its box's share of the image's area, in [0, 1].
        xyxy: Its box in pixels of the upright image.
    """

    label: str
    detected_as: str
    score: float
    sure: bool
    place: Place
    share: float
    xyxy: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {
            "label": self.label,
            "detected_as": self.detected_as,
            "score": round(self.score, 4),
            "sure": self.sure,
            "place": self.place,
            "share": round(self.share, 4),
            "xyxy": [round(value, 1) for value in self.xyxy],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All facts about one image.

    Attributes:
        objects: The objects, most prominent first.
        scene: The classifier's word for the whole; None when it has none that is not said by an object.
        tones: Its colours and brightness.
        text: The lines of text in it, from top to bottom; None when nobody looked for any.
    """

    objects: tuple[SeenObject, ...]
    scene: Guess | None
    tones: Tones
    text: tuple[TextLine, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {
            "objects": [item.to_dict() for item in self.objects],
            "scene": self.scene and self.scene.to_dict(),
            "colours": self.tones.to_dict(),
            "text": None if self.text is None else [line.to_dict() for line in self.text],
        }


class Observer:
    """Collects the evidence about images.

    Args:
        detector: Finds the objects.
        classifier: Names the whole, and checks what the detector found.
        names: The classifier's class names.
        palette: Names colours.
        reader: Reads text; None leaves it unread.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        classifier: Classifier,
        names: Sequence[str],
        palette: Palette,
        reader: Reader | None = None,
    ) -> None:
        self._detector = detector
        self._classifier = classifier
        self._names = names
        self._palette = palette
        self._reader = reader

    def observe(self, image: PILImage.Image, *, width: int, height: int) -> Evidence:
        """Return the evidence about an image.

        Args:
            image: RGB pixels, at any scale.
            width: Width of the upright image that boxes refer to.
            height: Its height.

        Raises:
            NotReadyError: A model file is missing or damaged, or there is nothing to read with.
        """
        found = self._detector.detect(image, width=width, height=height)
        doubtful = sorted((item for item in found if _checkable(item)), key=lambda item: -item.area_px)
        doubtful = doubtful[:MOST_CROPS]
        scale = np.array([image.width / width, image.height / height] * 2)
        crops = [tuple((np.array(item.xyxy) * scale).tolist()) for item in doubtful]
        whole = (0.0, 0.0, float(image.width), float(image.height))
        scene, centre, *checks = (
            self._classifier.classify(image, box=box) for box in (whole, centre_box(*image.size), *crops)
        )
        views = {id(item): view for item, view in zip(doubtful, checks, strict=True)}
        seen = [self._seen(item, views.get(id(item)), area_px=width * height, width=width) for item in found]
        return Evidence(
            objects=tuple(sorted(seen, key=lambda item: -item.share * item.score)),
            scene=self._scene((scene + centre) / np.float32(2), seen),
            tones=self._palette.tones(image),
            text=None if self._reader is None else self._reader.read(image, width=width, height=height),
        )

    def _seen(self, item: Detection, view: Floats | None, *, area_px: int, width: int) -> SeenObject:
        label, sure = (item.label, item.score >= SURE_SCORE) if view is None else self._checked(item, view)
        share = item.area_px / area_px
        return SeenObject(
            label=label,
            detected_as=item.label,
            score=item.score,
            sure=sure,
            place="foreground" if share >= FOREGROUND_SHARE else _side(item, width=width),
            share=share,
            xyxy=item.xyxy,
        )

    def _checked(self, item: Detection, view: Floats) -> tuple[str, bool]:
        """Return what an object is and whether that is sure, given the classifier's view of it [1000]."""
        if item.label in KINDS:
            return self._checked_animal(item, view)
        best = max(REFINEMENTS[item.label], key=lambda name: view[self._names.index(name)])
        if view[self._names.index(best)] >= REFINEMENT_SHARE:
            return best, True
        return item.label, item.score >= SURE_SCORE

    def _checked_animal(self, item: Detection, view: Floats) -> tuple[str, bool]:
        kind = KINDS[item.label]
        best = int(view[: ANIMALS.stop].argmax())
        if best not in kind and view[best] >= CORRECTION_SHARE:
            return self._names[best], True
        if best in kind and item.label in SPECIES and view[best] >= REFINEMENT_SHARE:
            return self._names[best], True
        if view[list(kind)].sum() >= KIND_SHARE or item.score >= STUBBORN_SCORE:
            return item.label, True
        if _share(view, ANIMALS) >= ANIMAL_SHARE:
            return "animal", True
        return item.label, False

    def _scene(self, view: Floats, seen: Sequence[SeenObject]) -> Guess | None:
        """Return the classifier's word for the whole [1000], unless an object says the same."""
        best = int(view.argmax())
        if view[best] >= SCENE_SHARE:
            label, score, numbers = self._names[best], float(view[best]), {best}
        else:
            label, score, numbers = _best_genus(view)
        words = {label, *(self._names[number] for number in numbers)}
        if not label or label in UNSPOKEN or any(_says_the_same(item, words, numbers) for item in seen):
            return None
        return Guess(label=label, score=score, sure=score >= SCENE_SURE_SHARE and len(numbers) == 1)


def _best_genus(view: Floats) -> tuple[str, float, set[int]]:
    """Return the narrowest sort of classes that a view [1000] supports, its share and its classes."""
    for label, numbers in GENERA.items():
        score = _share(view, numbers)
        if score >= GENUS_SHARE:
            return label, score, set(numbers)
    return "", 0.0, set()


def _share(view: Floats, numbers: Sequence[int]) -> float:
    """Return how much of what is beyond chance a view [1000] gives to some classes; 1 when all of it."""
    by_chance = len(numbers) / len(view)
    return (float(view[list(numbers)].sum()) - by_chance) / (1 - by_chance)


def _checkable(item: Detection) -> bool:
    return item.label in KINDS or item.label in REFINEMENTS


def _says_the_same(item: SeenObject, words: set[str], numbers: set[int]) -> bool:
    """Tell whether an object already says what one of these classes would."""
    if item.detected_as in KINDS and numbers <= set(ANIMALS):
        return True
    own = {item.label, item.detected_as, *REFINEMENTS.get(item.detected_as, ())}
    return bool(words & own) or any(item.detected_as in word.split() for word in words)


def _side(item: Detection, *, width: int) -> Place:
    middle = (item.xyxy[0] + item.xyxy[2]) / 2 / width
    if middle < 1 / 3:
        return "left"
    return "right" if middle > 2 / 3 else "centre"
