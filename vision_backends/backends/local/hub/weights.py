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
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.hub.flaws import ODD, FlawError, read_table, unreadable
from vision_backends.regular_file import NotRegularFileError, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["INDEX", "WEIGHTS", "count_numbers", "find_weights", "read_header", "start_of", "tensors"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")

MOST_HEADER_BYTES = 25_000_000
"""As much as huggingface_hub reads of a table of tensors; those of the largest models have a tenth of it."""

LEAST_TAIL_BYTES = 4096
MOST_TAIL_BYTES = 1 << 20
"""How much of the end of weights must not be zeros: a hundredth, within these bounds; a bias of zeros is shorter."""

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
        FlawError: It is no safetensors file, or has not arrived whole.
    """
    try:
        with open_regular(path) as (file, size_bytes):
            (length,) = struct.unpack("<Q", file.read(8))
            if MOST_HEADER_BYTES < length <= size_bytes:
                raise FlawError(f"{path.name} has a table of tensors of {length:,} bytes, which is absurd")
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
        raise FlawError(f"{path.name} is no safetensors file") from error
    raise FlawError(f"{path.name} is cut short")


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


def _ends_in_zeros(path: Path, size_bytes: int) -> bool:
    """Tell whether nothing was written to the end of a file whose room was reserved; trained weights are not zero."""
    tail_bytes = min(size_bytes, MOST_TAIL_BYTES, max(LEAST_TAIL_BYTES, size_bytes // 100))
    with path.open("rb") as file:
        file.seek(-tail_bytes, os.SEEK_END)
        return tail_bytes >= LEAST_TAIL_BYTES and not any(file.read(tail_bytes))
