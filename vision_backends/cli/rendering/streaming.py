"""``vision describe --stream``: a text on the screen while it is being written.

This module decides what can be streamed, and how pieces are printed. It must not know who speaks.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import typer

from vision_backends.cli.rendering.answers import Tally
from vision_backends.cli.rendering.text import printable
from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.cli.inputs import Input
    from vision_backends.routing.streaming import DescriptionStream

__all__ = ["only_input", "print_pieces"]


def only_input(inputs: Sequence[Input], *, as_json: bool, batch: bool) -> Input:
    """Return the one image whose description can be streamed.

    Raises:
        InvalidRequestError: There are several, it cannot be asked about, or an option goes without streaming only.
    """
    for given, option, why in (
        (as_json, "--json", "prints whole answers"),
        (batch, "--batch", "is for answers that nobody waits for"),
    ):
        if given:
            raise InvalidRequestError(f"{option} {why}.", remedy="Leave out --stream.")
    if len(inputs) != 1:
        raise InvalidRequestError(f"--stream shows one text, not {len(inputs)}.", remedy="Name one image.")
    if inputs[0].error is not None:
        raise inputs[0].error
    return inputs[0]


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
