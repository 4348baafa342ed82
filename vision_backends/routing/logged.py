"""What the log of calls says of one input: what was asked, what was answered, and by whom.

This module decides what is written and what never is: no image, no vector, nothing of an address but its host and path.
It must not know where it is written.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vision_backends.images import KeptImage
from vision_backends.routing.trace import complete

if TYPE_CHECKING:
    from vision_backends.backends.requests import Request
    from vision_backends.routing.call import Item

__all__ = ["logged"]


def logged(item: Item, request: Request, *, call_id: str, at: float) -> str:
    """Return a line of JSON about an input that is settled, or that nobody could answer.

    Args:
        item: The input.
        request: What was asked of it.
        call_id: The call's, as in the ledger.
        at: When it was settled, in seconds since 1970 UTC.
    """
    asked = {spec.name: getattr(request, spec.name) for spec in fields(request)}
    answer = complete(item)
    said = None if answer is None else answer.to_dict()
    if said is not None and "vector" in said:
        said["dimension"] = len(said.pop("vector"))
    record = {
        "at": at,
        "call_id": call_id,
        "task": request.task,
        "input": _named(item.source, is_text=request.task == "embed_text"),
        "asked": {name: value for name, value in asked.items() if value is not None},
        "answer": said,
        "error": None if item.error is None else {"kind": item.error.kind, "message": item.error.message},
        "attempts": [attempt.to_dict() for attempt in item.attempts] if said is None else [],
    }
    return json.dumps(record, ensure_ascii=False, default=str)


def _named(source: object, *, is_text: bool) -> Any:  # noqa: ANN401 — a text, or a list of them
    """Return what an input is called: a path or the text itself; of anything else only what it is."""
    if isinstance(source, tuple):
        return [_named(each, is_text=is_text) for each in source]
    if isinstance(source, KeptImage) and source.name is not None:
        source = source.name
    if isinstance(source, os.PathLike):
        return os.fsdecode(source)
    if not isinstance(source, str):
        return f"({type(source).__name__})"
    is_data = source[:5].lower() == "data:"
    if is_text or ("://" not in source[:16] and not is_data):
        return source
    if is_data:
        return "(data: URL)"
    address = urlsplit(source)
    return f"{address.scheme}://{address.hostname or ''}{address.path}"
