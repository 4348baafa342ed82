"""How docstrings of the code become Markdown.

This module decides that; it must not know which names are shown.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class Markdown(griffe.Extension):
    """Reads a paragraph that ends with ``::`` as one that code follows, and double backticks as code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring before it is parsed."""
        if obj.docstring:
            text = re.sub(r"::\n\n(?= {4})", ":\n\n", obj.docstring.value)
            obj.docstring.value = text.replace("``", "`")
