"""The evidence about an image: its objects, scene, colours and text, which are all that a description may use.

This module decides what counts as seen and how sure it is, by letting the classifier check the detector, and how
colours are named. It must not know how the facts are worded.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vision_backends.backends.embedded.label_knowledge import (
    ANIMALS,
    DRAWING,
    DRAWN,
    KINDS,
    MEMBERS,
    REFINEMENTS,
    SPECIES,
    UNSPOKEN,
)
from vision_backends.backends.embedded.models import DEFAULT_MIN_SCORE
from vision_backends.backends.embedded.reading import Reading
from vision_backends.clock import measured
from vision_backends.engine.threads import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.embedded.label_knowledge import Sort
    from vision_backends.backends.embedded.models import Classifier, Detector
    from vision_backends.backends.embedded.reading import Reader, TextLine
    from vision_backends.types import Detection

    Box = tuple[float, float, float, float]
    Floats = npt.NDArray[np.float32]

__all__ = ["Brightness", "Evidence", "Guess", "Observer", "Palette", "Place", "SeenObject", "Tones", "to_oklab"]

Place = Literal["left", "centre", "right", "foreground"]
Brightness = Literal["dark", "normal", "bright"]

SURE_SCORE = 0.6
"""Of 24 pictures without any of the 80 objects, 2 had a detection above 0.5, none above this."""

STUBBORN_SCORE = 0.65
"""A detected animal that the classifier does not see keeps its name from here on."""

KIND_SHARE = 0.3
"""So much probability on a kind's classes confirms the kind."""

CORRECTION_SHARE = 0.5
REFINEMENT_SHARE = 0.7

ANIMAL_SHARE = 0.4
"""Of the probability that animals would not have by chance; the detector says so as well."""

SCENE_SHARE = 0.6
"""Below this the classifier's word for a whole image is wrong too often to be repeated."""

SCENE_SURE_SHARE = 0.8

SORT_SHARE = 0.6
"""A sort that claims little needs less than this."""

SHARE_OF_EACH = 0.6
"""The whole image and its centre must each give this much of what both must give on average."""

DRAWING_SHARE = 0.25
"""The classifier takes drawings of anything for comic books, and nothing else."""

WEAK_SCORE = 0.3
"""What is found below `DEFAULT_MIN_SCORE` is more often wrong than right. Where nothing else is known, and the
classifier sees the same thing as well, it is said with a "may"."""

WEAK_SUPPORT = 0.25
"""So much probability, beyond chance, on the classes that are what was found."""

FOREGROUND_SHARE = 0.35
MOST_CROPS = 3
"""Each costs one pass of the classifier."""

OVERVIEW_PX = 416
"""Shorter side of the pixels in which an image is looked at as a whole, at least: what `detect` decodes as well."""

ENOUGH_PX = 336
"""A part whose shorter side has as many is looked at in the overview: half as much again as the classifier's input."""

CENTRE_SHARE = 0.875
"""Of the shorter side: the crop that the classifier's published accuracy refers to."""

PALETTE = {
    "red": ("c81e1e", "8c1414", "e0403c", "641414"),
    "orange": ("f07818", "d85c14", "f49a50"),
    "yellow": ("f5d800", "dcb41e", "f2e070"),
    "green": ("2e8b2e", "1e5424", "78b446", "6e8232", "a6c888", "4e6b4a", "28dc28", "283c28", "8a9a70"),
    "turquoise": ("20b0a8", "0f6e6e", "80d2cc", "0a4450", "508c8c"),
    "blue": ("1f5fc8", "4682c8", "5078a0", "0000ff"),
    "dark blue": ("14286e", "1e2a46", "2a3c64"),
    "light blue": ("82b8ea", "a8cce8", "c4dcf0", "78a8be"),
    "purple": ("7a3fa0", "462864", "a98cd2", "6e5a82"),
    "pink": ("f08cb4", "e0508c", "f4c4d0", "ff28ff"),
    "brown": ("78481e", "4a2c18", "9c6c40", "6e5440", "a8562a", "8c5a3c", "2e2018"),
    "beige": ("c8a078", "e2c8a0", "f0e4cc", "b8a488", "dcb496"),
}
"""Each name with typical shades of it, as sRGB in hexadecimal; black, grey and white go by lightness."""

NEUTRAL_CHROMA = 0.025
"""A pixel that is less colourful than this is called black, grey or white."""

BLACK_LIGHTNESS = 0.28
BLACK_CHROMA = 0.05
"""Dark pixels look black up to here."""

WHITE_LIGHTNESS = 0.90
NEUTRALS = ("black", "grey", "white")

SAMPLE_PX = 64
MAIN_SHARE = 0.12
MOST_COLOURS = 3
COLOURFUL_WEIGHT = 4.0
"""Per unit of chroma: a vivid orange pixel counts for nearly two grey ones, as it does to the eye."""

UNIFORM_DEVIATION = 0.02

GREYSCALE_CHROMA = 0.02
"""Below this in OKLab a pixel looks grey; JPEG makes up to 0.01 out of pure grey."""

GREYSCALE_SHARE = 0.99
DARK_LIGHTNESS = 0.30
BRIGHT_LIGHTNESS = 0.88


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The classifier's word for the whole image.

    Attributes:
        label: The word.
        score: Its probability, the mean over the whole image and its centre.
        sure: Whether it may be said without a "probably".
    """

    label: str
    score: float
    sure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenObject:
    """One object.

    Attributes:
        label: What it is, as corrected by the classifier.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tones:
    """What can be said of an image's colours.

    Attributes:
        main: Names of the main colours, the most frequent first.
        uniform: True when all of the image has nearly the same colour.
        greyscale: True when the image has no colour but black, grey and white.
        brightness: Dark or bright by its median lightness.
    """

    main: tuple[str, ...]
    uniform: bool
    greyscale: bool
    brightness: Brightness


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All facts about one image.

    Attributes:
        objects: The objects, most prominent first.
        scene: The classifier's word for the whole; None when it has none that is not said by an object.
        tones: Its colours and brightness.
        text: The lines of text in it, from top to bottom; None when it was not looked for.
        text_complete: False when there was more text than is read, or no time for it.
    """

    objects: tuple[SeenObject, ...]
    scene: Guess | None
    tones: Tones
    text: tuple[TextLine, ...] | None = None
    text_complete: bool = True

    @property
    def informative(self) -> bool:
        """Whether anything but colours was recognised."""
        return bool(self.objects or self.scene or self.text)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {
            "objects": [
                asdict(item)
                | {
                    "score": round(item.score, 4),
                    "share": round(item.share, 4),
                    "xyxy": [round(value, 1) for value in item.xyxy],
                }
                for item in self.objects
            ],
            "scene": self.scene and asdict(self.scene) | {"score": round(self.scene.score, 4)},
            "colours": asdict(self.tones) | {"main": list(self.tones.main)},
            "text": None if self.text is None else [line.to_dict() for line in self.text],
            "text_complete": self.text_complete,
        }


class Observer:
    """Collects the evidence about images.

    Args:
        detector: Finds the objects.
        classifier: Names the whole, and checks what the detector found.
        names: The classifier's class names.
        sorts: The sorts that its classes fall into, the narrower first.
        reader: Reads text; None leaves it unread.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        classifier: Classifier,
        names: Sequence[str],
        sorts: Sequence[Sort],
        reader: Reader | None = None,
    ) -> None:
        self._detector = detector
        self._classifier = classifier
        self._names = names
        self._drawing = names.index(DRAWING)
        self._sorts = sorts
        self._members = np.zeros((len(sorts), len(names)), dtype=np.float32)
        for row, sort in zip(self._members, sorts, strict=True):
            row[list(sort.numbers)] = 1
        self._palette = Palette()
        self._reader = reader

    def observe(
        self,
        image: PILImage.Image,
        *,
        width: int,
        height: int,
        larger: Callable[[], PILImage.Image] | None = None,
        left_s: Callable[[], float] = lambda: math.inf,
        at_once: bool = True,
    ) -> Evidence:
        """Return the evidence about an image.

        Args:
            image: RGB pixels, at any scale.
            width: Width of the upright image that boxes refer to.
            height: Its height.
            larger: Returns as many pixels as text can be read in; ``image`` by default.
            left_s: Tells how much time is left.
            at_once: Whether the whole is looked at in another thread while objects are found and checked.

        Raises:
            NotReadyError: A model file is missing or damaged, or there is nothing to read with.
        """
        by = min(image.size) // OVERVIEW_PX
        with measured("decode"):
            small = image.reduce(by) if by > 1 else image
        overview = partial(self._overview, image, small)
        begun = beside(overview, name="vision-overview") if at_once else None
        candidates = self._detector.detect(small, width=width, height=height, min_score=WEAK_SCORE)
        found = [item for item in candidates if item.score >= DEFAULT_MIN_SCORE]
        checkable = [item for item in found if item.label in KINDS or item.label in REFINEMENTS]
        doubtful = sorted(checkable, key=lambda item: -item.area_px)[:MOST_CROPS]
        checks = {id(item): self._check(item, (small, image), width=width, height=height) for item in doubtful}
        if begun is None:
            tones, views, window = overview()
        else:
            with measured("model"):
                tones, views, window = begun()
        area_px = width * height
        seen = [self._seen(item, checks.get(id(item)), area_px=area_px, width=width) for item in found]
        if not found:
            seen = self._supported(candidates, views, area_px=area_px, width=width)
        reading = Reading()
        if self._reader is not None and window is not None:
            scale = np.array([width / image.width, height / image.height] * 2)
            part = tuple((np.array(window) * scale).tolist())
            pixels = image if larger is None else larger()
            reading = self._reader.read(pixels, window=part, width=width, height=height, left_s=left_s)
        return Evidence(
            objects=tuple(sorted(seen, key=lambda item: -item.share * item.score)),
            scene=self._scene(views, seen),
            tones=tones,
            text=None if self._reader is None else reading.lines,
            text_complete=reading.complete,
        )

    def _overview(self, image: PILImage.Image, small: PILImage.Image) -> tuple[Tones, Floats, Box | None]:
        """Return the tones of an image, the views of the whole and of its centre [2, 1000], and where text may be.

        Args:
            image: Its pixels.
            small: The same, as small as an overview may be.
        """
        side = CENTRE_SHARE * min(small.size)
        left, top = (small.width - side) / 2, (small.height - side) / 2
        boxes = (0.0, 0.0, float(small.width), float(small.height)), (left, top, left + side, top + side)
        tones = self._palette.tones(small)
        views = np.stack([self._classifier.classify(small, box=box) for box in boxes])
        return tones, views, None if self._reader is None else self._reader.window(image, small=small)

    def _check(self, item: Detection, pictures: Sequence[PILImage.Image], *, width: int, height: int) -> Floats:
        """Return the classifier's view of an object [1000], in the first picture that shows it large enough."""
        x1, y1, x2, y2 = item.xyxy
        for picture in pictures:
            across, down = picture.width / width, picture.height / height
            if min((x2 - x1) * across, (y2 - y1) * down) >= ENOUGH_PX:
                break
        return self._classifier.classify(picture, box=(x1 * across, y1 * down, x2 * across, y2 * down))

    def _seen(self, item: Detection, view: Floats | None, *, area_px: int, width: int) -> SeenObject:
        label, sure = (item.label, item.score >= SURE_SCORE) if view is None else self._checked(item, view)
        return _placed(item, label, sure=sure, area_px=area_px, width=width)

    def _supported(
        self, candidates: Sequence[Detection], views: Floats, *, area_px: int, width: int
    ) -> list[SeenObject]:
        """Return the weak detection that the classifier's views of the whole [2, 1000] support best, if any.

        There is none where these say as much by themselves.
        """
        view, sort = views.mean(axis=0), self._sort(views)
        if view.max() >= SCENE_SHARE or (sort is not None and sort[0].share >= SORT_SHARE):
            return []
        supports = [(item, _share(view, self._classes_of(item.label))) for item in candidates]
        said = None if sort is None else sort[0].label
        supported = [(item, share) for item, share in supports if share >= WEAK_SUPPORT and item.label != said]
        best = max(supported, key=lambda each: each[0].score * each[1], default=None)
        return [] if best is None else [_placed(best[0], best[0].label, sure=False, area_px=area_px, width=width)]

    def _classes_of(self, label: str) -> Sequence[int]:
        """Return the classes that are what the detector calls so; none where that is not known."""
        return KINDS.get(label) or [self._names.index(name) for name in REFINEMENTS.get(label, ())]

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

    def _scene(self, views: Floats, seen: Sequence[SeenObject]) -> Guess | None:
        """Return the classifier's word for the whole [2, 1000], unless an object says the same.

        That is one clear class, or else the narrowest sort of classes that both views support.
        """
        view = views.mean(axis=0)
        best = int(view.argmax())
        if view[self._drawing] >= DRAWING_SHARE:
            return Guess(label=DRAWN, score=float(view[self._drawing]), sure=False)
        if view[best] >= SCENE_SHARE:
            label, score, numbers = self._names[best], float(view[best]), frozenset({best})
        elif (found := self._sort(views)) is not None:
            label, score, numbers = found[0].label, found[1], found[0].numbers
        else:
            return None
        words = {label, *(self._names[number] for number in numbers)}
        if label in UNSPOKEN or any(_says_the_same(item, label, words, numbers) for item in seen):
            return None
        return Guess(label=label, score=score, sure=score >= SCENE_SURE_SHARE and len(numbers) == 1)

    def _sort(self, views: Floats) -> tuple[Sort, float] | None:
        """Return the narrowest sort that both views [2, 1000] support, and its share; None where there is none."""
        by_chance = self._members.mean(axis=1)
        # einsum, since a matrix product may wake BLAS threads that then spin beside the models.
        shares = (np.einsum("vc,sc->sv", views, self._members) - by_chance[:, None]) / (1 - by_chance[:, None])
        for sort, share, least in zip(self._sorts, shares.mean(axis=1), shares.min(axis=1), strict=True):
            if share >= sort.share and least >= SHARE_OF_EACH * sort.share:
                return sort, float(share)
        return None


def _placed(item: Detection, label: str, *, sure: bool, area_px: int, width: int) -> SeenObject:
    """Return an object with its place."""
    share = item.area_px / area_px
    middle = (item.xyxy[0] + item.xyxy[2]) / 2 / width
    side: Place = "left" if middle < 1 / 3 else "right" if middle > 2 / 3 else "centre"
    return SeenObject(
        label=label,
        detected_as=item.label,
        score=item.score,
        sure=sure,
        place="foreground" if share >= FOREGROUND_SHARE else side,
        share=share,
        xyxy=item.xyxy,
    )


class Palette:
    """Names the colours of images; made once, then read by any number of threads.

    A pixel takes the name of the nearest shade in OKLab, a space in which distance is close to what the eye sees
    (https://bottosson.github.io/posts/oklab).
    """

    def __init__(self) -> None:
        shades = [(name, shade) for name, group in PALETTE.items() for shade in group]
        self._names = sorted({*PALETTE, *NEUTRALS})
        self._name_of = np.array([self._names.index(name) for name in (*(name for name, _ in shades), *NEUTRALS)])
        of_shades = to_oklab(np.array([list(bytes.fromhex(shade)) for _, shade in shades], dtype=np.uint8))
        self._squares = (of_shades**2).sum(axis=1)
        self._doubled = np.ascontiguousarray(2 * of_shades.T)

    def tones(self, image: PILImage.Image) -> Tones:
        """Return the tones of an RGB image of any size."""
        from PIL import Image

        size = (min(SAMPLE_PX, image.width), min(SAMPLE_PX, image.height))
        sample = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
        lab = to_oklab(np.asarray(sample).reshape(-1, 3))
        lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
        # einsum, since a matrix product this large wakes BLAS threads that then spin for 30 ms beside the models.
        distances = self._squares - np.einsum("pc,cs->ps", lab, self._doubled)
        neutral = np.searchsorted([BLACK_LIGHTNESS, WHITE_LIGHTNESS], lightness)
        grey = chroma < np.where(lightness < BLACK_LIGHTNESS, BLACK_CHROMA, NEUTRAL_CHROMA)
        named = self._name_of[np.where(grey, len(self._squares) + neutral, np.argmin(distances, axis=1))]
        weights = np.bincount(named, weights=1 + COLOURFUL_WEIGHT * chroma)
        seen = np.flatnonzero(weights)
        shares = dict(
            zip([self._names[name] for name in seen], (weights[seen] / weights[seen].sum()).tolist(), strict=True)
        )
        ranked = sorted(shares, key=lambda name: (-shares[name], name))
        main = [name for name in ranked if shares[name] >= MAIN_SHARE] or ranked[:1]
        overall = _median(lightness)
        return Tones(
            main=tuple(main[:MOST_COLOURS]),
            uniform=bool(lab.std(axis=0).max() < UNIFORM_DEVIATION),
            greyscale=bool((chroma < GREYSCALE_CHROMA).mean() >= GREYSCALE_SHARE),
            brightness="dark" if overall < DARK_LIGHTNESS else "bright" if overall > BRIGHT_LIGHTNESS else "normal",
        )


def _median(values: Floats) -> float:
    """Return the median; numpy's own imports all of ``numpy.ma`` for it."""
    middle = [(len(values) - 1) // 2, len(values) // 2]
    return float(np.partition(values, middle)[middle].mean())


def to_oklab(rgb: npt.NDArray[np.uint8]) -> Floats:
    """Return lightness, green-red and blue-yellow for sRGB pixels [P, 3]; Björn Ottosson's matrices."""
    values = rgb.astype(np.float32) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ],
        dtype=np.float32,
    )
    from_cones = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ],
        dtype=np.float32,
    )
    lab: Floats = np.cbrt(linear.astype(np.float32) @ to_cones.T) @ from_cones.T
    return lab


def _share(view: Floats, numbers: Sequence[int]) -> float:
    """Return how much of what is beyond chance a view [1000] gives to some classes; 1 when all of it."""
    by_chance = len(numbers) / len(view)
    return (float(view[list(numbers)].sum()) - by_chance) / (1 - by_chance)


def _says_the_same(item: SeenObject, label: str, words: set[str], numbers: frozenset[int]) -> bool:
    """Return whether an object already says what a word for the whole, or one of its classes, would."""
    if item.detected_as in MEMBERS.get(label, ()):
        return True
    if item.detected_as in KINDS and numbers <= set(ANIMALS):
        return True
    own = {item.label, item.detected_as, *REFINEMENTS.get(item.detected_as, ())}
    return bool(words & own) or any(item.detected_as in word.split() for word in words)
