"""What one server refuses of a request, and what is sent instead.

Compatible servers know some of OpenAI's fields and refuse others. This module decides which field a refusal is about,
and how the request reads without it; what has helped is remembered, so that the next request costs no refusal. It must
not know how requests travel.
"""

from __future__ import annotations

import base64
import io
import json
import re
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vision_backends.errors import RefusedError
    from vision_backends.storage.notes import Notes

__all__ = ["Dialect", "serialized"]

Body = dict[str, Any]
Changes = dict[str, Any]
"""Names of fields, and what becomes of each: None leaves it out, or makes it what every server knows."""

FIELDS: dict[str, str] = {
    "stream_options": r"stream_options|include_usage",
    "max_tokens": r"\bmax_tokens",
    "max_completion_tokens": r"\bmax_completion_tokens",
    "max_output_tokens": r"\bmax_output_tokens",
    "store": r"\bstore\b",
    "reasoning_effort": r"reasoning|thinking|\beffort",
    "reasoning": r"reasoning|thinking|\beffort",
    "response_format": r"response[ _]format|json[ _]schema|structured output",
    "text": r"\btext\.format|json[ _]schema|structured output",
    "encoding_format": r"encoding_format|base64",
    "detail": r"\bdetail\b",
    "instructions": r"\binstructions\b",
}
"""The fields that a request can do without, and how a refusal names each in words."""

RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}

EFFORTS = ("none", "minimal", "low", "medium", "high")
"""How much a model may think, the least first."""

TOO_LARGE = frozenset({413})
TOO_LONG = "context_length_exceeded"
IMAGE = "image"
"""A change of the image: how many bytes the request may have."""

IMAGE_ONCE = "image of this request"
"""The same for one request that is longer than the model can read; the next may not be."""

SCHEMA_ONCE = "schema of this request"
"""A schema that a caller has given and the server cannot keep to; the next may be simpler."""

SMALLEST_BYTES = 20_000
"""A request that is no larger than this is not refused for its size."""

_FORMATS = ("response_format", "text")
_BAD_SCHEMA = re.compile(r"invalid schema for|invalid_json_schema|schema is (?:invalid|not valid)", re.IGNORECASE)
"""How a refusal reads that is about one schema, and not about all."""
JSON_OBJECT = "json_object"
"""What a server is asked for that knows JSON, but no schemas."""

_ONLY_SCHEMA = re.compile(
    r"json_object|(?:json[_ ]?schema|response_format[ .]type|type['\"`]*)[^.]{0,60}"
    r"(?:unavailable|not (?:supported|available|allowed)|unsupported|invalid|unknown)"
    r"|(?:unsupported|unknown|invalid)[^.]{0,40}json_schema",
    re.IGNORECASE,
)
"""How a refusal reads that is about the schema, and may not be about JSON."""

_LIMIT = re.compile(r"(?:at most|<=|less than or equal to|maximum(?: value)? (?:of|is))\D{0,20}(\d+)", re.IGNORECASE)


class Dialect:
    """The changes that one server needs. Its methods may compute, and read or write a store.

    Args:
        server: Where its API begins.
        documented: Fields that it refuses by its own documentation, by endpoint; they need not be learned.
    """

    def __init__(self, server: str, *, documented: Mapping[str, Sequence[str]] | None = None) -> None:
        self._server = server
        self._documented = {endpoint: tuple(fields) for endpoint, fields in (documented or {}).items()}
        self._learned: dict[str, Changes] = {}
        self.notes: Notes | None = None

    def adapt(self, endpoint: str, body: Body) -> Body:
        """Return a body as this server is known to take it."""
        for field in self._documented.get(endpoint, ()):
            _change(body, field, None)
        for field, value in self.known(endpoint, body["model"]).items():
            _change(body, field, value)
        return body

    def without(self, content: bytes, refusal: RefusedError) -> tuple[bytes, Changes] | None:
        """Return a request without what was refused of it, and how it was changed; None where nothing would help."""
        body = json.loads(content)
        field = _named(refusal, body)
        if field is None:
            if not (refusal.status in TOO_LARGE or refusal.code == TOO_LONG):
                return None
            if len(content) // 2 < SMALLEST_BYTES:
                return None
            field = IMAGE_ONCE if refusal.code == TOO_LONG else IMAGE
            value: object = len(content) // 2
        elif field in _FORMATS and _BAD_SCHEMA.search(f"{refusal.code} {refusal.message}"):
            field, value = SCHEMA_ONCE, None
        else:
            value = _value(field, refusal, body.get(field))
        before = json.dumps(body)
        _change(body, field, value)
        if json.dumps(body) == before:
            return None
        return json.dumps(body, separators=(",", ":")).encode(), {field: value}

    def learn(self, endpoint: str, model: str, changes: Changes) -> None:
        """Remember changes that have helped."""
        subject = self._subject(endpoint, model)
        changes = {field: value for field, value in changes.items() if field not in {IMAGE_ONCE, SCHEMA_ONCE}}
        self._learned[subject] = self._learned.get(subject, {}) | changes
        if self.notes is not None:
            self.notes.note(subject, changes)

    def forget(self) -> None:
        """Ask the server again for everything."""
        self._learned.clear()

    def facts(self) -> dict[str, list[str]]:
        """Return which fields are changed for which model, for people."""
        known = self._learned if self.notes is None else self.notes.all()
        prefix = f"{self._server} "
        return {
            subject.removeprefix(prefix): sorted(changes)
            for subject, changes in known.items()
            if subject.startswith(prefix)
        }

    def known(self, endpoint: str, model: str) -> Mapping[str, Any]:
        """Return the changes that requests for a model need, by the field that is changed."""
        subject = self._subject(endpoint, model)
        return self._learned.get(subject, {}) if self.notes is None else self.notes.about(subject)

    def is_at_hand(self, endpoint: str, model: str) -> bool:
        """Return whether `known` reads nothing."""
        return self.notes is None or self.notes.is_at_hand(self._subject(endpoint, model))

    def learned_at(self, endpoint: str, model: str) -> float | None:
        """Return when the latest of these changes was learned, in seconds since 1970 UTC; may read the store."""
        noted = {} if self.notes is None else self.notes.dated(self._subject(endpoint, model))
        return max((at for _, at in noted.values()), default=None)

    def _subject(self, endpoint: str, model: str) -> str:
        return f"{self._server} {endpoint} {model}"


def serialized(body: Body) -> bytes:
    """Return a body as JSON, into which the images are put as they are.

    Base64 has nothing that would have to be escaped, and looking for it takes longer than everything else.
    """
    place, images = _place(), list(_images(body))
    urls = [holder[name] for holder, name in images]
    for holder, name in images:
        holder[name] = place
    first, *rest = json.dumps(body, separators=(",", ":")).split(place)
    for (holder, name), url in zip(images, urls, strict=True):
        holder[name] = url
    return "".join([first, *chain.from_iterable(zip(urls, rest, strict=True))]).encode()


@cache
def _place() -> str:
    """Return what stands in the place of an image: something that no prompt holds."""
    return uuid4().hex


def _named(refusal: RefusedError, body: Body) -> str | None:
    """Return the field of a body that a refusal is about, by its own word for it or by its message."""
    sent = [field for field in FIELDS if field in body or (field == "detail" and any(_images(body)))]
    parts = re.split(r"[.\[\]]+", refusal.field or "")
    for field in sent:
        if field in parts:
            return field
    # "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.": the first is meant.
    found = {
        field: match.start() for field in sent if (match := re.search(FIELDS[field], refusal.message, re.IGNORECASE))
    }
    return min(found, key=lambda field: found[field]) if found else None


def _value(field: str, refusal: RefusedError, sent: object) -> object:
    if field in {"max_tokens", "max_completion_tokens", "max_output_tokens"}:
        limit = _LIMIT.search(refusal.message)
        return int(limit[1]) if limit else None
    if field in {"reasoning_effort", "reasoning"}:
        offered = refusal.message.lower().partition("supported values")[2]
        return next((effort for effort in EFFORTS if re.search(rf"\b{effort}\b", offered)), None)
    if field in {"response_format", "text"} and _ONLY_SCHEMA.search(refusal.message) and "schema" in json.dumps(sent):
        return JSON_OBJECT
    return None


def _change(body: Body, field: str, value: Any) -> None:  # noqa: ANN401 — any JSON
    """Change one field of a body where it is there."""
    if field in {IMAGE, IMAGE_ONCE} and isinstance(value, int):
        _shrink(body, value)
    elif field == SCHEMA_ONCE:
        for name in _FORMATS:
            if name in body:
                _say_schema(body, name, None)
    elif field == "detail":
        for holder, _ in _images(body):
            holder.pop("detail", None)
    elif field in body:
        _CHANGES.get(field, _replace)(body, field, value)


def _replace(body: Body, field: str, value: object) -> None:
    """Set a field to a value that the server knows, or leave it out."""
    if value is None:
        del body[field]
    else:
        body[field] = {"effort": value} if field == "reasoning" else value


def _limit(body: Body, field: str, value: object) -> None:
    """Lower a limit, or write it under its other name; an answer without one could cost anything."""
    if isinstance(value, int):
        body[field] = max(1, min(value, body[field]))
    elif field in RENAMED:
        body[RENAMED[field]] = body.pop(field)


def _say_schema(body: Body, field: str, value: object) -> None:
    """Ask for JSON in words, and by its name where the server knows that."""
    schema = _schema(body.pop(field))
    if value == JSON_OBJECT:
        kind = {"type": JSON_OBJECT}
        body[field] = {"format": kind} if field == "text" else kind
    if schema is not None:
        _instruct(body, f"Answer with JSON alone, which follows this schema: {json.dumps(schema)}")


def _say_instructions(body: Body, field: str, _value: object) -> None:
    _ask_user(body, body.pop(field))


_CHANGES: dict[str, Callable[[Body, str, object], None]] = {
    "max_tokens": _limit,
    "max_completion_tokens": _limit,
    "max_output_tokens": _limit,
    "response_format": _say_schema,
    "text": _say_schema,
    "instructions": _say_instructions,
}
"""What becomes of a field that is not simply left out."""


def _schema(wanted: object) -> object:
    """Return the JSON schema in a field of either API."""
    if not isinstance(wanted, dict):
        return None
    holder = wanted.get("json_schema") or wanted.get("format") or {}
    return holder.get("schema") if isinstance(holder, dict) else None


def _instruct(body: Body, words: str) -> None:
    """Add a sentence to the instructions, wherever either API has them."""
    if "instructions" in body:
        body["instructions"] += f"\n{words}"
    elif body.get("messages"):
        body["messages"][0]["content"] += f"\n{words}"
    else:
        _ask_user(body, words)


def _ask_user(body: Body, words: str) -> None:
    body["input"][0]["content"].insert(0, {"type": "input_text", "text": words})


def _images(body: Body) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what holds the details of each image of a body, and the name of its URL there."""
    for message in (*_items(body.get("messages")), *_items(body.get("input"))):
        for part in _items(message.get("content")):
            if part.get("type") == "image_url":
                yield part["image_url"], "url"
            elif part.get("type") == "input_image":
                yield part, "image_url"


def _items(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _shrink(body: Body, max_bytes: int) -> None:
    """Scale the images of a body down, the larger ones more, until it has no more than so many bytes."""
    images = list(_images(body))
    sent = sum(len(holder[name]) for holder, name in images)
    share = (max_bytes - len(json.dumps(body)) + sent) / max(1, sent)
    for holder, name in images:
        url = holder[name]
        data = url.partition(",")[2]
        room = int(len(url) * share) * 3 // 4
        if len(data) * 3 // 4 > room > 0:
            smaller = base64.b64encode(_smaller(base64.b64decode(data), room)).decode()
            holder[name] = f"data:image/jpeg;base64,{smaller}"


def _smaller(content: bytes, max_bytes: int) -> bytes:
    """Return an image as a JPEG of at most so many bytes, or nearly so where it would be tiny."""
    from PIL import Image

    image = Image.open(io.BytesIO(content)).convert("RGB")
    while True:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=85)
        taken = file.tell()
        if taken <= max_bytes or min(image.size) < 64:
            return file.getvalue()
        scale = max(0.3, min(0.9, (max_bytes / taken) ** 0.5))
        image = image.resize((int(image.width * scale), int(image.height * scale)), reducing_gap=2.0)
