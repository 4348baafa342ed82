"""Whether the weights of a checkpoint are those of the model that its configuration describes.

This module decides from what transformers reports of a load. Weights that are missing or of another shape are a flaw,
and so are weights that nothing takes although the model has the part that they belong to: the configuration has fewer
layers than the weights, say, and the model would answer with half of itself. What is left of a part that the model does
not have at all, such as the head for another task, is none. It must not know how anything is loaded.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.hub.flaws import FlawError, refusal, refusing
from vision_backends.backends.local.hub.weights import find_weights, read_header, refuse_holes, tensors
from vision_backends.backends.local.runtime.torch_environment import is_shortage
from vision_backends.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vision_backends.backends.local.hub.checkpoint import Checkpoint

__all__ = ["blamed_on", "check_weights"]

UNNEEDED = frozenset(
    {
        *("attn_mask", "inv_freq", "masked_bias", "num_batches_tracked", "position_ids"),
        *("relative_coords_table", "relative_position_index", "mask_token"),
    }
)
"""Tensors that models compute themselves today, and older versions have saved; and one that only training needs."""

INTEGERS = frozenset({"BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"})
"""Dtypes of what is counted or computed, not learned."""

PLAIN = frozenset({"weight", "bias"})


def check_weights(checkpoint: Checkpoint, model: Any, report: Mapping[str, Any]) -> None:  # noqa: ANN401 — any model
    """Return if the weights have arrived whole, and are of one model with the configuration.

    Args:
        checkpoint: What was loaded.
        model: What came of it.
        report: What ``from_pretrained`` has reported, with ``ignore_mismatched_sizes``.

    Raises:
        NotReadyError: They have not, or are not; ``code`` is ``"incomplete"`` or ``"inconsistent"``.
    """
    headers = {path: read_header(path) for path in find_weights(checkpoint.folder)}
    with refusing(checkpoint.name):
        for path, header in headers.items():
            refuse_holes(path, header)
    why = (
        _lacking(sorted(report["missing_keys"]), checkpoint.weights)
        or _misshapen(sorted(report["mismatched_keys"]), checkpoint.weights)
        or _left(sorted(report["unexpected_keys"]), model, checkpoint.weights, integers=_integers(headers.values()))
    )
    if why is None and report["error_msgs"]:
        why = f"{checkpoint.weights} does not fit config.json: {' '.join(str(report['error_msgs'][0]).split())[:300]}"
    if why is not None:
        raise refusal(checkpoint.name, FlawError(why, code="inconsistent"))


@contextmanager
def blamed_on(checkpoint: Checkpoint, file: str, *, code: str = "incomplete") -> Iterator[None]:
    """Translate what a library raises while it reads a file of the checkpoint into the flaw of that file.

    What the machine lacks (packages, memory, open files) is left to others.
    """
    try:
        yield
    except (BackendError, ImportError):
        raise
    except Exception as error:
        if is_shortage(error) or (isinstance(error, OSError) and error.errno is not None):
            raise
        said = " ".join(str(error).split())[:300]
        flaw = FlawError(f"transformers cannot use {file} ({type(error).__name__}: {said})", code=code)
        raise refusal(checkpoint.name, flaw) from error


def _lacking(missing: list[str], weights: str) -> str | None:
    return f"{weights} lacks {len(missing)} weights, such as {missing[0]}" if missing else None


def _misshapen(mismatched: list[tuple[str, Iterable[int], Iterable[int]]], weights: str) -> str | None:
    if not mismatched:
        return None
    name, found, wanted = mismatched[0]
    return f"{name} has the shape {[*found]} in {weights}, and {[*wanted]} by config.json"


def _left(unexpected: list[str], model: Any, weights: str, *, integers: set[str]) -> str | None:  # noqa: ANN401 — the same
    """Return why weights that nothing has taken are a flaw, if they are."""
    parts: dict[str, Any] = dict(model.named_modules(remove_duplicate=False))
    learned = [name for name in unexpected if name.rpartition(".")[2] not in UNNEEDED | integers]
    prefix = f"{model.base_model_prefix}."
    owned = [place for name in learned if (place := _owner(name, parts, prefix)) is not None]
    for owner, rest in owned:
        if rest[0].isdecimal():
            layers = len([*parts[owner].children()])
            more = len({steps[0] for place, steps in owned if place == owner})
            return f"{weights} has {layers + more} of {owner}, and config.json asks for {layers}"
    if owned:
        owner, rest = owned[0]
        unused = ".".join([owner, *rest])
        return f"{weights} has {len(owned)} weights that config.json has no use for, such as {unused}"
    return None


def _integers(headers: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the last names of the tensors of integers, whatever the parts that they are in are called today."""
    found = (pair for header in headers for pair in tensors(header).items())
    return {name.rpartition(".")[2] for name, entry in found if entry["dtype"] in INTEGERS} - PLAIN


def _owner(name: str, parts: Mapping[str, Any], prefix: str) -> tuple[str, list[str]] | None:
    """Return the part of the model that a tensor belongs to, and its path within; None where it has no such part.

    It has, if that is a list of layers, one of the layers, or something that has a weight of its own.
    """
    places = [_place(each, parts) for each in (name, prefix + name, name.removeprefix(prefix))]
    owner, rest = max(places, key=lambda place: place[0].count(".") + bool(place[0]))
    is_layer = re.search(r"(^|\.)\d+(\.|$)", owner) is not None
    is_plain = len(rest) == 1 and rest[0] in PLAIN and any(True for _ in parts[owner].parameters(recurse=False))
    return (owner, rest) if owner and (rest[0].isdecimal() or is_layer or is_plain) else None


def _place(name: str, parts: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the innermost part of the model on the way to a tensor, and the rest of the way."""
    steps = name.split(".")
    for length in range(len(steps) - 1, 0, -1):
        owner = ".".join(steps[:length])
        if owner in parts:
            return owner, steps[length:]
    return "", steps
