"""The answers that callers receive.

This module decides the shape of answers and what makes one valid. It must not know how any of them is made: no backend,
no configuration. How they look and which files they become is in `results`; the accounts in them are in `traces`.
Arrays are numpy's, which is imported only when one is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping  # noqa: TC003 — `read_record` looks annotations up
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast, overload

from vision_backends.arguments import check_number, check_text, iterate, shown
from vision_backends.errors import InvalidRequestError, SpaceMismatchError
from vision_backends.results import selection
from vision_backends.serialization import Record, VersionedRecord, read_record, to_versioned
from vision_backends.traces import (
    FREE,
    TASKS,
    UNTRACED,
    Attempt,
    Outcome,
    ProbeReport,
    Purpose,
    Task,
    Timing,
    Trace,
    Usage,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.images import ImageSource
    from vision_backends.results.pictures import WithPicture
    from vision_backends.results.selection import Places

__all__ = [
    "FREE",
    "TASKS",
    "Attempt",
    "Description",
    "Detection",
    "Detections",
    "Embedding",
    "ImageLabel",
    "Outcome",
    "ProbeReport",
    "Purpose",
    "Reply",
    "Task",
    "Timing",
    "Trace",
    "Usage",
]


class _Answer(VersionedRecord):
    """What all answers about images have in common: they are kept, and shown with their picture."""

    __slots__ = ()

    def save(self, path: str | os.PathLike[str], *, image: ImageSource | None = None) -> None:
        """Write the answer to a file whose name ends in .json (read again by `from_dict`) or .html (with its picture).

        Detections also go to .jpg, .png or .webp: the image with its boxes.

        Args:
            path: The file; one that is there is replaced.
            image: What it was asked about, where that has no path or has moved.

        Raises:
            InvalidRequestError: The name says another format, or is that of the image; the file cannot be written.
        """
        from vision_backends.results.files import save

        save(self, path, image=image)

    def show(self, *, image: ImageSource | None = None) -> None:
        """Show the answer with its picture: in a notebook below the cell, otherwise in a viewer of pictures.

        Args:
            image: What it was asked about, where that has no path or has moved.

        Raises:
            InvalidRequestError: There is no image to show it with.
        """
        from vision_backends.results.display import show

        show(cast("WithPicture", self), image=image)

    def _repr_html_(self) -> str:
        from vision_backends.results.cards import card

        return card(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description(_Answer):
    """A text about an image; ``str(description)`` is the text.

    Attributes:
        text: The description, or the answer to the prompt.
        language: BCP 47 tag of the text, where it is known.
        complete: False when the text was cut at the model's length limit, or nobody says that it was not.
        evidence: JSON-able facts that the text was made from; None for free captions.
        informative: False when the rung recognised nothing and the text says only that, and colours. A rung that cannot
            tell is taken to have recognised something.
        source: Path or name of the image as the caller gave it; None for bytes and pixels, which have none. The image
            itself is not kept.
        trace: Who said it.

    Examples:
        >>> answer = router.describe("cat.jpg")
        >>> str(answer) == answer.text
        True
        >>> answer.language, answer.complete, answer.source
        ('en', True, 'cat.jpg')
    """

    text: str
    language: str | None = None
    complete: bool = True
    evidence: Mapping[str, Any] | None = None
    informative: bool = True
    source: str | None = None
    trace: Trace = UNTRACED

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Description {_cut(self.text)}{_said_by(self)}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply(_Answer):
    """The answer to a question about images; ``str(reply)`` is the text.

    Attributes:
        text: What was said; where a schema was given, the JSON of it and whatever stood around that.
        data: What the schema describes, read and validated: JSON values, or an instance of the class that was given.
            None where none was given. What `from_dict` reads has JSON values.
        complete: False when the text was cut at the model's length limit, or nobody says that it was not.
        sources: Paths or names of the images in their order, as the caller gave them; None for bytes and pixels. The
            images themselves are not kept.
        trace: Who said it.

    Examples:
        >>> from vision_backends import Reply
        >>> reply = Reply(text='{"cats": 2}', data={"cats": 2}, sources=("cat.jpg",))
        >>> reply.data["cats"], str(reply), reply.source
        (2, '{"cats": 2}', 'cat.jpg')
    """

    text: str
    data: Any = None
    complete: bool = True
    sources: tuple[str | None, ...] = ()
    trace: Trace = UNTRACED

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Reply {_cut(self.text if self.data is None else repr(self.data))}{_said_by(self)}>"

    @property
    def source(self) -> str | None:
        """Path or name of the image, where there was only one."""
        return self.sources[0] if len(self.sources) == 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        dump = getattr(self.data, "model_dump", None)  # of an instance of pydantic's
        return to_versioned(self) | {"source": self.source} | {"data": self.data if dump is None else dump(mode="json")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(VersionedRecord):
    """One vector and its vector space.

    Attributes:
        vector: float32 array of shape [D], L2-normalised, read-only.
        space: Name of the vector space; vectors of different spaces cannot be compared.
        source: Path or name of the image as the caller gave it; None for bytes and pixels, and for texts.
        trace: Who made it.

    Raises:
        ValueError: The vector is not one-dimensional, not finite or not of length 1 (± 1e-3).

    Examples:
        >>> import numpy as np
        >>> cat, rocket = router.embed_many(["cat.jpg", "rocket.jpg"])
        >>> np.stack([cat, rocket]).shape
        (2, 1280)
    """

    vector: npt.NDArray[np.float32]
    space: str
    source: str | None = None
    trace: Trace = UNTRACED

    def __post_init__(self) -> None:
        import numpy as np

        vector = np.asarray(self.vector, dtype=np.float32)
        if vector.ndim != 1 or vector.size == 0:
            raise ValueError(f"An embedding is a vector of shape [D], not {vector.shape}.")
        if not _is_constant(vector):
            vector = np.frombuffer(vector.tobytes(), dtype=np.float32)
        norm = float(np.linalg.norm(vector))
        if not math.isclose(norm, 1.0, abs_tol=1e-3):
            raise ValueError(f"An embedding has length 1, not {norm:.4g}.")
        object.__setattr__(self, "vector", vector)

    @property
    def dimension(self) -> int:
        """D, the number of components."""
        return int(self.vector.size)

    def __repr__(self) -> str:
        return f"<Embedding of {self.dimension} components in {self.space!r}{_said_by(self)}>"

    def similarity(self, other: Embedding) -> float:
        """Return the cosine similarity to another embedding of the same space, in [-1, 1].

        Raises:
            SpaceMismatchError: The spaces differ.
            InvalidRequestError: It is no embedding.

        Examples:
            >>> cat = router.embed("cat.jpg")
            >>> round(cat.similarity(cat), 3)
            1.0
        """
        if not isinstance(other, Embedding):
            raise InvalidRequestError(
                f"similarity() takes an Embedding, not {shown(other)}.",
                remedy="Pass what embed or embed_text returned.",
            )
        if self.space != other.space:
            raise SpaceMismatchError(
                f"Vectors of {self.space!r} and {other.space!r} cannot be compared.",
                remedy="Embed both in one space: pass space= to embed and embed_text.",
            )
        return max(-1.0, min(1.0, float(self.vector @ other.vector)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 — numpy's protocol
        import numpy as np

        return np.array(self.vector, dtype=dtype, copy=copy)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Embedding):
            return NotImplemented
        import numpy as np

        same = (self.space, self.source, self.trace) == (other.space, other.source, other.trace)
        return same and np.array_equal(self.vector, other.vector)

    __hash__ = None  # type: ignore[assignment]  # holds an array

    def __reduce__(self) -> tuple[Callable[[], Embedding], tuple[()]]:
        """Copy and unpickle through the constructor, because numpy forgets that an array is read-only."""
        again = partial(type(self), vector=self.vector, space=self.space, source=self.source, trace=self.trace)
        return again, ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values; the vector is a list of D floats."""
        return to_versioned(self) | {"vector": self.vector.tolist(), "dimension": self.dimension}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read again what `to_dict` returned; errors as in `Description.from_dict`."""
        return read_record(cls, values, hints={"vector": list[float]})

    def _repr_html_(self) -> str:
        from vision_backends.results.cards import card

        return card(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection(Record):
    """One object in an image.

    Attributes:
        label: What it is, in the vocabulary that was asked for.
        score: Confidence in [0, 1].
        xyxy: Left, top, right and bottom in pixels of the upright image, with x1 < x2 and y1 < y2.
        category_id: COCO's id of the label (1 to 90), None where the label is not one of COCO's.

    Raises:
        ValueError: The box is empty or inside out, or the score is not in [0, 1].

    Examples:
        >>> from vision_backends import Detection
        >>> box = Detection(label="cat", score=0.9, xyxy=(10, 20, 110, 70))
        >>> box.area_px
        5000.0
    """

    label: str
    score: float
    xyxy: tuple[float, float, float, float]
    category_id: int | None = None

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = (float(side) for side in self.xyxy)  # numpy's floats are not JSON
        object.__setattr__(self, "xyxy", (x1, y1, x2, y2))
        object.__setattr__(self, "score", float(self.score))
        if not (x1 < x2 and y1 < y2 and all(map(math.isfinite, self.xyxy))):
            raise ValueError(f"The box {self.xyxy} is not finite with x1 < x2 and y1 < y2.")
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"The score {self.score} is not in [0, 1].")

    @property
    def area_px(self) -> float:
        """Area of the box in square pixels."""
        x1, y1, x2, y2 = self.xyxy
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLabel(Record):
    """Something that is known of an image as a whole, not where in it.

    Attributes:
        label: What it is, in the words that were asked for.
        score: Confidence in [0, 1].

    Raises:
        ValueError: The score is not in [0, 1].
    """

    label: str
    score: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", float(self.score))  # numpy's floats are not JSON
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"The score {self.score} is not in [0, 1].")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections(_Answer):
    """The objects of one image, best score first; iterates over its ``Detection`` records.

    ``found[0]`` is the best of them. A slice, a mask or places (``found[:3]``, ``found[found.scores > 0.5]``,
    ``found[[0, 2]]``) give `Detections` of these objects, and ``found + other`` those of both. What is known of the
    whole image has no place in the sequence, so it stays with each part.

    Attributes:
        items: The objects, sorted by falling score.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        image_labels: Labels asked for that fit the image as a whole and have no box, sorted by falling score; only a
            rung that cannot localise everything has any.
        source: Path or name of the image as the caller gave it; None for bytes and pixels, which have none. The image
            itself is not kept.
        trace: Who found them.

    Raises:
        ValueError: A box reaches outside the image.

    Examples:
        >>> found = router.detect("astronaut.jpg")
        >>> found[0].label, len(found[:1]), len(found[found.scores > 0.99])
        ('person', 1, 0)
        >>> (found + found).labels.tolist()
        ['person', 'person']
    """

    items: tuple[Detection, ...]
    width: int
    height: int
    image_labels: tuple[ImageLabel, ...] = ()
    source: str | None = None
    trace: Trace = UNTRACED

    def __post_init__(self) -> None:
        for item in self.items:
            x1, y1, x2, y2 = item.xyxy
            if x1 < 0 or y1 < 0 or x2 > self.width or y2 > self.height:
                raise ValueError(f"{item.xyxy} reaches outside an image of {self.width}×{self.height} px.")
        ordered = tuple(sorted(self.items, key=lambda item: -item.score))
        object.__setattr__(self, "items", ordered)
        if self.image_labels:
            ranked = tuple(sorted(self.image_labels, key=lambda item: -item.score))
            object.__setattr__(self, "image_labels", ranked)

    def __iter__(self) -> Iterator[Detection]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        found = [f"{item.label} {item.score:.2f}" for item in self.items[:_SHOWN_ITEMS]]
        found += ["…"] * (len(self.items) > _SHOWN_ITEMS)
        whole = f"; of the whole: {', '.join(item.label for item in self.image_labels)}" if self.image_labels else ""
        size = f"in {self.width}×{self.height} px"
        return f"<Detections: {len(self)} {size}{': ' if found else ''}{', '.join(found)}{whole}{_said_by(self)}>"

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice | Places) -> Self: ...

    def __getitem__(self, index: int | slice | Places) -> Detection | Self:
        places = selection.places(index, len(self.items))
        if isinstance(places, int):
            return self.items[places]
        return replace(self, items=tuple(self.items[place] for place in places))

    def __add__(self, other: Detections) -> Detections:
        return selection.merged([self, other])

    @staticmethod
    def merge(parts: Iterable[Detections]) -> Detections:
        """Return the objects of several answers about one image; equal ones are kept as often as they come.

        Of several labels of the whole image that are the same the best score counts, and one with a box has none. Where
        the parts are of several answers, the trace adds these up.

        Raises:
            InvalidRequestError: There are none, or they are of different images.

        Examples:
            >>> from vision_backends import Detections
            >>> once = router.detect("astronaut.jpg")
            >>> len(Detections.merge([once, once]))
            2
        """
        return selection.merged(parts)

    @property
    def xyxy(self) -> npt.NDArray[np.float32]:
        """float32 array [N, 4]: left, top, right and bottom of each box in pixels of the upright image."""
        import numpy as np

        return np.array([item.xyxy for item in self.items], dtype=np.float32).reshape(-1, 4)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """float32 array [N]: the confidence of each box."""
        import numpy as np

        return np.array([item.score for item in self.items], dtype=np.float32)

    @property
    def labels(self) -> npt.NDArray[np.str_]:
        """Array [N] of strings: the label of each box, so that ``found[found.labels == "cat"]`` are the cats."""
        import numpy as np

        return np.array([item.label for item in self.items], dtype=np.str_)

    def filter(
        self,
        labels: str | Iterable[str] | None = None,
        *,
        min_score: float = 0.0,
        max_score: float = 1.0,
        min_area_px: float = 0.0,
    ) -> Self:
        """Return what has one of these labels and a score in this range, of the whole image as well.

        Args:
            labels: One label or several; None for all.
            min_score: Least score.
            max_score: Largest score.
            min_area_px: Least area of a box in square pixels; labels of the whole image have none.

        Raises:
            InvalidRequestError: An argument is of the wrong type.

        Examples:
            >>> found = router.detect("astronaut.jpg")
            >>> len(found.filter(["person"], min_score=0.5)), len(found.filter(["dog"]))
            (1, 0)
        """
        wanted = _wanted(labels)
        for name, number in (("min_score", min_score), ("max_score", max_score), ("min_area_px", min_area_px)):
            check_number(name, number, example=0.5, optional=False)

        def fits(item: Detection | ImageLabel) -> bool:
            return (wanted is None or item.label in wanted) and min_score <= item.score <= max_score

        return replace(
            self,
            items=tuple(item for item in self.items if fits(item) and item.area_px >= min_area_px),
            image_labels=tuple(filter(fits, self.image_labels)),
        )

    def to_coco(self, *, image_id: int, categories: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
        """Return COCO result rows: ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``.

        `vision_backends.results.to_coco` makes a data set of several.

        Args:
            image_id: The image's id in the COCO file that the results belong to.
            categories: Label to category id, for labels that are not COCO's own.

        Raises:
            InvalidRequestError: A label has no category id, or the categories are no mapping.

        Examples:
            >>> router.detect("astronaut.jpg").to_coco(image_id=7)
            [{'image_id': 7, 'category_id': 1, 'bbox': [...], 'score': 0.7...}]
        """
        from vision_backends.results.datasets import coco_rows

        return coco_rows(self, image_id=image_id, categories=categories)

    def to_supervision(self, *, classes: Sequence[str] | None = None) -> Any:  # noqa: ANN401 — supervision is not a dependency
        """Return a ``supervision.Detections`` with ``data["class_name"]``.

        Args:
            classes: The labels in the order of their ids, from 0, such as those that were asked for: the ids of several
                images then agree. By default a label of COCO's has COCO's id (1 to 90), and the others have 91 and more
                in the order of the alphabet.

        Raises:
            ConfigError: supervision is not installed.
            InvalidRequestError: A label is none of the classes.
        """
        from vision_backends.results.tables import to_supervision

        return to_supervision(self, classes=classes)

    def to_pandas(self) -> Any:  # noqa: ANN401 — pandas is not a dependency
        """Return a ``pandas.DataFrame`` with a row for each object, as `vision_backends.results.to_rows` has them.

        Raises:
            ConfigError: pandas is not installed.
        """
        from vision_backends.results.tables import to_pandas

        return to_pandas(self)

    def to_polars(self) -> Any:  # noqa: ANN401 — polars is not a dependency
        """Return a ``polars.DataFrame`` with a row for each object, as `vision_backends.results.to_rows` has them.

        Raises:
            ConfigError: polars is not installed.
        """
        from vision_backends.results.tables import to_polars

        return to_polars(self)

    def draw(self, image: ImageSource | None = None) -> PILImage.Image:
        """Return an upright RGB copy of the image with the boxes drawn on it.

        Args:
            image: What to draw on, in any size: boxes are scaled to it. By default it is opened again from
                `source`.

        Raises:
            InvalidRequestError: There is no image to draw on, it cannot be opened, or the file has another size now.

        Examples:
            >>> router.detect("astronaut.jpg").draw().size
            (512, 512)
        """
        from vision_backends.results.pictures import picture

        return picture(self, image)

    def plot(self, *, image: ImageSource | None = None, ax: Any = None) -> Any:  # noqa: ANN401 — matplotlib is not a dependency
        """Draw the image with its boxes on axes of matplotlib's, and return these.

        Args:
            image: As for `draw`.
            ax: The axes; by default those of a new figure.

        Raises:
            ConfigError: matplotlib is not installed.
            InvalidRequestError: As for `draw`.
        """
        from vision_backends.results.display import plot

        return plot(self, image=image, ax=ax)


_SHOWN_ITEMS = 4
_SHOWN_CHARS = 60
"""What of an answer its ``repr`` shows."""


def _cut(text: str) -> str:
    """Return a text in quotes, on one line and cut if it is long."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…")


def _is_constant(vector: npt.NDArray[np.float32]) -> bool:
    """Return whether a vector can never be written to, as that of another record: one copy serves both."""
    owner: object = vector.base
    return isinstance(owner, bytes) and len(owner) == vector.nbytes


def _said_by(answer: Description | Reply | Embedding | Detections) -> str:
    """Return who gave an answer, for its ``repr``."""
    trace = answer.trace
    source = f" of {answer.source!r}" if answer.source else ""
    by = f" by {trace.backend}" if trace.backend else ""
    return f"{source}{by}{', degraded' if trace.degraded else ''}"


def _wanted(labels: str | Iterable[str] | None) -> frozenset[str] | None:
    """Return the labels to keep; None for all."""
    if labels is None or isinstance(labels, str):
        return None if labels is None else frozenset({labels})
    wanted = iterate("labels", labels, remedy='Write for example: labels=["cat", "dog"]')
    for label in wanted:
        check_text("labels", label, example='["cat", "dog"]')
    return frozenset(wanted)
