"""Objects and their boxes: a closed vocabulary with the DETR family, any labels with Grounding DINO and OWL.

This module decides how scores and boxes become detections. It must not know where models come from.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from vision_backends.backends.local.hub.labels import NO_CLASS
from vision_backends.backends.local.models.reading import AS_LETTERS, SHOWN, Reading, as_far_as_read
from vision_backends.backends.local.runtime.loaded_model import aspect
from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.vocabulary import match_labels
from vision_backends.errors import InvalidReplyError, NotReadyError, NotSupportedError
from vision_backends.types import Detection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from vision_backends.backends.local.runtime.loaded_model import Inputs, LoadedModel
    from vision_backends.backends.local.runtime.micro_batcher import Wanted
    from vision_backends.clock import Deadline
    from vision_backends.images import Image

    Spans = Sequence[Sequence[int]]
    _Read = tuple[Sequence[str], Inputs, Spans | None, tuple[str, ...]]

__all__ = ["ClosedDetector", "OpenDetector", "vocabulary"]

MOST_DISTANCE = 0.005
"""Largest difference in a score, or in a side of a box as a fraction of the image's: 3 pixels at 640."""

MOST_STRAYS = 0.05

OPEN_MIN_SCORES = {"grounding-dino": 0.35, "mm-grounding-dino": 0.35, "owlv2": 0.1, "owlvit": 0.1}
"""Lowest scores by kind, as their publishers use them: https://github.com/IDEA-Research/GroundingDINO (demo), and
https://huggingface.co/docs/transformers/model_doc/owlv2."""


def vocabulary(labels: Mapping[int, str]) -> dict[int, tuple[str, int | None]]:
    """Return the name of each class number, and its COCO id.

    A vocabulary of COCO's objects, however they are spelled ("motorbike", "tvmonitor"), gets COCO's own names, so
    that all rungs use the same ones. Any other keeps its own names and has no ids: its "mouse" may be an animal.
    """
    coco = coco_categories()
    words = {number: label for number, label in labels.items() if label != NO_CLASS}
    meanings = match_labels(tuple(words.values()), known=coco)
    if set(meanings.values()) >= set(coco) or (words and None not in meanings.values()):
        names = {number: meanings[label] or label for number, label in words.items()}
        return {number: (name, coco.get(name)) for number, name in names.items()}
    return {number: (label, None) for number, label in words.items()}


class _Raw(NamedTuple):
    """A model's raw output for one image: logits [Q, C], boxes as fractions of the image [Q, 4]."""

    logits: torch.Tensor
    boxes: torch.Tensor


class _Query(NamedTuple):
    """Labels as a model reads them: each with its COCO id, the input, each label's tokens, and what is not read."""

    labels: list[tuple[str, int | None]]
    words: Inputs
    spans: Spans | None
    unread: tuple[str, ...] = ()


class ClosedDetector:
    """A model that knows the classes it was trained on.

    Args:
        loaded: A model of ``AutoModelForObjectDetection``.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        from vision_backends.backends.local.runtime.parts import Boxes

        self.loaded = loaded
        self._names = vocabulary(loaded.checkpoint.labels)
        self._boxes = loaded.part("boxes", Boxes(loaded.model), agrees=_alike)

    async def detect(
        self,
        images: Sequence[Image],
        *,
        wanted: Mapping[str, str] | None,
        min_score: float,
        deadline: Deadline,
    ) -> list[list[Detection]]:
        """Return the objects in each image.

        Args:
            images: Checked images.
            wanted: The names to report, each with the word that the caller used for it; None reports all.
            min_score: Lowest score to report, in [0, 1].
            deadline: When to stop.

        Raises:
            InvalidReplyError: The model computed numbers that are not finite.
            OverloadedError: There was not enough memory, or the model was busy with other calls.
            TimedOutError: The deadline passed before the last image.
        """
        loaded = self.loaded
        seen = await loaded.ask(images, prepare=loaded.prepare, alike=aspect, run=self._run, deadline=deadline)

        def read(answer: tuple[_Raw, Image]) -> list[Detection]:
            raw, image = answer
            return list(self._found(_checked(raw, image), _size(image), wanted, min_score))

        return await loaded.map(read, [*zip(seen, images, strict=True)], deadline=deadline).results()

    def _run(self, batch: Inputs, _options: object, _wanted: Wanted) -> list[_Raw]:
        found = self._boxes(batch)
        return _rows(*found) if found else _outputs(self.loaded.model(**self.loaded.cast(batch)))

    def _found(
        self, raw: _Raw, size: tuple[int, int], wanted: Mapping[str, str] | None, least: float
    ) -> Iterator[Detection]:
        """Yield the objects in one image, as the family's own processor reads scores and boxes."""
        outputs = SimpleNamespace(logits=raw.logits[None], pred_boxes=raw.boxes[None])
        processor = self.loaded.image_processor
        (read,) = processor.post_process_object_detection(outputs, threshold=least, target_sizes=[size])
        rows = zip(*(read[key].tolist() for key in ("labels", "scores", "boxes")), strict=True)
        yield from self._kept(rows, size, wanted)

    def _kept(
        self, rows: Iterator[tuple[int, float, list[float]]], size: tuple[int, int], wanted: Mapping[str, str] | None
    ) -> Iterator[Detection]:
        for number, score, box in rows:
            name, category = self._names.get(number, (None, None))
            inside = _inside(box, size)
            if name is not None and inside is not None and (wanted is None or name in wanted):
                label = name if wanted is None else wanted[name]
                yield Detection(label=label, score=score, xyxy=inside, category_id=category)


class OpenDetector:
    """A model that finds objects by arbitrary labels.

    Args:
        loaded: A model of ``AutoModelForZeroShotObjectDetection``: Grounding DINO, MM Grounding DINO, OWLv2 or OWL-ViT.

    Raises:
        NotReadyError: It is another kind of model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        if loaded.checkpoint.kind not in OPEN_MIN_SCORES or loaded.tokenizer is None:
            message = f"{loaded.checkpoint.name} is not one of {', '.join(OPEN_MIN_SCORES)}."
            raise NotReadyError(message, remedy="Configure one of them as [local] open_vocabulary_model.")
        self._grounded = "dino" in loaded.checkpoint.kind
        self._squared = loaded.checkpoint.kind == "owlv2"  # it sees images padded to a square

    async def detect(
        self,
        images: Sequence[Image],
        *,
        labels: Sequence[str],
        min_score: float | None,
        truncate: bool = False,
        deadline: Deadline,
    ) -> tuple[list[list[Detection]], tuple[str, ...]]:
        """Return what the labels name in each image, and a sentence for each text of which a part was not read.

        Arguments and errors as in `ClosedDetector.detect`.

        Raises:
            NotSupportedError: The labels are too long for the model and may not be cut, or one has no tokens.
        """
        loaded = self.loaded
        least = OPEN_MIN_SCORES[loaded.checkpoint.kind] if min_score is None else min_score
        read_labels = partial(self._query, truncate=truncate)
        (query,) = await loaded.map(read_labels, [labels], deadline=deadline).results()
        seen = await loaded.ask(
            images,
            prepare=lambda image: {**loaded.prepare(image), **query.words},
            alike=aspect,
            run=self._run,
            deadline=deadline,
        )

        def read(answer: tuple[_Raw, Image]) -> list[Detection]:
            raw, image = answer
            return list(self._found(_checked(raw, image), _size(image), query, least))

        found = await loaded.map(read, [*zip(seen, images, strict=True)], deadline=deadline).results()
        return found, query.unread

    def _query(self, labels: Sequence[str], *, truncate: bool) -> _Query:
        coco = coco_categories()
        meanings = match_labels(labels, known=coco)
        with self.loaded.reading:
            read = self._sentence if self._grounded else self._words
            kept, words, spans, unread = read(labels, truncate=truncate)
        return _Query([(label, coco.get(meanings[label] or "")) for label in kept], words, spans, unread)

    def _found(self, raw: _Raw, size: tuple[int, int], query: _Query, least: float) -> Iterator[Detection]:
        """Yield what the labels name in one image."""
        best = _label_scores(raw.logits.sigmoid(), query.spans).max(-1)
        frame = (max(size), max(size)) if self._squared else size
        rows = zip(best.values.tolist(), best.indices.tolist(), _pixels(raw.boxes, frame).tolist(), strict=True)
        for score, number, box in rows:
            inside = _inside(box, size) if score >= least else None
            if inside is not None:
                label, category = query.labels[number]
                yield Detection(label=label, score=score, xyxy=inside, category_id=category)

    def _run(self, batch: Inputs, _options: object, _wanted: Wanted) -> list[_Raw]:
        return _outputs(self.loaded.model(**self.loaded.cast(batch)))

    def _sentence(self, labels: Sequence[str], *, truncate: bool) -> _Read:
        """Return the labels as Grounding DINO reads them, all in one sentence.

        Raises:
            NotSupportedError: They are too long for the model and may not be cut, or one has no tokens.
        """
        text, spans = _sentence(labels)
        tokenizer, longest = self.loaded.tokenizer, self.loaded.model.config.max_text_len
        what = f"{len(labels)} labels are" if len(labels) > 1 else "The label is"
        text, _, unread = self._as_far_as_read(text, what=what, longest=longest, truncate=truncate)
        options = {"return_tensors": "pt", "return_offsets_mapping": True, **AS_LETTERS}
        read = tokenizer(text, truncation=True, max_length=longest, **options)
        offsets = read.pop("offset_mapping")[0].tolist()
        tokens = [[i for i, (a, b) in enumerate(offsets) if start <= a < b <= end] for start, end in spans]
        kept = [label for label, own in zip(labels, tokens, strict=True) if own]
        if len(kept) < len(labels) and not unread:
            label = labels[tokens.index([])]
            raise NotSupportedError(f"The model cannot read the label {label!r}.", remedy="Use words.")
        return kept, dict(read), [own for own in tokens if own], (unread,) if unread else ()

    def _words(self, labels: Sequence[str], *, truncate: bool) -> _Read:
        """Return the labels as OWL reads them, one row each.

        Raises:
            NotSupportedError: One is too long for the model and may not be cut.
        """
        tokenizer, longest = self.loaded.tokenizer, self.loaded.model.config.text_config.max_position_embeddings
        readings = [
            self._as_far_as_read(label, what=f"The label {label[:SHOWN]!r} is", longest=longest, truncate=truncate)
            for label in labels
        ]
        options = {"padding": "max_length", "truncation": True, "max_length": longest, "return_tensors": "pt"}
        read = tokenizer([reading.text for reading in readings], **options, **AS_LETTERS)
        return labels, dict(read), None, tuple(reading.unread for reading in readings if reading.unread)

    def _as_far_as_read(self, text: str, *, what: str, longest: int, truncate: bool) -> Reading:
        tokenizer = self.loaded.tokenizer
        return as_far_as_read(tokenizer, text, longest=longest, truncate=truncate, what=what, code="labels_too_long")


def _sentence(labels: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return the labels as Grounding DINO was trained to read them, "a cat. a dog.", and the span of each."""
    text, spans = "", []
    for label in labels:
        words = " ".join(label.lower().replace(".", " ").split())
        spans.append((len(text), len(text) + len(words)))
        text += f"{words}. "
    return text.rstrip(), spans


def _outputs(outputs: Any) -> list[_Raw]:  # noqa: ANN401 — a record of transformers
    return _rows(outputs.logits, outputs.pred_boxes)


def _rows(logits: torch.Tensor, boxes: torch.Tensor) -> list[_Raw]:
    """Return the model's raw output for each image, in 32-bit floats on the CPU."""
    return [_Raw(logits=a, boxes=b) for a, b in zip(logits.float().cpu(), boxes.float().cpu(), strict=True)]


def _alike(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> bool:
    """Tell whether another engine finds what torch finds.

    The order of queries depends on rounding, and the last ones may differ: so each is compared with its nearest
    neighbour, by best score and box, and only few may have none.
    """
    import torch

    rows = [
        torch.cat([boxes[0], logits[0].sigmoid().amax(-1, keepdim=True)], dim=-1) for logits, boxes in (expected, found)
    ]
    distances = (rows[0][:, None] - rows[1][None]).abs().amax(-1)
    strays = [(distances.amin(axis) > MOST_DISTANCE).float().mean() for axis in (0, 1)]
    return bool(max(strays) <= MOST_STRAYS)


def _checked(raw: _Raw, image: Image) -> _Raw:
    """Return the raw output if it is an answer: finite, except for scores of −∞, which mean "never", and not all alike.

    Raises:
        InvalidReplyError: The model computed infinities or NaN, or one box for all of its queries, or one score for all
            classes, too, as it does when a part of its weights is zeros: it has not looked at the image.
    """
    scores = raw.logits.isfinite() | raw.logits.isneginf()
    for what, good in (("boxes", raw.boxes.isfinite()), ("scores", scores)):
        if not bool(good.all()):
            raise InvalidReplyError(f"The model computed {what} that are not finite numbers.", code="not_finite")
    given = raw.logits[raw.logits.isfinite()]
    for what, rows in (("box", raw.boxes), ("score", given)):
        if len(rows) > 1 and bool((rows == rows[:1]).all()) and not _is_of_one_colour(image):
            raise InvalidReplyError(f"The model computed one {what} for all that it might have seen.", code="all_alike")
    return raw


def _is_of_one_colour(image: Image) -> bool:
    """Tell whether there is nothing to be seen in an image, so that all of it may well look the same."""
    extrema: Any = image.rgb().getextrema()  # a pair for each of three channels
    return all(low == high for low, high in extrema)


def _label_scores(scores: torch.Tensor, spans: Spans | None) -> torch.Tensor:
    """Return the score of each label [Q, labels]: that of its best token, where the columns are tokens."""
    import torch

    if spans is None:
        return scores
    return torch.stack([scores[:, columns].max(-1).values for columns in spans], dim=-1)


def _pixels(boxes: torch.Tensor, frame: tuple[int, int]) -> torch.Tensor:
    """Turn centre, width and height [Q, 4], as fractions of a frame, into left, top, right and bottom in pixels."""
    import torch

    height, width = frame
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1) * boxes.new_tensor([width, height, width, height])


def _size(image: Image) -> tuple[int, int]:
    """Return the full height and width in pixels, in which boxes are reported even if fewer were decoded."""
    return image.height, image.width


def _inside(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Return a box clipped to the image, or None if nothing of it is left."""
    height, width = size
    x1, y1 = max(0.0, box[0]), max(0.0, box[1])
    x2, y2 = min(float(width), box[2]), min(float(height), box[3])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
