"""Answers as rows: of a CSV file, of frames of pandas and polars, of supervision's arrays.

This module decides which columns an answer has. It must not know how a frame is made, beyond the call that makes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeAlias

from vision_backends.arguments import iterate, shown
from vision_backends.errors import InvalidRequestError, VisionError
from vision_backends.results.files import path_of, refuse_source, written
from vision_backends.results.libraries import load

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from vision_backends.types import Description, Detections, Embedding, Reply

    Answer: TypeAlias = Description | Detections | Embedding | Reply

__all__ = ["class_ids", "each_of", "save_csv", "to_pandas", "to_polars", "to_rows", "to_supervision"]

COCO_IDS = 90
"""COCO's largest category id; labels that are not COCO's have ids above."""

ACCOUNT = ("backend", "model", "revision", "degraded", "reason", "cached", "elapsed_s")
USAGE = ("input_tokens", "output_tokens", "cost_usd")
SIDES = ("x1", "y1", "x2", "y2")
BOX = ("source", "label", "score", *SIDES, "category_id", "width", "height", *ACCOUNT)
"""The columns of detections, also where nothing was found."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "float": ("score", *SIDES, "elapsed_s", "cost_usd"),
    "int": ("category_id", "width", "height", "dimension", "input_tokens", "output_tokens"),
    "bool": ("degraded", "cached", "complete", "informative"),
    "vector": ("vector",),
    "names": ("sources",),
    "json": ("data", "evidence"),
}
"""What columns hold where they hold anything; the others hold text. By it, frames of different answers go together."""

PANDAS_TYPES = {"float": "float64", "int": "Int64", "bool": "boolean", "text": "string"}
"""Those that may miss a value; columns of lists and mappings are of objects."""


def to_rows(answers: Answer | Iterable[Answer | VisionError]) -> list[dict[str, Any]]:
    """Return one answer or several as flat rows, all of the same columns.

    A description, a reply or an embedding is one row. Detections are one for each object, and one without sides for
    each label of the whole image. An error, as the methods that take lists return it, is a row with ``error`` and
    ``message``.

    Raises:
        InvalidRequestError: There is something else among them.

    Examples:
        >>> from vision_backends.results import to_rows
        >>> [(row["label"], row["backend"]) for row in to_rows(router.detect("cat.jpg"))]
        [('cat', 'embedded')]
    """
    listed = each_of(answers, errors=True)
    rows = [row for answer in listed for row in _rows_of(answer)]
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def save_csv(answers: Answer | Iterable[Answer | VisionError], path: str | os.PathLike[str]) -> None:
    """Write answers to a CSV file in UTF-8, with the columns of `to_rows`; lists and mappings are JSON in it.

    Args:
        answers: One answer or several.
        path: The file; one that is there is replaced.

    Raises:
        InvalidRequestError: The file cannot be written, or there is something else than answers among them.

    Examples:
        >>> from pathlib import Path
        >>> from vision_backends.results import save_csv
        >>> save_csv(router.detect("cat.jpg"), "boxes.csv")
        >>> Path("boxes.csv").read_text(encoding="utf-8").splitlines()[0]
        'source,label,score,x1,y1,x2,y2,...'
    """
    listed = each_of(answers, errors=True)
    file = path_of(path)
    refuse_source(file, *(getattr(answer, "source", None) for answer in listed))
    rows = to_rows(listed)
    import csv

    text = StringIO()
    table = csv.DictWriter(text, _columns(listed, rows))
    table.writeheader()
    for row in rows:
        table.writerow({name: _cell(value) for name, value in row.items()})
    written(file, text.getvalue())


def to_pandas(answers: Answer | Iterable[Answer | VisionError]) -> Any:  # noqa: ANN401 — pandas is not a dependency
    """Return a ``pandas.DataFrame`` with the rows of `to_rows`; a column has the same type whatever it holds.

    Raises:
        ConfigError: pandas is not installed.
        InvalidRequestError: There is something else than answers among them.
    """
    listed = each_of(answers, errors=True)
    rows = to_rows(listed)
    pandas = load("pandas", purpose="to_pandas()")
    frame = pandas.DataFrame(rows, columns=_columns(listed, rows))
    return frame.astype({name: PANDAS_TYPES[kind] for name in frame if (kind := _kind(name)) in PANDAS_TYPES})


def to_polars(answers: Answer | Iterable[Answer | VisionError]) -> Any:  # noqa: ANN401 — polars is not a dependency
    """Return a ``polars.DataFrame`` with the rows of `to_rows`; a column has the same type whatever it holds.

    The data of replies and the evidence of descriptions are JSON: one column cannot hold values of several shapes.

    Raises:
        ConfigError: polars is not installed.
        InvalidRequestError: There is something else than answers among them.
    """
    listed = each_of(answers, errors=True)
    rows = to_rows(listed)
    polars = load("polars", purpose="to_polars()")
    types = {
        "float": polars.Float64,
        "int": polars.Int64,
        "bool": polars.Boolean,
        "vector": polars.List(polars.Float32),
        "names": polars.List(polars.String),
    }
    kinds = {name: _kind(name) for name in _columns(listed, rows)}
    plain = [{name: _json(value) if kinds[name] == "json" else value for name, value in row.items()} for row in rows]
    return polars.DataFrame(plain, schema={name: types.get(kind, polars.String) for name, kind in kinds.items()})


def to_supervision(found: Detections, *, classes: Sequence[str] | None) -> Any:  # noqa: ANN401 — supervision is not a dependency
    """Return a ``supervision.Detections``. Arguments and errors as in `Detections.to_supervision`."""
    ids = class_ids([found], classes)
    supervision = load("supervision", purpose="to_supervision()")
    import numpy as np

    return supervision.Detections(
        xyxy=found.xyxy,
        confidence=found.scores,
        class_id=np.array([ids[item.label] for item in found.items], dtype=int),
        data={"class_name": found.labels},
    )


def class_ids(results: Sequence[Detections], classes: Sequence[str] | None) -> dict[str, int]:
    """Return an id for each label of some detections.

    Args:
        results: The detections.
        classes: The labels in the order of their ids, from 0. By default a label of COCO's has COCO's id, and the
            others have those from 91, in the order of the alphabet.

    Raises:
        InvalidRequestError: A label is none of the classes, or one of these comes twice.
    """
    known = {item.label: item.category_id for found in results for item in found.items}
    if classes is None:
        others = sorted(label for label, category in known.items() if category is None)
        return known | {label: number for number, label in enumerate(others, start=COCO_IDS + 1)}  # type: ignore[return-value]  # the others have theirs
    listed = iterate("classes", classes, remedy='Write for example: classes=["cat", "dog"]')
    if len(set(listed)) != len(listed):
        raise InvalidRequestError(f"classes={shown(listed)} names a label twice.", remedy="Name each once.")
    absent = sorted(known.keys() - set(listed))
    if absent:
        raise InvalidRequestError(
            f"{', '.join(map(repr, absent))} is none of the classes.",
            remedy="Pass all labels that were asked for, or take out the others: found.filter(labels=classes).",
        )
    return {label: number for number, label in enumerate(listed)}


def each_of(answers: Any, *, errors: bool) -> list[Any]:  # noqa: ANN401 — one answer or several
    """Return a list of answers.

    Args:
        answers: One or several.
        errors: Whether errors may be among them.

    Raises:
        InvalidRequestError: There is something else among them.
    """
    if hasattr(answers, "trace") or isinstance(answers, VisionError):
        answers = [answers]
    listed = iterate("answers", answers, remedy="Pass one answer, or a list of them.")
    for answer in listed:
        if isinstance(answer, VisionError) and not errors:
            raise InvalidRequestError(
                f"One of them is an error, not an answer: {answer.message}",
                remedy="Leave it out: [each for each in answers if not isinstance(each, VisionError)].",
            )
        if not isinstance(answer, VisionError) and not hasattr(answer, "trace"):
            raise InvalidRequestError(f"{shown(answer)} is not an answer.", remedy="Pass what a router returned.")
    return listed


def _rows_of(answer: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 — an answer or an error
    if isinstance(answer, VisionError):
        yield {"source": None, "error": answer.kind, "message": answer.message}
        return
    trace = answer.trace
    source = _name(answer.source)
    account = {name: getattr(trace, name) for name in ACCOUNT}
    if hasattr(answer, "items"):
        size = {"width": answer.width, "height": answer.height}
        for item in (*answer.items, *answer.image_labels):
            sides = dict(zip(SIDES, getattr(item, "xyxy", (None,) * 4), strict=True))
            category = {"category_id": getattr(item, "category_id", None)}
            yield {"source": source, "label": item.label, "score": item.score} | sides | category | size | account
        return
    told = answer.to_dict()
    for name in ("schema_version", "trace", "source"):
        told.pop(name, None)
    if "sources" in told:
        told["sources"] = list(map(_name, told["sources"]))
    yield {"source": source} | told | account | {name: getattr(trace.usage, name) for name in USAGE}


def _name(source: str | None) -> str | None:
    """Return the name of an image as valid Unicode, which a file of an old camera need not have."""
    return source and source.encode("utf-8", "backslashreplace").decode()


def _columns(listed: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns of rows, which all have the same; those of boxes where nothing was found."""
    if rows:
        return list(rows[0])
    return list(BOX) if listed else []


def _cell(value: Any) -> Any:  # noqa: ANN401 — whatever a row holds
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else value


def _json(value: Any) -> str | None:  # noqa: ANN401 — whatever a row holds
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _kind(column: str) -> str:
    return next((kind for kind, names in KINDS.items() if column in names), "text")
