"""Notebooks as pages: their cells in order, with what they have printed and shown.

This module decides how a notebook reads on the site. It must not know how notebooks are run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["page_of"]


def page_of(path: Path) -> str:
    """Return a notebook as Markdown."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "\n\n".join(part for cell in cells for part in _parts(cell)) + "\n"


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        yield _shown(output)


def _shown(output: dict[str, Any]) -> str:
    """Return the richest form of one output that a page can show."""
    data = output.get("data", {})
    if "text/html" in data:
        return '<div markdown="0">' + "".join(data["text/html"]).replace("\n\n", "\n") + "</div>"
    if "image/png" in data:
        return f'<img alt="What the cell has drawn" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    text = "".join(output.get("text") or data.get("text/plain", "")).rstrip()
    return f'<div class="output" markdown="1">\n\n```text\n{text}\n```\n\n</div>'
