"""Images that are embedded by their descriptions: described first, and the texts embedded.

This module decides which descriptions have a vector, and what was paid where the second step fails. It must not know
how a description or a vector is asked for, nor the names of vector spaces.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from vision_backends.backends.openai.conversation import billed_for, cut_short
from vision_backends.errors import RefusedError, VisionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vision_backends.backends.openai.embeddings import Embedder, Vectors
    from vision_backends.backends.openai.prices import Tokens
    from vision_backends.clock import Deadline
    from vision_backends.images import Image
    from vision_backends.types import Description, Usage

__all__ = ["embed_described"]


async def embed_described(
    images: Sequence[Image],
    *,
    describe: Callable[[Image], Awaitable[Description]],
    embedder: Embedder,
    deadline: Deadline,
) -> tuple[Vectors, Tokens | None, list[Usage]]:
    """Return a vector for each image, the tokens that the vectors took, and what each description took before.

    Args:
        images: The images.
        describe: Describes one.
        embedder: Embeds the descriptions.
        deadline: When the call has to be over.

    Raises:
        BackendError: A description was cut, or the server could not answer; its usage is that of both steps.
    """
    embedder.check_texts()  # before captions are paid for
    captions = [await describe(image) for image in images]
    spent = [caption.trace.usage for caption in captions]
    if not all(caption.complete for caption in captions):  # half a description has another vector
        raise cut_short("The description to embed", reduce(add, spent))
    try:
        vectors, tokens = await embedder.embed_texts([caption.text for caption in captions], deadline=deadline)
    except VisionError as error:
        error.usage = reduce(add, spent) + billed_for(error)
        if isinstance(error, RefusedError):
            error.lasting = True  # the words are those of a caption: the next would fare no better
        raise
    return vectors, tokens, spent
