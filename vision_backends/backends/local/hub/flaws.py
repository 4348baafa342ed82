"""What makes a checkpoint unusable, how that is told, and how its small files are read.

This module decides which error a flaw becomes, and which remedy helps. It must not know what a checkpoint consists of.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vision_backends.config.text_file import decode_text
from vision_backends.errors import NotReadyError
from vision_backends.regular_file import FileTooLargeError, NotRegularFileError, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = [
    "FETCHED_AGAIN",
    "MOST_SETTINGS_BYTES",
    "ODD",
    "FlawError",
    "odd_files_are_flaws",
    "read_json",
    "read_settings",
    "read_table",
    "refusal",
    "refusing",
    "unreadable",
]

FETCHED_AGAIN = frozenset({"incomplete", "no_safetensors", "inconsistent", "no_labels"})
"""Codes of flaws that fetching a model again may mend."""

REMEDIES = {
    "incomplete": "Fetch or save it again.",
    "inconsistent": "Fetch or save it again, so that config.json and the weights are of one model.",
    "no_labels": "Correct id2label in config.json: one name for each class number from 0 on, as text.",
    "no_safetensors": "Convert them: model.save_pretrained(...) writes safetensors.",
    "not_supported": "Only models of one CLIP-like module embed images and texts in one space.",
    "other_weights": "Take transformers_weights out of the file, or use another checkpoint.",
    "unreadable": "Let this user read the file.",
    "remote_code": "Use a checkpoint that needs no code of its own.",
}

MOST_SETTINGS_BYTES = 32_000_000
"""Larger files are none of settings."""

ODD = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What comes of a file that cannot be read, or whose content is not of the form that its name promises."""


class FlawError(Exception):
    """Why a checkpoint cannot be used.

    Args:
        why: The reason, to stand after a colon; names the file.
        code: Its code, a key of `REMEDIES`.
        missing: Names of files that are not there.
    """

    def __init__(self, why: str, *, code: str = "incomplete", missing: Sequence[str] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.code = code
        self.missing = missing


def refusal(name: str, flaw: FlawError) -> NotReadyError:
    """Return the error that names the checkpoint, its flaw and what to do."""
    message = f"The checkpoint {name} cannot be used: {flaw.why}."
    return NotReadyError(message, remedy=REMEDIES[flaw.code], code=flaw.code)


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Translate a flaw into the error that names the checkpoint and what to do."""
    try:
        with odd_files_are_flaws():
            yield
    except FlawError as flaw:
        raise refusal(name, flaw) from flaw.__cause__


@contextmanager
def odd_files_are_flaws() -> Iterator[None]:
    """Translate what comes of a file that is not what its name promises."""
    try:
        yield
    except ODD as error:
        why = f"a file of it is not what its name promises ({type(error).__name__}: {error})"
        raise FlawError(why) from error


def read_settings(path: Path) -> str:
    """Return the text of a file of settings. Errors as `read_regular`; ValueError where it is no text."""
    return decode_text(read_regular(path, max_bytes=MOST_SETTINGS_BYTES))


def read_json(path: Path) -> Any:  # noqa: ANN401 — whatever the file holds
    """Return the content of a file of settings; a `FlawError` where that cannot be read."""
    try:
        return json.loads(read_settings(path))
    except (FileTooLargeError, NotRegularFileError) as error:
        raise FlawError(f"{path.name} cannot be read: {error}") from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise FlawError(f"{path.name} is not valid JSON") from error


def read_table(path: Path) -> dict[str, Any]:
    """Return the same where it has to be a JSON object."""
    table = read_json(path)
    if not isinstance(table, dict):
        raise FlawError(f"{path.name} is not a JSON object")
    return table


def unreadable(path: Path, error: OSError) -> FlawError:
    """Return the flaw that a file is not there, that this user may not read it, or that the disk cannot."""
    if isinstance(error, FileNotFoundError):
        return FlawError(f"{path.name} is missing", missing=[path.name])
    code = "unreadable" if isinstance(error, PermissionError) else "incomplete"
    return FlawError(f"{path.name} cannot be read: {error.strerror or error}", code=code)
