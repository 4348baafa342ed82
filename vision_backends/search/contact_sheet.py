"""A page that shows what was found as pictures.

This module decides how that page looks and that it is complete in itself: thumbnails without metadata, no script,
nothing that is loaded from elsewhere. It must not know how the photos were found.
"""

from __future__ import annotations

import os
from html import escape
from typing import TYPE_CHECKING

from vision_backends.errors import VisionError
from vision_backends.foreign_text import printable
from vision_backends.images import DEFAULT_LIMITS, ImageLimits, encode_for_wire, open_image

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vision_backends.search.records import Hit

__all__ = ["contact_sheet"]

THUMBNAIL_PX = 320
"""The longer side of a thumbnail, for screens that show two pixels where the page has one."""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; }}
h1 {{ font-size: 1.2rem; overflow-wrap: anywhere; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 1.2rem; }}
figure {{ margin: 0; }}
a {{ display: flex; height: 170px; align-items: center; justify-content: center; background: #8882; color: inherit; }}
img {{ max-width: 100%; max-height: 100%; }}
figcaption {{ margin-top: .3rem; overflow-wrap: anywhere; }}
small {{ opacity: .7; }}
</style>
<h1>{title}</h1>
<main>
{figures}</main>
</html>
"""

FIGURE = """<figure>
<a href="{link}" title="{path}">{picture}</a>
<figcaption>{name}<br><small>{score:.3f}{copies}</small></figcaption>
</figure>
"""


def contact_sheet(hits: Iterable[Hit], *, title: str, limits: ImageLimits = DEFAULT_LIMITS) -> str:
    """Return an HTML page with a thumbnail of each photo, which links to the file.

    Args:
        hits: What was found.
        title: What was asked for.
        limits: How long image files may be.
    """
    figures = "".join(_figure(hit, limits) for hit in hits)
    return PAGE.format(title=escape(printable(title)), figures=figures or "<p>Nothing was found.</p>\n")


def _figure(hit: Hit, limits: ImageLimits) -> str:
    more = len(hit.copies)
    return FIGURE.format(
        link=escape(hit.path.absolute().as_uri()),
        path=escape(printable(os.fspath(hit.path))),
        picture=_picture(hit.path, limits),
        name=escape(printable(hit.path.name)),
        score=hit.score,
        copies=f" · {more} {'copy' if more == 1 else 'copies'}" if more else "",
    )


def _picture(path: Path, limits: ImageLimits) -> str:
    """Return a photo as an element of the page, or why there is none."""
    try:
        pixels = open_image(path, min_side_px=THUMBNAIL_PX, limits=limits).rgb(min_side_px=THUMBNAIL_PX)
    except VisionError as error:
        return escape(printable(error.message))
    pixels.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return f'<img alt="" src="{encode_for_wire(pixels).data_url}">'
