"""From the arguments of a command line to the images that they name.

This module decides what a file, a folder, a pattern and ``-`` stand for. It must not know what is done with them.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.errors import InvalidRequestError
from vision_backends.image_files import Walk, is_image_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Input", "find_images", "folders_left_out", "is_address", "read_paths", "texts"]

MOST_LIST_BYTES = 256_000_000
"""Of a list of paths; a million long ones have less."""


LONGEST_PATH_BYTES = 4096

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


def find_images(
    arguments: Iterable[str], *, max_bytes: int, recursive: bool = False, listed: Iterable[str] = ()
) -> list[Input]:
    """Return the images that arguments name, in their order, each file once.

    An argument is a file, a folder (its images, sorted), a pattern such as ``"*.jpg"`` that the shell has not expanded,
    a data: URL, a web address, or ``-`` for standard input.

    Args:
        arguments: As the shell gave them.
        max_bytes: Nothing is read from standard input beyond this and one byte more.
        recursive: Whether a folder also stands for the images of all folders below it.
        listed: More files, folders and web addresses; patterns and ``-`` have no meaning there.
    """
    images_of = _images_below if recursive else _images_of
    found: list[Input] = []
    for argument in arguments:
        if argument == "-":
            taken = any(each.name == "-" for each in found)
            found.append(_refuse("-", "can be read only once") if taken else _read_stdin(max_bytes))
        elif _WEB_URL.match(argument):  # in which "?" is no pattern
            found.append(Input(name=argument, source=argument))
        elif not os.path.lexists(argument) and glob.has_magic(argument):
            matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 — Path.glob takes no absolute one
            found += [each for match in matches for each in _named(match, images_of)]
            found += [] if matches else [_refuse(argument, "matches no file")]
        else:
            found += _named(argument, images_of)
    for name in listed:
        found += [Input(name=name, source=name)] if _WEB_URL.match(name) else _named(name, images_of)
    return _once(found)


def read_paths(file: Path, *, null: bool) -> list[str]:
    """Return the paths in a file, or on standard input if that is ``-``.

    Args:
        file: What holds them.
        null: Whether each ends in NUL instead of a line break.

    Raises:
        InvalidRequestError: It cannot be read.
    """
    is_stdin = str(file) == "-"
    shown = "Standard input" if is_stdin else str(file)
    if is_stdin and sys.stdin.isatty():
        raise InvalidRequestError("Standard input is the terminal: pipe paths into it.")
    try:
        with nullcontext(sys.stdin.buffer) if is_stdin else file.open("rb") as opened:
            data = opened.read(MOST_LIST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(data) > MOST_LIST_BYTES:
        raise InvalidRequestError(f"{shown} has more than {MOST_LIST_BYTES / 1e6:g} MB of paths.")
    if b"\0" in data and not null:
        raise InvalidRequestError(f"{shown} has paths that end in NUL, or none at all.", remedy="Pass --null (-0).")
    return [os.fsdecode(path) for path in (data.split(b"\0") if null else data.splitlines()) if path]


def folders_left_out(arguments: Iterable[str]) -> dict[str, int]:
    """Return how many folders are in each folder that arguments name; hidden ones do not count."""
    counts = {argument: _count_folders(argument) for argument in arguments if Path(argument).is_dir()}
    return {folder: count for folder, count in counts.items() if count}


def is_address(source: str) -> bool:
    """Return whether what stands for an image is an address of the web or a data: URL, and no name of a file."""
    return bool(_WEB_URL.match(source)) or source.startswith("data:")


def texts(arguments: Iterable[str]) -> list[Input]:
    """Return texts to be embedded; each is its own name."""
    return [Input(name=text, source=text) for text in arguments]


def _once(found: Iterable[Input]) -> list[Input]:
    """Leave out a file that has been named before, also if a link leads to it."""
    once: dict[object, Input] = {}
    for place, each in enumerate(found):
        is_file = isinstance(each.source, Path) and each.error is None
        once.setdefault(os.path.realpath(each.source) if is_file else place, each)
    return list(once.values())


def _named(argument: str, images_of: Callable[[str], Iterable[Input]]) -> Iterator[Input]:
    if not os.path.lexists(argument):  # a data: URL, or the router will say that it is not there
        yield Input(name=f"{argument[:40]}…" if argument.startswith("data:") else argument, source=argument)
    elif Path(argument).is_dir():
        yield from images_of(argument)
    else:
        yield Input(name=argument, source=Path(argument))


def _images_of(folder: str) -> Sequence[Input]:
    try:
        files = sorted(entry.name for entry in Path(folder).iterdir() if entry.is_file())
    except OSError as error:
        return [_refuse(folder, f"cannot be read: {error.strerror}")]
    names = [str(Path(folder) / file) for file in files if is_image_name(file)]
    return [Input(name=name, source=Path(name)) for name in names] or [_without_images(folder)]


def _images_below(folder: str) -> Sequence[Input]:
    walk = Walk()
    found = [Input(name=file.path, source=Path(file.path)) for file in walk.files(folder)]
    unreadable = [_refuse(below, f"cannot be read: {why}") for below, why in walk.unreadable.items()]
    return [*found, *unreadable] or [_without_images(folder)]


def _without_images(folder: str) -> Input:
    remedy = "Its folders were left out; -r takes them too." if _count_folders(folder) else None
    return _refuse(folder, "is a folder without images", remedy=remedy)


def _count_folders(folder: str) -> int:
    try:
        return sum(entry.is_dir() and not entry.name.startswith(".") for entry in Path(folder).iterdir())
    except OSError:
        return 0


def _read_stdin(max_bytes: int) -> Input:
    if sys.stdin.isatty():
        return _refuse("-", "is the terminal: pipe an image into it")
    try:
        data = sys.stdin.buffer.read(max_bytes + 1)
    except OSError as error:
        return _refuse("-", f"cannot be read: {error.strerror or error}")
    first = re.split(rb"[\0\r\n]", data[:LONGEST_PATH_BYTES], maxsplit=1)[0]
    if first and os.path.lexists(first):  # an upload that was piped in must not name files of this machine
        remedy = "Pass --paths-from - for paths, and -0 if they end in NUL."
        return _refuse("-", "holds paths, and - stands for one image", remedy=remedy)
    return Input(name="-", source=data)


def _refuse(name: str, why: str, *, remedy: str | None = None) -> Input:
    shown = "Standard input" if name == "-" else name
    return Input(name=name, source=name, error=InvalidRequestError(f"{shown} {why}.", remedy=remedy))
