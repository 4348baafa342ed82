"""``vision describe``.

This module decides which text of one image is streamed, and what is asked otherwise. It must not know any backend.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer

from vision_backends.cli.asking import answers_of, images_of, open_router, present, readable, rows_of, tally_of
from vision_backends.cli.inputs import Input
from vision_backends.cli.options import Images, Language, ListOptions, Prompt, command
from vision_backends.cli.rendering.answers import print_description, print_pieces
from vision_backends.errors import InvalidRequestError

__all__ = ["describe"]


@command
def describe(
    paths: Images = None,
    *,
    prompt: Prompt = None,
    language: Language = None,
    max_words: Annotated[
        int | None, typer.Option(metavar="N", help="Approximate maximum length of the text in words.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print the text of one image while it is being written.")
    ] = False,
    options: ListOptions,
) -> None:
    """Describe images in words."""
    options.check_out()
    find = partial(images_of, paths or (), options)
    with open_router(options, "describe", find, prompt=prompt, language=language) as (router, settings, inputs):
        keywords = options.keywords()
        if stream:
            only = _only_input(inputs, options)
            pieces = router.describe_stream(
                only.source,
                prompt=prompt,
                language=language,
                max_words=max_words,
                backends=keywords["backends"],
                model=options.model,
                local_only=options.local_only,
                deadline_s=options.deadline,
            )
            print_pieces(only.name, pieces)
            return
        asked: dict[str, Any] = {"prompt": prompt, "language": language, "max_words": max_words}
        each = partial(router.describe_each, **asked, **keywords)
        many = partial(router.describe_many, **asked, **keywords)
        with rows_of(inputs, "describe", asked, options, settings) as (left, rows):
            answers = answers_of(left, options, rows, each=each, many=many)
            show = partial(print_description, many=len(inputs) > 1)
            present(answers, show, options, tally_of(inputs, left, options), rows)


def _only_input(inputs: Sequence[Input], options: ListOptions) -> Input:
    """Return the one image whose description can be streamed.

    Raises:
        InvalidRequestError: There are several, it cannot be read, or an option excludes streaming.
    """
    for given, option, why in (
        (options.as_json, "--json", "prints whole answers"),
        (options.batch, "--batch", "is for answers that can wait"),
        (options.out, "--out", "is for whole answers"),
    ):
        if given:
            raise InvalidRequestError(f"{option} {why}.", remedy="Leave out --stream.")
    if len(inputs) != 1:
        raise InvalidRequestError(f"--stream shows one text, not {len(inputs)}.", remedy="Name one image.")
    return readable(inputs[0])
