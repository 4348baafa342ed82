"""Where a provider's error is in a reply, and what it says.

This module decides how errors of every shape are read: an object, a string, a list, plain text, with codes as strings,
numbers or null. It must not know what any code means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ErrorBody", "find_error", "read_error_body"]

_CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """What a provider's error says, whatever its shape was."""

    code: str | None = None
    type: str | None = None
    message: str = ""


def find_error(payload: Mapping[str, object]) -> object:
    """Return the error inside a decoded reply or stream event, or None: errors also come with status 200."""
    response = payload.get("response")
    for holder in (payload, response if isinstance(response, dict) else {}):
        if holder.get("error"):
            return holder["error"]
    return payload if payload.get("type") == "error" else None


def read_error_body(body: object) -> ErrorBody:
    """Read an error: an object or a string under ``error``, ``detail`` as string or list, or plain text."""
    if isinstance(body, dict):
        inner = body.get("error") or body.get("detail") or body
        if isinstance(inner, dict):
            message = inner.get("message") or inner.get("msg") or inner.get("detail") or ""
            return ErrorBody(code=_name(inner.get("code")), type=_name(inner.get("type")), message=_text(message))
        return ErrorBody(code=_code_in(inner), type=_name(body.get("type")), message=_text(inner))
    return ErrorBody(code=_code_in(body), message=_text(body))


def _name(value: object) -> str | None:
    """Codes are strings, numbers or null, depending on the server."""
    return str(value) if isinstance(value, str | int) and value != "" else None


def _code_in(value: object) -> str | None:
    """Some servers send the bare code, such as OAuth's ``{"error": "invalid_grant"}``."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_text, value)))
    if isinstance(value, dict):
        return _text(value.get("message") or value.get("msg") or "")
    return ""
