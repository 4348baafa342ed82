"""Draws boxes and labels on a picture, for people to look at.

This module decides colours, sizes and where a label goes. It must not know what the boxes mean, nor what found them.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from unicodedata import combining, normalize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL import Image as PILImage
    from PIL import ImageDraw, ImageFont

    Box = tuple[int, int, int, int]
    Colour = tuple[int, int, int]

__all__ = ["draw_boxes"]

_PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),  # Okabe and Ito's, distinguishable with any kind of colour vision
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (170, 221, 68),  # further ones, which differ in lightness from those of similar hue
    (136, 68, 170),
    (238, 238, 238),
    (255, 205, 178),
    (160, 20, 60),
    (0, 206, 190),
    (150, 110, 70),
    (255, 105, 130),
    (130, 225, 150),
    (70, 70, 210),
    (195, 175, 255),
    (128, 128, 0),
    (200, 0, 160),
)
"""The first seven: Okabe and Ito, Color Universal Design, 2008, without black."""

_EDGE_OPACITY = 150  # of 255
_LINE_SHARE = 0.006
_FONT_SHARE = 0.032
_MIN_FONT_PX = 12
_MAX_LETTERS = 40
_SALT = b"199245"
"""Chosen so that labels of COCO that often share a picture get different colours."""

_SCORE = re.compile(r"\s+[\d.,]+\s*%?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """What fits one picture: its size, the font, and lengths in pixels."""

    width: int
    height: int
    font: ImageFont.FreeTypeFont
    ascent_px: int
    descent_px: int
    line_px: int
    edge_px: int
    padding_px: int


def draw_boxes(image: PILImage.Image, boxes: Sequence[tuple[str, tuple[float, float, float, float]]]) -> PILImage.Image:
    """Return an RGB copy of a picture with labelled boxes on it.

    Lines and letters grow with the picture. A label has the same colour in every picture; a number at its end,
    such as a score, does not count.

    Args:
        image: The picture.
        boxes: Labels, each with left, top, right and bottom in pixels of the picture; what lies outside is clipped.
    """
    from PIL import ImageDraw

    canvas = image.convert("RGB")
    style = _style_for(canvas)
    draw = ImageDraw.Draw(canvas, "RGBA")
    inside = [(" ".join(label.split()), _clip(box, canvas.size)) for label, box in boxes]
    for label, box in sorted(inside, key=lambda item: -_area(item[1])):  # small boxes stay visible
        _draw_outline(draw, box, colour=_colour_of(label), style=style)
    taken: list[Box] = []
    for label, box in inside:
        _draw_chip(draw, label, box, style=style, taken=taken)
    return canvas


def _style_for(image: PILImage.Image) -> _Style:
    from PIL import ImageFont

    scale_px = min(math.sqrt(image.width * image.height), 2 * min(image.size))
    font_px = max(_MIN_FONT_PX, round(scale_px * _FONT_SHARE))
    font = cast("ImageFont.FreeTypeFont", ImageFont.load_default(font_px))  # what it is for any given size
    ascent_px, descent_px = font.getmetrics()
    line_px = max(1, round(scale_px * _LINE_SHARE))
    return _Style(
        width=image.width,
        height=image.height,
        font=font,
        ascent_px=ascent_px,
        descent_px=descent_px,
        line_px=line_px,
        edge_px=max(1, round(line_px / 4)),
        padding_px=round(font_px / 3),
    )


def _colour_of(label: str) -> Colour:
    """Return the colour of a label, derived from its hash so that it depends on nothing else."""
    name = _SCORE.sub("", label).casefold()
    digest = hashlib.sha256(_SALT + name.encode("utf-8", "replace")).digest()
    return _PALETTE[int.from_bytes(digest[:8], "big") % len(_PALETTE)]


def _draw_outline(draw: ImageDraw.ImageDraw, box: Box, *, colour: Colour, style: _Style) -> None:
    """Draw a coloured line between two thin black or white ones, so that it shows on any background."""
    x1, y1, x2, y2 = box
    edge, line = style.edge_px, style.line_px
    shade = (*_ink_on(colour), _EDGE_OPACITY)
    for inset, ink, width in ((-edge, shade, edge), (0, colour, line), (line, shade, edge)):
        left, top, right, bottom = x1 + inset, y1 + inset, x2 - inset - 1, y2 - inset - 1
        if left <= right and top <= bottom:
            draw.rectangle((left, top, right, bottom), outline=ink, width=width)


def _draw_chip(draw: ImageDraw.ImageDraw, label: str, box: Box, *, style: _Style, taken: list[Box]) -> None:
    """Draw a label on a chip of its colour, where it hides the others least; nothing where the picture is too small."""
    text = _fit(label, style)
    height = style.ascent_px + style.descent_px + style.padding_px // 2
    if not text or 2 * height > style.height:
        return
    width = math.ceil(style.font.getlength(text)) + 2 * style.padding_px
    places = _places(box, width, height, style)
    chip = min(places, key=lambda place: sum(_overlap(place, other) for other in taken))
    taken.append(chip)
    left, top, right, bottom = chip
    colour = _colour_of(label)
    draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
    baseline = (left + style.padding_px, top + style.padding_px // 4 + style.ascent_px)
    draw.text(baseline, text, fill=_ink_on(colour), font=style.font, anchor="ls")


def _places(box: Box, width: int, height: int, style: _Style) -> Iterator[Box]:
    """Yield where a chip may stand, best first: above the box, inside at its top, below, inside at its bottom.

    In a picture of twice the chip's height, one of the first two is always free of the picture's edge.
    """
    x1, y1, x2, y2 = box
    for left in (x1, x2 - width):
        for top in (y1 - height, y1, y2, y2 - height):
            if 0 <= top <= style.height - height:
                inside = max(0, min(left, style.width - width))
                yield inside, top, inside + width, top + height


def _fit(label: str, style: _Style) -> str:
    """Shorten a label until its chip is no wider than the picture.

    Accents are dropped, because the font that comes with Pillow has ASCII letters only; what else it lacks shows
    as empty squares.
    """
    room_px = style.width - 2 * style.padding_px
    text = "".join(letter for letter in normalize("NFKD", label) if not combining(letter))
    text = text.encode("utf-8", "replace").decode()
    letters = min(len(text), _MAX_LETTERS)
    while letters:
        shown = text if letters == len(text) else f"{text[:letters].rstrip()}…"
        if style.font.getlength(shown) <= room_px:
            return shown
        letters -= 1
    return ""


def _ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever contrasts more: black above a relative luminance of 0.179 (WCAG 2.2)."""
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def _clip(box: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """Return the part of a box inside a picture, in whole pixels."""
    (x1, y1, x2, y2), (width, height) = box, size
    left, right = sorted(round(max(0.0, min(x, float(width)))) for x in (x1, x2))
    top, bottom = sorted(round(max(0.0, min(y, float(height)))) for y in (y1, y2))
    return left, top, right, bottom


def _area(box: Box) -> int:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def _overlap(first: Box, second: Box) -> int:
    """Return the area in square pixels that two boxes share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0, width) * max(0, height)
