"""Objects and their boxes: a closed vocabulary by DETR's family, any words by Grounding DINO and OWLv2.

This module decides how scores and boxes become detections. It must not know where models come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.backends.labels import match_labels
from vision_backends.backends.local.runtime import check_finite
from vision_backends.catalog import coco_categories
from vision_backends.errors import NotReadyError, NotSupportedError
from vision_backends.types import Detection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from PIL import Image as PILImage

    from vision_backends.backends.local.runtime import Countdown, Loaded

__all__ = ["ClosedDetector", "OpenDetector", "vocabulary"]

NO_CLASS = "N/A"
"""What DETR's files call the numbers that COCO left out."""

OPEN_MIN_SCORES = {"grounding-dino": 0.35, "mm-grounding-dino": 0.35, "owlv2": 0.1, "owlvit": 0.1}
"""Lowest scores by kind, as their publishers use them: https://github.com/IDEA-Research/GroundingDINO (demo), and
https://huggingface.co/docs/transformers/model_doc/owlv2."""


def vocabulary(labels: Mapping[int, str]) -> dict[int, tuple[str, int | None]]:
    """Return for each class number what it is called here, and COCO's id of it.

    A vocabulary of COCO's objects, however they are spelled ("motorbike", "tvmonitor"), gets COCO's own names, so
    that all rungs use the same. Any other keeps its own words and has no ids: its "mouse" may be an animal.
    """
    coco = coco_categories()
    words = {number: label for number, label in labels.items() if label != NO_CLASS}
    meanings = match_labels(tuple(words.values()), known=coco)
    if set(meanings.values()) >= set(coco) or (words and None not in meanings.values()):
        names = {number: meanings[label] or label for number, label in words.items()}
        return {number: (name, coco.get(name)) for number, name in names.items()}
    return {number: (label, None) for number, label in words.items()}


class ClosedDetector:
    """A model that knows the classes it was trained on.

    Args:
        loaded: A model of ``AutoModelForObjectDetection``.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._names = vocabulary(loaded.model.config.id2label)

    def detect(
        self,
        images: Sequence[PILImage.Image],
        *,
        sizes: Sequence[tuple[int, int]],
        wanted: Mapping[str, str] | None,
        min_score: float,
        time: Countdown,
    ) -> list[list[Detection]]:
        """Return the objects of each image.

        Args:
            images: RGB images, perhaps at reduced scale.
            sizes: Height and width in pixels in which the boxes shall be.
            wanted: The names to report, each with the word that the caller used for it; None reports all.
            min_score: Lowest score to report, in [0, 1].
            time: When to stop.

        Raises:
            InvalidReplyError: The model computed numbers that are not finite.
            OverloadedError: The memory or the time to get hold of the model was not enough.
            TimedOutError: The time was over before the last image.
        """
        prepared = [self.loaded.prepare(image) for image in images]
        found: dict[int, list[Detection]] = {}
        for numbers, batch in self.loaded.batches(prepared):
            with self.loaded.alone(time=time):
                outputs = self.loaded.model(**batch)
                _check(outputs)
                raw = self.loaded.image_processor.post_process_object_detection(
                    outputs, threshold=min_score, target_sizes=[sizes[number] for number in numbers]
                )
                for number, one in zip(numbers, raw, strict=True):
                    rows = zip(*(one[key].tolist() for key in ("labels", "scores", "boxes")), strict=True)
                    found[number] = list(self._kept(rows, sizes[number], wanted))
        return [found[number] for number in range(len(images))]

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
    """A model that looks for whatever it is told.

    Args:
        loaded: A model of ``AutoModelForZeroShotObjectDetection``: Grounding DINO or OWLv2.

    Raises:
        NotReadyError: It is another kind of model.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        if loaded.checkpoint.kind not in OPEN_MIN_SCORES or loaded.tokenizer is None:
            message = f"{loaded.checkpoint.name} is none of {', '.join(OPEN_MIN_SCORES)}."
            raise NotReadyError(message, remedy="Configure one of them as [local] open_vocabulary_model.")
        self._grounded = "dino" in loaded.checkpoint.kind

    def detect(
        self,
        images: Sequence[PILImage.Image],
        *,
        sizes: Sequence[tuple[int, int]],
        labels: Sequence[str],
        min_score: float | None,
        time: Countdown,
    ) -> list[list[Detection]]:
        """Return what the labels name in each image; arguments and errors as in `ClosedDetector.detect`.

        Raises:
            NotSupportedError: The labels are more than the model can read at once.
        """
        least = OPEN_MIN_SCORES[self.loaded.checkpoint.kind] if min_score is None else min_score
        coco = coco_categories()
        categories = {label: coco.get(word or "") for label, word in match_labels(labels, known=coco).items()}
        found = []
        for image, size in zip(images, sizes, strict=True):
            inputs = self.loaded.prepare(image)
            with self.loaded.alone(time=time):
                scores, boxes = (self._ground if self._grounded else self._match)(inputs, labels, size)
                rows = zip(scores.max(-1).values.tolist(), scores.argmax(-1).tolist(), boxes.tolist(), strict=True)
            kept = [(score, labels[best], _inside(box, size)) for score, best, box in rows if score >= least]
            found.append(
                [
                    Detection(label=label, score=score, xyxy=box, category_id=categories[label])
                    for score, label, box in kept
                    if box is not None
                ]
            )
        return found

    def _ground(
        self, inputs: dict[str, torch.Tensor], labels: Sequence[str], size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores [Q, labels] and boxes [Q, 4] in pixels: a label scores as the best of its tokens."""
        import torch

        text, spans = _sentence(labels)
        read = self.loaded.tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        offsets = read.pop("offset_mapping")[0].tolist()
        longest = self.loaded.model.config.max_text_len
        if len(offsets) > longest:
            message = f"{len(labels)} labels are {len(offsets)} tokens; the model reads {longest} at once."
            raise NotSupportedError(message, remedy="Ask for fewer labels at a time.")
        batch = {key: value.to(self.loaded.device) for key, value in {**inputs, **read}.items()}
        outputs = self.loaded.model(**batch)
        check_finite(outputs.pred_boxes, what="boxes")
        per_token = torch.sigmoid(outputs.logits[0])
        mine = [[i for i, (a, b) in enumerate(offsets) if start <= a < b <= end] for start, end in spans]
        scores = torch.stack([per_token[:, columns].max(-1).values for columns in mine], dim=-1)
        check_finite(scores, what="scores")
        height, width = size
        return scores, _corners(outputs.pred_boxes[0]) * _scale(width, height, like=scores)

    def _match(
        self, inputs: dict[str, torch.Tensor], labels: Sequence[str], size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores [Q, labels] and boxes [Q, 4] in pixels; the model has seen the image padded to a square."""
        import torch

        longest = self.loaded.model.config.text_config.max_position_embeddings
        read = self.loaded.tokenizer(
            list(labels), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        )
        outputs = self.loaded.model(
            pixel_values=inputs["pixel_values"].to(self.loaded.device), **read.to(self.loaded.device)
        )
        _check(outputs)
        side = max(size)
        scores = torch.sigmoid(outputs.logits[0])
        return scores, _corners(outputs.pred_boxes[0]) * _scale(side, side, like=scores)


def _sentence(labels: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return the labels as Grounding DINO was trained to read them, "a cat. a dog.", and where each stands."""
    text, spans = "", []
    for label in labels:
        words = " ".join(label.lower().replace(".", " ").split())
        spans.append((len(text), len(text) + len(words)))
        text += f"{words}. "
    return text.rstrip(), spans


def _check(outputs: Any) -> None:  # noqa: ANN401 — a record of transformers
    check_finite(outputs.logits, what="scores")
    check_finite(outputs.pred_boxes, what="boxes")


def _corners(boxes: torch.Tensor) -> torch.Tensor:
    """Turn centre, width and height [Q, 4] into left, top, right and bottom."""
    import torch

    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _scale(width: int, height: int, *, like: torch.Tensor) -> torch.Tensor:
    return like.new_tensor([width, height, width, height])


def _inside(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Return a box cut to the image, or None where nothing of it is left."""
    height, width = size
    x1, y1 = max(0.0, box[0]), max(0.0, box[1])
    x2, y2 = min(float(width), box[2]), min(float(height), box[3])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
