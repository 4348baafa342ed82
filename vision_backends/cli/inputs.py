"""From the arguments of a command line to the images that they name.

This module decides what a file, a folder, a pattern and ``-`` stand for. It must not know what is done with them.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.errors import InvalidRequestError
from vision_backends.search.folders import is_image_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Input", "find_images", "texts"]


_WEB_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One image or text to be asked about.

    Attributes:
        name: What the user calls it.
        source: What the router is given.
        error: Why it cannot be asked about; None when it can.
    """

    name: str
    source: Path | bytes | str
    error: InvalidRequestError | None = None


def find_images(arguments: Iterable[str], *, max_bytes: int) -> list[Input]:
    """Return the images that arguments name, in their order.

    An argument is a file, a folder (its images, sorted, not those of its folders), a pattern such as
    ``"*.jpg"`` that the shell has not expanded, a data: URL, a web address, or ``-`` for standard input.

    Args:
        arguments: As the shell gave them.
        max_bytes: Nothing is read from standard input beyond this and one byte more.
    """
    found: list[Input] = []
    for argument in arguments:
        if argument == "-":
            taken = any(each.name == "-" for each in found)
            found.append(_refuse("-", "can be read only once") if taken else _read_stdin(max_bytes))
        elif _WEB_URL.match(argument):  # in which "?" is no pattern
            found.append(Input(name=argument, source=argument))
        elif not os.path.lexists(argument) and glob.has_magic(argument):
            matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 — Path.glob takes no absolute one
            found += [each for match in matches for each in _named(match)]
            found += [] if matches else [_refuse(argument, "matches no file")]
        else:
            found += _named(argument)
    return found


def texts(arguments: Iterable[str]) -> list[Input]:
    """Return texts to be embedded; each is its own name."""
    return [Input(name=text, source=text) for text in arguments]


def _named(argument: str) -> Iterator[Input]:
    if not os.path.lexists(argument):  # a data: URL, or the router will say that it is not there
        yield Input(name=f"{argument[:40]}…" if argument.startswith("data:") else argument, source=argument)
    elif Path(argument).is_dir():
        yield from _images_of(argument)
    else:
        yield Input(name=argument, source=Path(argument))


def _images_of(folder: str) -> Sequence[Input]:
    try:
        files = sorted(entry.name for entry in Path(folder).iterdir() if entry.is_file())
    except OSError as error:
        return [_refuse(folder, f"cannot be read: {error.strerror}")]
    names = [str(Path(folder) / file) for file in files if is_image_name(file)]
    return [Input(name=name, source=Path(name)) for name in names] or [_refuse(folder, "is a folder without images")]


def _read_stdin(max_bytes: int) -> Input:
    if sys.stdin.isatty():
        return _refuse("-", "is the terminal: pipe an image into it")
    try:
        return Input(name="-", source=sys.stdin.buffer.read(max_bytes + 1))
    except OSError as error:
        return _refuse("-", f"cannot be read: {error.strerror or error}")


def _refuse(name: str, why: str) -> Input:
    shown = "Standard input" if name == "-" else name
    return Input(name=name, source=name, error=InvalidRequestError(f"{shown} {why}."))
