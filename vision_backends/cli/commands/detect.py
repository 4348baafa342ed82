"""``vision detect``.

This module decides where boxes are drawn. It must not know any backend.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vision_backends.cli.asking import answers_of, images_of, open_router, present, rows_of, tally_of
from vision_backends.cli.inputs import Input
from vision_backends.cli.options import Images, Label, ListOptions, Truncate, command
from vision_backends.cli.rendering.answers import Tally, print_detections
from vision_backends.cli.rendering.outputs import drawing_paths, save_drawing
from vision_backends.errors import VisionError
from vision_backends.images import ImageLimits
from vision_backends.types import Detections

__all__ = ["detect"]


@command
def detect(
    paths: Images = None,
    *,
    label: Label = None,
    min_score: Annotated[float | None, typer.Option(metavar="SCORE", help="Lowest score to report, 0 to 1.")] = None,
    truncate: Truncate = False,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Draw the boxes into OUT.png, OUT.jpg or OUT.webp, or into a folder OUT."),
    ] = None,
    options: ListOptions,
) -> None:
    """Find objects in images, each with a box and a score."""
    options.check_out()
    find = partial(images_of, paths or (), options)
    with open_router(options, "detect", find, labels=label) as (router, settings, inputs):
        drawings = None if draw is None else drawing_paths(draw, inputs)
        asked: dict[str, Any] = {"labels": label, "min_score": min_score, "truncate": truncate}
        each = partial(router.detect_each, **asked, **options.keywords())
        many = partial(router.detect_many, **asked, **options.keywords())
        with rows_of(inputs, "detect", asked, options, settings) as (left, rows):
            answers = answers_of(left, options, rows, each=each, many=many)
            tally = tally_of(inputs, left, options)
            if drawings is not None:
                answers = _drawn(answers, drawings, ImageLimits(**settings.images.model_dump()), tally)
            present(answers, partial(print_detections, many=len(inputs) > 1), options, tally, rows)


def _drawn(
    answers: Iterator[tuple[Input, Detections | VisionError]], paths: dict[str, Path], limits: ImageLimits, tally: Tally
) -> Iterator[tuple[Input, Detections | VisionError]]:
    """Pass answers on and draw each on its image; a drawing that fails takes nothing from the answers."""
    for each, outcome in answers:
        yield each, outcome
        if not isinstance(outcome, VisionError):
            try:
                save_drawing(paths[each.name], each, outcome, limits=limits)
            except VisionError as error:
                tally.fail(each.name, error, unwritten=True)
