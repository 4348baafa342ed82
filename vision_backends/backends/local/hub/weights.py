"""The files of weights: which there must be, and whether each has arrived whole.

This module decides from the tables of tensors at the beginning of the files, and reads next to nothing else of them. It
must not know which model they are of.
"""

from __future__ import annotations

import json
import math
import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vision_backends.backends.local.hub.flaws import ODD, FlawError, read_table, unreadable
from vision_backends.regular_file import NotRegularFileError, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["INDEX", "WEIGHTS", "count_numbers", "find_weights", "read_header", "refuse_holes", "start_of", "tensors"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")

MOST_HEADER_BYTES = 25_000_000
"""As much as huggingface_hub reads of a table of tensors; those of the largest models have a tenth of it."""

LEAST_HOLE_BYTES = 4096
MOST_HOLE_BYTES = 1 << 20
"""How long a stretch of weights must not be zeros: a hundredth, within these bounds; a bias of zeros is shorter."""

MOST_EMPTY = 3
"""So many matrices in a row that are zeros are a hole, however small they are; of large ones two are."""

PROBE_BYTES = 64

DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}


def find_weights(folder: Path, *, there: Callable[[Path], bool] = Path.is_file) -> list[Path]:
    """Return the files of weights, all of which are there; of several the index says which there must be.

    Args:
        folder: Where they are.
        there: Tells whether a file is there, or will be.

    Raises:
        FlawError: One is not.
    """
    if there(folder / WEIGHTS):
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        named = set(read_table(folder / INDEX).get("weight_map", {}).values())
        if any("/" in name or "\\" in name or not name.endswith(".safetensors") for name in named):
            raise FlawError(f"{INDEX} names files other than safetensors beside it", code="remote_code")
        missing = sorted(name for name in named if not there(folder / name))
        if missing or not named:
            raise FlawError(f"{', '.join(missing) or 'every shard'} is missing", missing=missing)
        return [folder / name for name in sorted(named)]
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickled:
        why = f"its weights are pickled ({pickled[0]}), and loading those could run anything"
        raise FlawError(why, code="no_safetensors", missing=[WEIGHTS])
    raise FlawError(f"there is no {WEIGHTS}", missing=[WEIGHTS])


def read_header(path: Path) -> dict[str, Any]:
    """Return a file's table of tensors: https://github.com/huggingface/safetensors#format.

    Raises:
        FlawError: It is not a safetensors file, or has not arrived whole.
    """
    try:
        with open_regular(path) as (file, size_bytes):
            (length,) = struct.unpack("<Q", file.read(8))
            if MOST_HEADER_BYTES < length <= size_bytes:
                raise FlawError(f"{path.name} has a table of tensors of {length:,} bytes, which is impossible")
            header: dict[str, Any] = json.loads(file.read(min(length, MOST_HEADER_BYTES)))
        end = _end_of_tensors(path, header)
        is_whole = size_bytes == 8 + length + end
        if is_whole and _ends_in_zeros(path, end):
            raise FlawError(f"{path.name} ends in zeros: it has not arrived whole")
        if is_whole:
            return {**header, "__start__": 8 + length}
    except NotRegularFileError as error:
        raise FlawError(f"{path.name} is not a regular file") from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (*ODD, struct.error) as error:
        raise FlawError(f"{path.name} is not a safetensors file") from error
    raise FlawError(f"{path.name} is cut short")


def refuse_holes(path: Path, header: Mapping[str, Any]) -> None:
    """Return unless a part of a file was never written: a download in several streams leaves holes of zeros.

    A matrix of zeros may be what was learned. A hole knows no borders: it is a stretch of zeros over several of them.

    Args:
        path: The file; a sample of it is read.
        header: Its table of tensors.

    Raises:
        FlawError: It has such a hole.
    """
    matrices = [entry["data_offsets"] for entry in tensors(header).values() if len(entry["shape"]) > 1]
    start, size_bytes = start_of(header), path.stat().st_size
    with open_regular(path) as (file, _):
        for first, end in _stretches_of_zeros(file, start, size_bytes, least_bytes=_hole_bytes(size_bytes - start)):
            over = sum(1 for a, b in matrices if a < end - start and first - start < b)
            if over >= MOST_EMPTY if end - first < MOST_HOLE_BYTES else over > 1:
                raise FlawError(f"{path.name} has a hole of {end - first:,} bytes of zeros: it has not arrived whole")


def tensors(header: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what a table says of each tensor, in the order of their names."""
    return {name: entry for name, entry in sorted(header.items()) if not name.startswith("__")}


def start_of(header: Mapping[str, Any]) -> int:
    """Return where in its file the first tensor begins."""
    start: int = header["__start__"]
    return start


def count_numbers(header: Mapping[str, Any]) -> int:
    """Return how many numbers a file holds."""
    spans = ((entry["data_offsets"], entry["dtype"]) for entry in tensors(header).values())
    return sum((end - start) // DTYPE_BYTES.get(dtype, 1) for (start, end), dtype in spans)


def _end_of_tensors(path: Path, header: Mapping[str, Any]) -> int:
    """Return where the last tensor ends, if each begins where another ends and is as long as its shape says."""
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    spans = sorted(tuple(entry["data_offsets"]) for entry in entries)
    if not all(0 <= start <= end for start, end in spans):
        raise FlawError(f"{path.name} has tensors that end before they begin")
    for entry in entries:
        start, end = entry["data_offsets"]
        wide = DTYPE_BYTES.get(entry["dtype"])
        if wide is not None and end - start != wide * math.prod(entry["shape"]):
            raise FlawError(f"{path.name} has tensors that are longer or shorter than their shape")
    if spans[0][0] != 0 or any(one[1] != other[0] for one, other in pairwise(spans)):
        raise FlawError(f"{path.name} has tensors that overlap, or bytes that belong to none")
    return int(spans[-1][1])


def _stretches_of_zeros(file: BinaryIO, start: int, end: int, *, least_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield where zeros begin and end, in steps of half the least length; whatever is longer holds such a step."""
    step = max(PROBE_BYTES, least_bytes // 2)
    first = None
    for place in range(start, end, step):
        file.seek(place)
        is_empty = _is_empty(file.read(PROBE_BYTES)) and _is_empty(file.read(step - PROBE_BYTES))
        if is_empty and first is None:
            first = place
        elif not is_empty and first is not None:
            yield first, place
            first = None
    if first is not None:
        yield first, end


def _is_empty(content: bytes) -> bool:
    return content.count(0) == len(content)


def _hole_bytes(size_bytes: int) -> int:
    """Return from what length on zeros in a file are a part of it that has not arrived."""
    return min(size_bytes, MOST_HOLE_BYTES, max(LEAST_HOLE_BYTES, size_bytes // 100))


def _ends_in_zeros(path: Path, size_bytes: int) -> bool:
    """Tell whether nothing was written to the end of a file whose room was reserved; trained weights are not zero."""
    tail_bytes = _hole_bytes(size_bytes)
    with path.open("rb") as file:
        file.seek(-tail_bytes, os.SEEK_END)
        return tail_bytes >= LEAST_HOLE_BYTES and _is_empty(file.read(tail_bytes))
