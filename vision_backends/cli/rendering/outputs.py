"""Files that a command writes: boxes drawn on images, and vectors.

This module decides where they go, and that no input is overwritten. It must not know how answers are made.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.cli.rendering.answers import to_json
from vision_backends.errors import InvalidRequestError, VisionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vision_backends.cli.inputs import Input
    from vision_backends.images import ImageLimits
    from vision_backends.types import Detections, Embedding

__all__ = ["ROW_SUFFIXES", "drawing_paths", "refuse_inputs", "save_drawing", "save_vectors"]

ROW_SUFFIXES = (".jsonl", ".csv", ".parquet")
"""Of files that `cli.rows` writes."""

DRAWING_SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".webp"})

_SUFFIX = re.compile(r"\.[A-Za-z]{3,4}\d?")
"""What looks like the ending of a file, rather than a part of a folder's name."""


def drawing_paths(out: Path, inputs: Sequence[Input]) -> dict[str, Path]:
    """Return where the drawing of each input goes: a file for one input, else a folder with one file for each.

    Raises:
        InvalidRequestError: A file was named for several inputs, or ends otherwise, or an input would be overwritten.
    """
    if out.suffix.lower() in DRAWING_SUFFIXES and not out.is_dir():
        if len(inputs) > 1:
            raise InvalidRequestError(
                f"--draw {out} is one file for {len(inputs)} images.",
                remedy="Name a folder, such as --draw boxes; it is made if it is not there.",
            )
        paths = {each.name: out for each in inputs}
    elif _SUFFIX.fullmatch(out.suffix) and not out.is_dir():
        raise InvalidRequestError(
            f"--draw {out} ends in no format that is drawn.",
            remedy="End it in .png, .jpg or .webp, or name a folder, such as --draw boxes.",
        )
    else:
        paths = _paths_in(out, inputs)
    refuse_inputs(paths.values(), inputs)
    return paths


def save_drawing(path: Path, each: Input, found: Detections, *, limits: ImageLimits) -> None:
    """Draw what was found on its image and save it, without the image's metadata.

    Raises:
        InvalidRequestError: The file cannot be written.
    """
    from vision_backends.images import open_image

    drawing = found.draw(open_image(each.source, limits=limits).rgb())
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.save(path)


def save_vectors(path: Path, outcomes: Sequence[tuple[str, Embedding | VisionError]]) -> int:
    """Write vectors to a ``.npy`` file and return how many there are; without any, nothing is written.

    The file holds float32 [N, D], one row per input that was answered; the file beside it, which ends in
    ``.npy.json``, says which row is which, and which inputs have none and why.

    Raises:
        InvalidRequestError: The file cannot be written.
    """
    answered = [(name, outcome) for name, outcome in outcomes if not isinstance(outcome, VisionError)]
    if not answered:
        return 0
    with _writing(path):
        import numpy as np

        failed = [to_json(name, outcome) for name, outcome in outcomes if isinstance(outcome, VisionError)]
        first = answered[0][1]
        about = {
            "space": first.space,
            "backend": first.trace.backend,
            "model": first.trace.model,
            "revision": first.trace.revision,
            "shape": [len(answered), first.dimension],
            "sources": [name for name, _ in answered],
            "failed": failed,
        }
        with path.open("wb") as file:  # np.save would append to a name that ends in .NPY
            np.save(file, np.stack([embedding.vector for _, embedding in answered]))
        path.with_name(f"{path.name}.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return len(answered)


def _paths_in(folder: Path, inputs: Sequence[Input]) -> dict[str, Path]:
    """Return a file in a folder for each input, named after it; names that collide get a number."""
    paths: dict[str, Path] = {}
    taken: set[str] = set()
    for each in {each.name: each for each in inputs}.values():
        stem = each.source.stem if isinstance(each.source, Path) else "image"
        name, number = stem, 1
        while name.lower() in taken:  # lower: some file systems do not tell them apart
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        paths[each.name] = folder / f"{name}.png"
    return paths


def refuse_inputs(paths: Iterable[Path], inputs: Sequence[Input]) -> None:
    """Return if none of the paths is an input, under this or another name."""
    read = {_identity(each.source) for each in inputs if isinstance(each.source, Path) and each.source.exists()}
    for path in paths:
        if path.exists() and _identity(path) in read:
            raise InvalidRequestError(f"{path} is an input, and no input is overwritten.", remedy="Name another file.")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be written: {error.strerror or error}.") from error
