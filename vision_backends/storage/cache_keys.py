"""Under which key an answer is cached.

This module decides what makes two requests the same. It must not know any request, model or backend: they come
as plain values.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.types import Task

__all__ = ["cache_key"]

KEY_VERSION = 1
"""Raise it when answers that are already kept must not be found any more."""


def cache_key(
    *,
    task: Task,
    content: str,
    backend: str,
    model: Mapping[str, Any],
    options: Mapping[str, Any],
) -> str:
    """Return the key of one answer: equal for equal arguments, different for all others.

    The encoding is JSON with sorted keys, which is injective: strings are quoted and escaped, so that no two
    neighbours can run into each other, and 1, 1.0, true and "1" stay apart. Lists and tuples are alike.

    Args:
        task: What is asked.
        content: Digest of the image or text.
        backend: Name of the backend.
        model: Name, revision, fingerprint and space of the model that would answer.
        options: Everything else that determines the answer.

    Returns:
        64 hexadecimal digits (SHA-256).

    Raises:
        TypeError: A value is none of str, int, float, bool, None, list, tuple or mapping with str keys.
        ValueError: A number is not finite.
    """
    parts = [KEY_VERSION, task, content, backend, model, options]
    _refuse_other_keys(parts)
    encoded = json.dumps(parts, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Unescaped and with lone surrogates let through: "\ud83d\ude00" and the character that it would spell differ.
    return hashlib.sha256(encoded.encode("utf-8", "surrogatepass")).hexdigest()


def _refuse_other_keys(value: object) -> None:
    """Stop at what JSON would turn into a string without a word: 1 and "1" as keys of a mapping."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"The key {key!r} is not a str.")
            _refuse_other_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_other_keys(item)
