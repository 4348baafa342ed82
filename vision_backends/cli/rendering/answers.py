"""Answers on standard output, and what went less than well on standard error.

This module decides how an answer reads. It must not know how it was asked for.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from vision_backends.cli.rendering.exits import SOME_ANSWERED, WITH_TABLE, exit_code_of, tell, tell_error
from vision_backends.cli.rendering.text import dump_json, one_line, print_table
from vision_backends.errors import AllBackendsFailedError, SpaceUnavailableError, VisionError
from vision_backends.foreign_text import printable

if TYPE_CHECKING:
    from vision_backends.routing.streaming import DescriptionStream
    from vision_backends.types import Description, Detections, Embedding, Reply, Trace

    Answer = Description | Embedding | Detections | Reply

__all__ = [
    "NOT_FETCHED",
    "Tally",
    "print_description",
    "print_detections",
    "print_embedding",
    "print_json",
    "print_pieces",
    "print_reply",
    "to_json",
]

NOT_FETCHED = "not_fetched"
"""Code of an attempt whose model has to be fetched with a command."""

MENDED_HERE = {NOT_FETCHED, "missing_packages"}
"""Codes of what a command on this machine mends; the reason line names it."""

NO_SIDES = ("-",) * 4
"""Printed in the place of a box."""

SHOWN_COMPONENTS = 4
"""Components of a vector that a person is shown."""


def to_json(name: str, outcome: Answer | VisionError) -> dict[str, Any]:
    """Return an answer or an error as one JSON-able object that names its source."""
    if not isinstance(outcome, VisionError):
        return {"source": name} | outcome.to_dict() | {"source": name}
    error: dict[str, Any] = {"kind": outcome.kind, "message": outcome.message, "remedy": outcome.remedy}
    if isinstance(outcome, WITH_TABLE):
        error["attempts"] = [attempt.to_dict() for attempt in outcome.attempts]
    return {"source": name, "error": error}


def print_json(name: str, outcome: Answer | VisionError) -> None:
    """Print an answer or an error as one line of JSON."""
    typer.echo(dump_json(to_json(name, outcome)))


def print_description(name: str, description: Description, *, many: bool) -> None:
    """Print a text; among many on one line, after the name of its image."""
    if many:
        typer.echo(f"{printable(name)}: {one_line(description.text)}")
    else:
        typer.echo(printable(description.text, keep="\n\t"))


def print_reply(_name: str, reply: Reply) -> None:
    """Print what was said, or the data where a form was asked for."""
    typer.echo(printable(reply.text, keep="\n\t") if reply.data is None else dump_json(reply.data))


def print_detections(name: str, found: Detections, *, many: bool) -> None:
    """Print one object per line, as ``score x1 y1 x2 y2 label``; on a terminal as a table.

    What is known of the whole image only has a ``-`` for each side.
    """
    if sys.stdout.isatty():
        if many:
            typer.echo(f"{printable(name)}: {len(found) + len(found.image_labels) or 'nothing'} found")
        rows = [(item.label, f"{item.score:.2f}", *(f"{side:.0f}" for side in item.xyxy)) for item in found]
        rows += [(item.label, f"{item.score:.2f}", *NO_SIDES) for item in found.image_labels]
        if rows:
            print_table(("label", "score", "left", "top", "right", "bottom"), rows)
        return
    prefix = f"{printable(name)}: " if many else ""
    for item in found:
        box = " ".join(f"{side:.1f}" for side in item.xyxy)
        typer.echo(f"{prefix}{item.score:.3f} {box} {one_line(item.label)}")
    for known in found.image_labels:
        typer.echo(f"{prefix}{known.score:.3f} {' '.join(NO_SIDES)} {one_line(known.label)}")


def print_embedding(name: str, embedding: Embedding, *, many: bool) -> None:
    """Print a vector's components with the nine digits that hold a float32; on a terminal only the first few."""
    prefix = f"{printable(name)}: " if many else ""
    if sys.stdout.isatty():
        start = " ".join(f"{value:.4f}" for value in embedding.vector[:SHOWN_COMPONENTS])
        typer.echo(f"{prefix}{start} … ({embedding.dimension} components of {one_line(embedding.space)})")
    else:
        typer.echo(prefix + " ".join(f"{value:.9g}" for value in embedding.vector))


@dataclass(slots=True)
class Tally:
    """Counts how the inputs of one command ended.

    Attributes:
        total: How many inputs there are.
        quiet: Whether nothing is told but errors.
        answered: How many inputs have an answer.
    """

    total: int
    quiet: bool = False
    answered: int = 0
    _worst: int = 0
    _is_unwritten: bool = False
    _degraded: dict[tuple[object, ...], tuple[int, Trace]] = field(default_factory=dict)
    _failures: dict[tuple[object, ...], AllBackendsFailedError | SpaceUnavailableError] = field(default_factory=dict)
    _notes: dict[str, None] = field(default_factory=dict)
    _counted: int = 0
    _empty: int = 0
    _cut: int = 0

    def count(self, name: str, outcome: Answer | VisionError) -> None:
        """Note an answer, or tell an error."""
        self._counted += 1
        if isinstance(outcome, VisionError):
            self.fail(name, outcome)
            return
        self.answered += 1
        trace = outcome.trace
        if trace.degraded:
            key = (trace.backend, *((missed.backend, missed.error) for missed in trace.attempts[:-1]))
            count, first = self._degraded.get(key, (0, trace))
            self._degraded[key] = (count + 1, first)
        for note in trace.notes:
            named = self.total == 1 or name in note
            self._notes[note if named else f"{name}: {note}"] = None
        self._empty += getattr(outcome, "items", None) == () == getattr(outcome, "image_labels", None)
        self._cut += getattr(outcome, "complete", True) is False

    def conclude(self, *, interrupted: bool = False) -> None:
        """Say in one line each what holds for many answers.

        Args:
            interrupted: Whether the command ends before its last input.
        """
        if interrupted and self.total > 1:
            tell(f"interrupted after {self._counted} of {self.total}")
        if not self.quiet:
            self._tell_flaws()
        for error in self._failures.values():
            tell_error(error)

    def _tell_flaws(self) -> None:
        told: Counter[str] = Counter()
        for count, trace in self._degraded.values():
            commands = {each.remedy: None for each in trace.attempts if each.code in MENDED_HERE and each.remedy}
            reason = ". ".join([trace.reason or "", *commands])
            told[f"{trace.backend} answered, because {one_line(reason)}"] += count
        for why, count in told.items():
            tell(f"{self._of(count)}{why}")
        for note in self._notes:
            tell(note)
        if self._cut:
            tell(f"{self._of(self._cut)}the text was cut off at the model's length limit")
        if self._empty:
            tell(f"{self._of(self._empty)}nothing was found")

    @property
    def exit_code(self) -> int:
        """What says whether all inputs were answered, some, or none and why."""
        return SOME_ANSWERED if self._worst and self.answered and not self._is_unwritten else self._worst

    def fail(self, name: str, error: VisionError, *, unwritten: bool = False) -> None:
        """Tell an error, and count it.

        Args:
            name: The input's.
            error: What was wrong.
            unwritten: Whether there was an answer, which could not be written down.
        """
        self._worst = max(self._worst, exit_code_of(error))
        self._is_unwritten |= unwritten
        if isinstance(error, WITH_TABLE):
            key = (error.kind, *((attempt.backend, attempt.error) for attempt in error.attempts))
            self._failures.setdefault(key, error)  # the table of rungs is told once, in the end
            if self.total > 1:
                tell(f"{name}: {error.message}")
        else:
            named = self.total == 1 or name in error.message
            tell(str(error) if named else f"{name}: {error}")

    def _of(self, count: int) -> str:
        return f"{count} of {self.total}: " if self.total > 1 else ""


def print_pieces(name: str, pieces: DescriptionStream) -> None:
    """Print each piece as soon as it comes, and end the line, also when the stream breaks off.

    Raises:
        VisionError: Whatever iterating raises; what has come until then stays on the screen.
    """
    last = ""
    with closing(pieces):
        try:
            for piece in pieces:
                last = piece or last
                typer.echo(printable(piece, keep="\n\t"), nl=False)  # which flushes
        finally:
            if last and not last.endswith("\n"):
                typer.echo()
    tally = Tally(total=1)
    if pieces.description is not None:
        tally.count(name, pieces.description)
    tally.conclude()
