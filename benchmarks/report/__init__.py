"""The report of one or several runs: a page to show, and Markdown to paste.

This module decides which files there are. It must not know what is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .contents import gather_contents
from .markdown import write_markdown
from .page import write_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..records import Run

__all__ = ["write_report"]


def write_report(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write ``report.md`` and ``report.html``, where there are none yet.

    Args:
        runs: What was measured. Different things stand together; the same thing is compared, first run before later.
        folder: Made where it is not there.

    Returns:
        The files.

    Raises:
        ValueError: There is no run.
        OSError: A file is there already, or cannot be written.
    """
    contents = gather_contents(runs)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {folder / "report.md": write_markdown(contents), folder / "report.html": write_page(contents)}
    for path, text in texts.items():
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    return list(texts)
