"""``vision ask``.

This module decides where the schema of an answer comes from. It must not know any backend.
"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vision_backends.cli.asking import images_of, open_router, present, readable
from vision_backends.cli.inputs import Input
from vision_backends.cli.options import AskOptions, Images, command
from vision_backends.cli.rendering.answers import Tally, print_reply
from vision_backends.errors import InvalidRequestError, VisionError
from vision_backends.regular_file import read_regular

if TYPE_CHECKING:
    from vision_backends.types import Reply

__all__ = ["ask"]

MOST_SCHEMA_BYTES = 1_000_000
"""Of a file with a JSON schema."""


@command
def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question or instruction.")],
    paths: Images = None,
    *,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instructions for the whole answer, such as a role or a style.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON schema that the answer follows; it is then printed as JSON."),
    ] = None,
    options: AskOptions,
) -> None:
    """Ask one question about one or several images together."""
    form = None if schema is None else _read_schema(schema)
    find = partial(images_of, paths or (), options)
    with open_router(options, "ask", find, prompt=question) as (router, _, inputs):
        name = ", ".join(each.name for each in inputs)
        outcome: Reply | VisionError
        try:
            sources = [readable(each).source for each in inputs]
            keywords = options.keywords()
            keywords["deadline_s"] = options.deadline
            outcome = router.ask(sources, question, system=system, schema=form, **keywords)
        except VisionError as error:
            outcome = error
        present(
            iter([(Input(name=name, source=""), outcome)]), print_reply, options, Tally(total=1, quiet=options.quiet)
        )


def _read_schema(path: Path) -> dict[str, Any]:
    """Return the JSON schema in a file.

    Raises:
        InvalidRequestError: There is none.
    """
    try:
        value = json.loads(read_regular(path, max_bytes=MOST_SCHEMA_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"{path} holds no JSON schema: {why}.", remedy="Name a file of JSON.") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{path} holds no JSON schema, which is an object.", remedy="Name a file of JSON.")
    return value
