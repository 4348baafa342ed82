"""One pass of a task over an example, so that whatever a backend puts off until its first call has been done.

This module decides what the example is. It must not know any backend.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vision_backends.backends.base import AsyncBackend
from vision_backends.backends.requests import DescribeRequest, EmbedTextRequest
from vision_backends.backends.shutdown import awaited_at_exit
from vision_backends.engine.event_loop import engine_loop
from vision_backends.images import open_image

if TYPE_CHECKING:
    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Request

__all__ = ["rehearse"]

SIDE_PX = 64

TIMEOUT_S = 120.0

LONGEST_END_S = 10.0
"""How long the end of the interpreter waits for it."""


def rehearse(backend: Backend, request: Request) -> None:
    """Let a backend answer a request about a small grey picture, or a word.

    Raises:
        BackendError: It could not.
    """
    from PIL import Image as PILImage

    if isinstance(request, DescribeRequest):
        request = replace(request, max_words=1)
    words = isinstance(request, EmbedTextRequest)
    example = "example" if words else open_image(PILImage.new("RGB", (SIDE_PX, SIDE_PX), "grey"))
    task = partial(getattr(backend, request.task), [example], request, timeout_s=TIMEOUT_S)
    with awaited_at_exit(LONGEST_END_S):
        if isinstance(backend, AsyncBackend):
            engine_loop().run(task)
        else:
            task()
