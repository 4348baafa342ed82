"""The records that callers receive: answers, and an account of where each came from.

This module decides the shape of results and what makes one valid. It must not know how any of them is made:
no backend, no file format, no configuration. Arrays are numpy's, which is imported only when one is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.arguments import shown
from vision_backends.errors import InvalidRequestError, SpaceMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt
    from PIL import Image as PILImage

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

Task = Literal["describe", "embed", "embed_text", "detect", "ask"]
"""What can be asked of a backend."""

TASKS: tuple[Task, ...] = ("describe", "embed", "embed_text", "detect")
"""The tasks that every ladder has; ``ask`` goes down that of ``describe`` to the rungs that follow instructions."""

Purpose = Literal["describe", "embed", "embed_text", "detect", "ask", "probe"]
"""What a backend is asked for, as the ledger has it: a task of the user's, or finding out what its server can do."""

Outcome = Literal["answered", "cached", "failed", "skipped"]
"""How one attempt ended; ``skipped`` means that the backend was not asked at all."""


MAX_TOKENS = 10**12
MAX_USD = 1e9
"""More than the whole world asks in a day: a count beyond is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an answer consumed; ``None`` means unknown, never 0.

    Numbers that nobody can have consumed, such as negative ones or NaN, become unknown.

    Attributes:
        input_tokens: Billed tokens sent.
        output_tokens: Billed tokens received.
        cost_usd: Money in US dollars.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    def __post_init__(self) -> None:
        for name, most in (("input_tokens", MAX_TOKENS), ("output_tokens", MAX_TOKENS), ("cost_usd", MAX_USD)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                object.__setattr__(self, name, None)

    def __add__(self, other: Usage) -> Usage:
        """Add two usages; what is unknown in either is unknown in the sum."""
        return Usage(
            input_tokens=_sum(self.input_tokens, other.input_tokens),
            output_tokens=_sum(self.output_tokens, other.output_tokens),
            cost_usd=_sum(self.cost_usd, other.cost_usd),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return _fields_to_dict(self)


FREE = Usage(input_tokens=0, output_tokens=0, cost_usd=0.0)
"""The usage of a backend that costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The outcome of asking, or of not asking, one rung.

    Attributes:
        backend: Name of the backend.
        outcome: How it ended.
        model: The model that was or would have been asked.
        error: Kind of the error, such as ``"quota_exhausted"`` (see ``VisionError.kind``); None on success.
        message: What happened, in a sentence.
        remedy: What the reader can do about it.
        code: The provider's own error code.
        status: HTTP status.
        request_id: The provider's id of the request.
        at: When it ended, in seconds since 1970 UTC.
        elapsed_s: Seconds spent on this attempt.
        usage: What it consumed; a failed attempt may have been billed, and its cost is then unknown (None).
        retry_after_s: Seconds after which the rung may be asked again, where that is known.
    """

    backend: str
    outcome: Outcome
    model: str | None = None
    error: str | None = None
    message: str | None = None
    remedy: str | None = None
    code: str | None = None
    status: int | None = None
    request_id: str | None = None
    at: float = 0.0
    elapsed_s: float = 0.0
    usage: Usage = FREE
    retry_after_s: float | None = None

    @property
    def is_miss(self) -> bool:
        """Whether the rung should have answered and has not; one that cannot do it at all is not even asked."""
        return self.error is not None and not (self.outcome == "skipped" and self.error == "not_supported")

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return _fields_to_dict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What was found out about a model of a server.

    Attributes:
        model: The model that looks at images.
        sees: Whether it does; None where its answers say neither.
        at: When that was found out, in seconds since 1970 UTC.
        follows_schemas: Whether it answers in JSON that follows a schema without being told so in words; None where
            that is not known.
        refuses: The fields of requests that the server refuses, or does not follow.
        questions: How many questions were asked for it now; 0 for what was known before.
        usage: What they have consumed.
    """

    model: str
    sees: bool | None
    at: float
    follows_schemas: bool | None = None
    refuses: tuple[str, ...] = ()
    questions: int = 0
    usage: Usage = FREE

    def __str__(self) -> str:
        sight = "answers neither like one that sees images nor like one that does not"
        if self.sees is not None:
            sight = "sees images" if self.sees else "sees no images"
        day = f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%d}"
        parts = [f"{self.model} {sight} (found out on {day})"]
        if self.follows_schemas is not None:
            parts.append("follows JSON schemas" if self.follows_schemas else "is asked for JSON in words")
        if self.refuses:
            parts.append(f"its server refuses {', '.join(self.refuses)}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return _fields_to_dict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time of an answer went, as far as it was measured; ``None`` means unknown, never 0.

    Time that the inputs of one batch shared counts in full for each of them. Parts may overlap, and some time belongs
    to none, such as loading a model: their sum is not the elapsed time.

    Attributes:
        decode_s: Seconds from the file to what the model or the server takes: reading, decoding, scaling, encoding.
        queue_s: Seconds spent waiting for other callers of the same model.
        model_s: Seconds of computing on this machine.
        wire_s: Seconds from sending requests to having read the replies.
    """

    decode_s: float | None = None
    queue_s: float | None = None
    model_s: float | None = None
    wire_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return _fields_to_dict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Who gave an answer, and what it took to get it.

    A backend fills in ``model``, ``revision``, ``usage``, ``flawed_boxes``, ``timing`` and ``notes`` of its own; the
    router fills in the rest.

    Attributes:
        backend: Name of the backend that answered.
        model: The model that answered.
        revision: The exact version of that model, where it has one, or what the server calls the model that answered.
        degraded: True when a better rung could have been asked for this but did not answer.
        reason: Why it is degraded, in one line; None when it is not.
        cached: True when the answer came from the cache.
        attempts: Every rung that was considered, best first; the last one answered.
        usage: What this answer cost, failed attempts included; a cached answer costs nothing.
        elapsed_s: Seconds from the call to the answer.
        flawed_boxes: How many boxes of the reply were mended or left out, because they were inside out, outside of the
            image, of a label that was not asked for, or no boxes at all.
        notes: What was wrong with the input although it was answered, in a sentence each: a little of an image was
            missing, or it was wholly transparent; a text was cut off.
        timing: Where the time of the attempt that answered went; None for a cached answer, and where the backend
            does not measure it. It is ignored when traces are compared.
    """

    backend: str = ""
    model: str | None = None
    revision: str | None = None
    degraded: bool = False
    reason: str | None = None
    cached: bool = False
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = Usage()
    elapsed_s: float = 0.0
    flawed_boxes: int = 0
    notes: tuple[str, ...] = ()
    timing: Timing | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return _fields_to_dict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A text about an image; ``str(description)`` is the text.

    Attributes:
        text: The description, or the answer to the prompt.
        language: BCP 47 tag of the text, where it is known.
        complete: False when the text was cut at the model's length limit, or nobody says that it was not.
        evidence: JSON-able facts that the text was made from; None for free captions.
        trace: Who said it.
    """

    text: str
    language: str | None = None
    complete: bool = True
    evidence: Mapping[str, Any] | None = None
    trace: Trace = Trace()

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return _fields_to_dict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a question about images; ``str(reply)`` is the text.

    Attributes:
        text: What was said; where a schema was given, the JSON of it and whatever stood around that.
        data: What the schema describes, read and validated: JSON values, or an instance of the class that was given.
            None where none was given.
        complete: False when the text was cut at the model's length limit, or nobody says that it was not.
        trace: Who said it.
    """

    text: str
    data: Any = None
    complete: bool = True
    trace: Trace = Trace()

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        dump = getattr(self.data, "model_dump", None)  # of an instance of pydantic's
        return _fields_to_dict(self) | {"data": self.data if dump is None else dump(mode="json")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding:
    """One vector and its vector space.

    Attributes:
        vector: float32 array of shape [D], L2-normalised, read-only.
        space: Name of the vector space; vectors of different spaces cannot be compared.
        trace: Who made it.

    Raises:
        ValueError: The vector is not one-dimensional, not finite or not of length 1 (± 1e-3).
    """

    vector: npt.NDArray[np.float32]
    space: str
    trace: Trace = Trace()

    def __post_init__(self) -> None:
        import numpy as np

        vector = np.array(self.vector, dtype=np.float32)  # a copy that no one else can write to
        if vector.ndim != 1 or vector.size == 0:
            raise ValueError(f"An embedding is a vector of shape [D], not {vector.shape}.")
        norm = float(np.linalg.norm(vector))
        if not math.isclose(norm, 1.0, abs_tol=1e-3):
            raise ValueError(f"An embedding has length 1, not {norm:.4g}.")
        vector.flags.writeable = False
        object.__setattr__(self, "vector", vector)

    @property
    def dimension(self) -> int:
        """D, the number of components."""
        return int(self.vector.size)

    def similarity(self, other: Embedding) -> float:
        """Return the cosine similarity to another embedding of the same space, in [-1, 1].

        Raises:
            SpaceMismatchError: The spaces differ.
            InvalidRequestError: It is no embedding.
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

        same = self.space == other.space and self.trace == other.trace
        return same and np.array_equal(self.vector, other.vector)

    __hash__ = None  # type: ignore[assignment]  # holds an array

    def __reduce__(self) -> tuple[Callable[[], Embedding], tuple[()]]:
        """Copy and unpickle through the constructor, because numpy forgets that an array is read-only."""
        return partial(type(self), vector=self.vector, space=self.space, trace=self.trace), ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values; the vector is a list of D floats."""
        return {
            "vector": self.vector.tolist(),
            "space": self.space,
            "dimension": self.dimension,
            "trace": self.trace.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One object in an image.

    Attributes:
        label: What it is, in the vocabulary that was asked for.
        score: Confidence in [0, 1].
        xyxy: Left, top, right and bottom in pixels of the upright image, with x1 < x2 and y1 < y2.
        category_id: COCO's id of the label (1 to 90), None where the label is not one of COCO's.

    Raises:
        ValueError: The box is empty or inside out, or the score is not in [0, 1].
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

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return _fields_to_dict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLabel:
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

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return _fields_to_dict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """The objects of one image, best score first; iterates over its ``Detection`` records.

    Attributes:
        items: The objects, sorted by falling score.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        image_labels: Labels asked for that fit the image as a whole and have no box, sorted by falling score; only a
            rung that cannot localise everything has any.
        trace: Who found them.

    Raises:
        ValueError: A box reaches outside the image.
    """

    items: tuple[Detection, ...]
    width: int
    height: int
    image_labels: tuple[ImageLabel, ...] = ()
    trace: Trace = Trace()

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

    def __getitem__(self, index: int) -> Detection:
        return self.items[index]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return _fields_to_dict(self)

    def to_coco(self, *, image_id: int, categories: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
        """Return COCO result rows: ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``.

        Args:
            image_id: The image's id in the COCO file that the results belong to.
            categories: Label to category id, for labels that are not COCO's own.

        Raises:
            InvalidRequestError: A label has no category id, or the categories are no mapping.
        """
        if categories is not None and not isinstance(categories, Mapping):
            raise InvalidRequestError(
                f"categories={shown(categories)} gives no label an id.", remedy='Pass categories={"cat": 17}.'
            )
        rows = []
        for item in self.items:
            category = item.category_id if categories is None else categories.get(item.label)
            if category is None:
                raise InvalidRequestError(
                    f"The label {item.label!r} has no COCO category.",
                    remedy="Pass categories={label: id} to to_coco.",
                )
            x1, y1, x2, y2 = item.xyxy
            box = [x1, y1, x2 - x1, y2 - y1]
            rows.append({"image_id": image_id, "category_id": category, "bbox": box, "score": item.score})
        return rows

    def to_supervision(self) -> Any:  # noqa: ANN401 — supervision is not a dependency
        """Return a ``supervision.Detections`` with ``data["class_name"]``.

        Raises:
            ModuleNotFoundError: supervision is not installed.
        """
        import numpy as np
        import supervision

        unknown = -1
        return supervision.Detections(
            xyxy=np.array([item.xyxy for item in self.items], dtype=np.float32).reshape(-1, 4),
            confidence=np.array([item.score for item in self.items], dtype=np.float32),
            class_id=np.array([item.category_id or unknown for item in self.items], dtype=int),
            data={"class_name": np.array([item.label for item in self.items], dtype=str)},
        )

    def draw(self, image: PILImage.Image) -> PILImage.Image:
        """Return an RGB copy of an upright image with the boxes drawn on it.

        The image may have any size; boxes are scaled from ``width`` × ``height`` to it.

        Raises:
            InvalidRequestError: It is no PIL image.
        """
        from PIL import Image as PILImage

        from vision_backends.drawing import draw_boxes

        if not isinstance(image, PILImage.Image):
            raise InvalidRequestError(
                f"draw() takes a PIL image, not {shown(image)}.",
                remedy="Pass PIL.Image.open(path), or open_image(…).rgb(), which is upright.",
            )
        sx, sy = image.width / self.width, image.height / self.height
        boxes = [
            (f"{item.label} {item.score:.2f}", (x1 * sx, y1 * sy, x2 * sx, y2 * sy))
            for item in self.items
            for x1, y1, x2, y2 in (item.xyxy,)
        ]
        return draw_boxes(image, boxes)


def _sum(a: float | None, b: float | None) -> Any:  # noqa: ANN401 — int stays int, float stays float
    return None if a is None or b is None else a + b


def _fields_to_dict(record: Any) -> dict[str, Any]:  # noqa: ANN401 — any of the records above
    return {spec.name: _jsonable(getattr(record, spec.name)) for spec in fields(record)}


def _jsonable(value: Any) -> Any:  # noqa: ANN401 — whatever a record holds
    if is_dataclass(value) and not isinstance(value, type):
        return value.to_dict()  # type: ignore[attr-defined]  # every record has it
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    return value
