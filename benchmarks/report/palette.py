"""Colours and marks: one for each rung, the same on the whole page, in light and dark.

This module decides how things look that mean something. It must not know what is measured. Lightness differs as well
as hue, and every rung has a mark of its own, so that nothing depends on colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["INKS", "PARTS", "Ink", "Mark", "assign_marks", "css_variables"]


@dataclass(frozen=True, slots=True)
class Ink:
    """One colour: its name in CSS, and what it is on light and on dark ground."""

    name: str
    light: str
    dark: str

    @property
    def css(self) -> str:
        """What CSS calls it."""
        return f"var(--{self.name})"


@dataclass(frozen=True, slots=True)
class Mark:
    """How a rung is drawn: its colour, the shape in charts (matplotlib's), and the same shape as a letter."""

    ink: Ink
    shape: str
    letter: str


INKS: Mapping[str, Ink] = {
    ink.name: ink
    for ink in (
        Ink("paper", "#fcfbf8", "#15171a"),
        Ink("card", "#f5f3ed", "#1d2024"),
        Ink("ink", "#1e2227", "#ebe8e1"),
        Ink("soft", "#575f69", "#a9afb8"),
        Ink("line", "#dad6cc", "#363b42"),
        Ink("band", "#efece4", "#22262b"),
        Ink("bad", "#9b1c31", "#ff8e9c"),
        Ink("note", "#7a5a00", "#e5bd5b"),
        Ink("part-decode", "#aebdca", "#6f8496"),
        Ink("part-queue", "#d9b45f", "#b08a34"),
        Ink("part-model", "#3f6182", "#9cc0e2"),
        Ink("part-wire", "#7fa79c", "#4f8a7b"),
        Ink("part-other", "#d3cfc4", "#4a4f57"),
    )
}

PARTS = ("decode", "queue", "model", "wire", "other")
"""Parts of a call's time, in the order in which an image passes them."""

_MARKS = (
    Mark(Ink("rung-1", "#0b64a8", "#62b0f2"), "o", "●"),
    Mark(Ink("rung-2", "#00795b", "#3fcf9f"), "s", "■"),
    Mark(Ink("rung-3", "#b84703", "#ff9a5c"), "^", "▲"),
    Mark(Ink("rung-4", "#9a3f7d", "#e597cb"), "D", "◆"),
    Mark(Ink("rung-5", "#7d6300", "#dcc14a"), "v", "▼"),
    Mark(Ink("rung-6", "#5646ad", "#a99df5"), "P", "✚"),
    Mark(Ink("rung-7", "#5d5148", "#c3b3a5"), "p", "⬟"),
)
"""After Okabe and Ito, Color Universal Design, 2008; darker, for 4.5:1 on paper (WCAG 2.2), and lighter on dark."""

_NOBODY = Mark(INKS["bad"], "X", "✕")

_HOUSE = ("openai", "local", "embedded")


def assign_marks(backends: Iterable[str | None]) -> dict[str | None, Mark]:
    """Return the mark of each rung: the own three always have the same, others follow in the order given."""
    others = [name for name in dict.fromkeys(backends) if name is not None and name not in _HOUSE]
    names = [*_HOUSE, *others]
    return {None: _NOBODY} | {name: _MARKS[place % len(_MARKS)] for place, name in enumerate(names)}


def css_variables() -> str:
    """Return rules that set all colours, for light ground, for dark, and for paper."""
    inks = [*INKS.values(), *(mark.ink for mark in _MARKS)]
    light = " ".join(f"--{ink.name}: {ink.light};" for ink in inks)
    dark = " ".join(f"--{ink.name}: {ink.dark};" for ink in inks)
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
