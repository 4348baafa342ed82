"""``vision embed``.

This module decides that vectors which are printed or written together are of one space. It must not know any backend.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vision_backends.cli.asking import (
    MATRIX,
    as_they_come,
    images_of,
    open_router,
    present,
    rows_of,
    shares_time,
    tally_of,
    together,
)
from vision_backends.cli.inputs import Input, texts
from vision_backends.cli.options import AskOptions, Images, ListOptions, Space, Truncate, command
from vision_backends.cli.rendering.answers import print_embedding
from vision_backends.cli.rendering.exits import tell
from vision_backends.cli.rendering.outputs import refuse_inputs, save_vectors
from vision_backends.cli.rows import Rows
from vision_backends.errors import InvalidRequestError, VisionError
from vision_backends.types import Embedding

if TYPE_CHECKING:
    from vision_backends.config.settings import Settings
    from vision_backends.router import Router
    from vision_backends.routing.options import CallKeywords

__all__ = ["embed"]


@command
def embed(
    paths: Images = None,
    *,
    text: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Embed this text instead of an image; can be repeated.")
    ] = None,
    space: Space = None,
    truncate: Truncate = False,
    options: ListOptions,
) -> None:
    """Turn images or texts into vectors that can be compared.

    With --out FILE.npy, all vectors are written at the end, as one array, with FILE.npy.json beside it.
    """
    options.check_out(MATRIX)
    if truncate and not text:
        raise InvalidRequestError("--truncate is for texts.", remedy="Pass --text, or leave it out.")
    find = partial(_embeddable, paths or (), text or (), options)
    with open_router(options, "embed_text" if text else "embed", find, space=space) as (router, settings, inputs):
        asked = {"space": space, "truncate": truncate, "text": bool(text)}
        with rows_of(inputs, "embed", asked, options, settings) as (left, rows):
            pinned = _one_space(space, rows)
            keywords: dict[str, Any] = {"space": pinned, **options.keywords()}
            if text:
                texts_many = partial(router.embed_text_many, truncate=truncate, **keywords)
                answers = together(left, texts_many, options, rows, in_parts=False)
            elif shares_time(options) or (pinned is None and rows is None):
                many = partial(router.embed_many, **keywords)
                answers = together(left, many, options, rows, in_parts=False)  # parts might be of two spaces
            else:
                answers = as_they_come(left, partial(_in_one_space, router, pinned, options.keywords()), options, rows)
            if rows is not None and space is None:
                answers = _honest(answers, rows)
            if options.out is not None and rows is None:
                refuse_inputs([options.out], inputs)
                answers = _saved(answers, options.out, quiet=options.quiet)
            show = None if options.out else partial(print_embedding, many=len(inputs) > 1)
            present(answers, show, options, tally_of(inputs, left, options), rows)


def _embeddable(paths: Sequence[str], text: Sequence[str], options: AskOptions, settings: "Settings") -> list[Input]:
    if bool(paths or options.paths_from) == bool(text):
        raise InvalidRequestError(
            "Images and --text were both given." if text else "There is nothing to embed.",
            remedy="Name images, or pass --text.",
        )
    return texts(text) if text else images_of(paths, options, settings)


def _one_space(space: str | None, rows: Rows | None) -> str | None:
    """Return the space that vectors have to be of; None where the first of them decides.

    Raises:
        InvalidRequestError: It is not that of the rows which are there.
    """
    there = None if rows is None else rows.space
    if space is not None and there is not None and space != there:
        raise InvalidRequestError(
            f"The file of --out holds vectors of {there!r}, and no others go with them.", remedy="Name another file."
        )
    return space or there


def _in_one_space(
    router: "Router", space: str | None, keywords: "CallKeywords", sources: Iterable[Path | bytes | str]
) -> Iterator[Embedding | VisionError]:
    """Yield vectors as they come, of the space that was named, or of the first one."""
    coming = iter(sources)
    for source in coming:
        if space is not None:
            yield from router.embed_each(chain([source], coming), space=space, **keywords)
            return
        (first,) = router.embed_many([source], **keywords)
        yield first
        space = first.space if isinstance(first, Embedding) else None


def _honest(
    answers: Iterator[tuple[Input, Embedding | VisionError]], rows: Rows
) -> Iterator[tuple[Input, Embedding | VisionError]]:
    """Call vectors degraded that are of the space of a degraded one, and not of the one that was passed over for it."""
    because = f"the file holds degraded vectors of {rows.space}" if rows.has_degraded else None
    for each, outcome in answers:
        vector = outcome
        if isinstance(outcome, Embedding):
            trace = outcome.trace
            if trace.degraded:
                because = because or trace.reason
            elif because and any(attempt.error == "not_supported" for attempt in trace.attempts[:-1]):
                vector = replace(outcome, trace=replace(trace, degraded=True, reason=because))
        yield each, vector


def _saved(
    answers: Iterator[tuple[Input, Embedding | VisionError]], path: Path, *, quiet: bool
) -> Iterator[tuple[Input, Embedding | VisionError]]:
    """Save all vectors, then pass them on."""
    outcomes = list(answers)
    saved = save_vectors(path, [(each.name, outcome) for each, outcome in outcomes])
    if saved and not quiet:
        tell(f"{saved} {'vector' if saved == 1 else 'vectors'} written to {path}")
    yield from outcomes
