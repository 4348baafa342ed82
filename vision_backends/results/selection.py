"""Some of the objects of an image, or those of several answers about it together.

This module decides what an index means, and what the parts of a union have to share. It must not know how objects are
found.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

from vision_backends.arguments import iterate, shown
from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from vision_backends.traces import Trace
    from vision_backends.types import Detections, ImageLabel

__all__ = ["Places", "merged", "places"]

Places: TypeAlias = "Sequence[bool] | Sequence[int] | npt.NDArray[Any]"
"""A mask with True or False for each object, or the places of some, as a list or an array."""

REMEDY = "Write a place, a slice, a list of places, or a mask; found.filter(labels=…) goes by label."


def places(index: object, count: int) -> int | Sequence[int]:
    """Return what an index picks out of so many objects: one place, or several.

    Raises:
        IndexError: A place is beyond the end, or a mask has another length.
        InvalidRequestError: It is no index.
    """
    if isinstance(index, slice):
        return range(count)[index]
    if not isinstance(index, bool) and hasattr(index, "__index__") and getattr(index, "ndim", 0) == 0:
        return operator.index(index)
    listed: Any = index.tolist() if hasattr(index, "tolist") else index
    if not isinstance(listed, list | tuple):
        raise InvalidRequestError(f"{shown(index)} is not an index of detections.", remedy=REMEDY)
    listed = [each.tolist() if hasattr(each, "tolist") else each for each in listed]  # numpy's scalars
    if listed and all(isinstance(each, bool) for each in listed):
        if len(listed) != count:
            raise IndexError(f"A mask of {len(listed)} is for as many detections, and there are {count}.")
        return [place for place, is_in in enumerate(listed) if is_in]
    if any(isinstance(each, bool) or not hasattr(each, "__index__") for each in listed):
        raise InvalidRequestError(f"{shown(index)} is not an index of detections.", remedy=REMEDY)
    return [range(count)[place] for place in listed]


def merged(parts: Iterable[Detections]) -> Detections:
    """Return the objects of several answers about one image. Arguments and errors as in `Detections.merge`."""
    listed = iterate("parts", parts, remedy="Write for example: Detections.merge([found, more])")
    if not listed:
        raise InvalidRequestError("There are no detections to merge.", remedy="Pass at least one Detections.")
    first = listed[0]
    for part in listed:
        if type(part) is not type(first) or not hasattr(part, "image_labels"):
            raise InvalidRequestError(f"{shown(part)} is not a Detections.", remedy="Pass what detect returned.")
    sizes = {(part.width, part.height) for part in listed}
    sources = {part.source for part in listed} - {None}
    if len(sizes) > 1 or len(sources) > 1:
        differ = " and ".join(
            sorted(f"{part.source or 'an image'} of {part.width}×{part.height} px" for part in listed)
        )
        raise InvalidRequestError(
            f"Detections of different images cannot be merged: {differ}.",
            remedy="Keep them in a list; vision_backends.results makes tables and data sets of lists.",
        )
    items = tuple(item for part in listed for item in part.items)
    boxed = {item.label for item in items}
    return replace(
        first,
        items=items,
        image_labels=_best_of_each(label for part in listed for label in part.image_labels if label.label not in boxed),
        source=next(iter(sources), None),
        trace=reduce(_together, _distinct(part.trace for part in listed)),
    )


def _best_of_each(labels: Iterable[ImageLabel]) -> tuple[ImageLabel, ...]:
    best: dict[str, ImageLabel] = {}
    for label in labels:
        best[label.label] = max(best.get(label.label, label), label, key=lambda each: each.score)
    return tuple(best.values())


def _distinct(traces: Iterable[Trace]) -> list[Trace]:
    """Return each once: parts of one answer have one account."""
    found: list[Trace] = []
    for trace in traces:
        if trace not in found:
            found.append(trace)
    return found


def _together(one: Trace, other: Trace) -> Trace:
    """Return the account of two answers."""

    def both(name: str, between: str) -> str | None:
        said = dict.fromkeys(value for value in (getattr(one, name), getattr(other, name)) if value)
        return between.join(said) or None

    return replace(
        one,
        backend=both("backend", " + ") or "",
        model=both("model", " + "),
        revision=both("revision", " + "),
        degraded=one.degraded or other.degraded,
        reason=both("reason", "; "),
        cached=one.cached and other.cached,
        attempts=one.attempts + other.attempts,
        usage=one.usage + other.usage,
        elapsed_s=one.elapsed_s + other.elapsed_s,
        flawed_boxes=one.flawed_boxes + other.flawed_boxes,
        notes=tuple(dict.fromkeys(one.notes + other.notes)),
        timing=None,
    )
