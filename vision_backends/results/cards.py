"""An answer as HTML, for notebooks: its picture, what was said, who said it.

This module decides how the card looks, and that nothing in it is markup but its own. It must not know how a picture is
made, and never fails: without a picture there is a card all the same.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

from vision_backends.errors import VisionError
from vision_backends.foreign_text import printable
from vision_backends.results.pictures import picture

if TYPE_CHECKING:
    from vision_backends.images import ImageSource
    from vision_backends.traces import Trace

__all__ = ["card"]

SIDE_PX = 480
"""Longest side of the picture on a card."""

SHOWN_IMAGES = 4
SHOWN_LABELS = 20

MAX_CHARS = 4000
"""Of a text on a card."""

CARD = f"margin:0;max-width:{SIDE_PX}px;font-family:sans-serif;text-align:left"
PICTURE = "display:block;margin:0;max-width:100%"
CAPTION = "margin:0;max-width:none;font-style:normal;text-align:left"
"""Said in full: pages that show a card may have ways of their own with figures."""

BADGE = "background:#b45309;color:#fff;border-radius:4px;padding:0 6px"


def card(answer: Any, *, image: ImageSource | None = None) -> str:  # noqa: ANN401 — any answer
    """Return a card as HTML without scripts or references: the picture is part of it.

    Args:
        answer: The answer.
        image: Its image; by default that is opened again from its path, and left out where that cannot be done.

    Raises:
        InvalidRequestError: The image that was passed cannot be opened.
    """
    parts = [*_images(answer, image), *_words(answer), _account(answer.trace)]
    inside = "".join(parts)
    return f'<figure style="{CARD}">{inside}</figure>'


def _images(answer: Any, image: ImageSource | None) -> list[str]:  # noqa: ANN401 — any answer
    """Return the pictures; a file that is gone, or is another one now, has none."""
    if hasattr(answer, "vector"):
        return []
    if image is not None:
        return [_image(answer, image, name=answer.source)]
    sources = getattr(answer, "sources", ())
    made = []
    for source in sources[:SHOWN_IMAGES] if len(sources) > 1 else (None,):
        with suppress(VisionError, OSError):
            made.append(_image(answer, source, name=source or answer.source))
    return made


def _image(answer: Any, image: ImageSource | None, *, name: str | None) -> str:  # noqa: ANN401 — any answer
    shown = picture(answer, image, min_side_px=SIDE_PX)
    shown.thumbnail((SIDE_PX, SIDE_PX))
    with BytesIO() as file:
        shown.save(file, "JPEG", quality=85)
        data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="{_text(name or "")}" style="{PICTURE}" src="data:image/jpeg;base64,{data}">'


def _words(answer: Any) -> list[str]:  # noqa: ANN401 — any answer
    """Return what was said, in paragraphs."""
    if hasattr(answer, "vector"):
        return [_line(f"{answer.dimension} components in {answer.space}")]
    if not hasattr(answer, "items"):
        cut = "" if answer.complete else " <em>(cut)</em>"
        return [f'<p style="margin:4px 0;white-space:pre-wrap">{_text(answer.text)}{cut}</p>']
    boxes = [f"{item.label} {item.score:.2f}" for item in answer.items[:SHOWN_LABELS]]
    more = len(answer.items) - len(boxes)
    lines = [", ".join([*boxes, f"and {more} more"] if more else boxes) or "Nothing was found."]
    whole = [f"{item.label} {item.score:.2f}" for item in answer.image_labels[:SHOWN_LABELS]]
    return [_line(line) for line in [*lines, *([f"Of the whole image: {', '.join(whole)}"] if whole else [])]]


def _account(trace: Trace) -> str:
    """Return who answered, what it took, and why it is degraded."""
    said = [trace.backend, trace.model, "cached" if trace.cached else f"{trace.elapsed_s:.2g} s"]
    if trace.usage.cost_usd:
        said.append(f"${trace.usage.cost_usd:.4f}")
    who = f"<small>{_text(' · '.join(each for each in said if each))}</small>"
    if not trace.degraded:
        return f'<figcaption style="{CAPTION}">{who}</figcaption>'
    reason = _text(trace.reason or "")
    badge = f'<span style="{BADGE}" title="{reason}">degraded</span>'
    return f'<figcaption style="{CAPTION}">{badge} {who}<br><small>{reason}</small></figcaption>'


def _line(text: str) -> str:
    return f'<p style="margin:4px 0">{_text(text)}</p>'


def _text(text: str) -> str:
    """Return a text of foreign origin with nothing in it that a browser would act on."""
    short = text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…"
    return escape(printable(short, keep="\n\t"), quote=True)
