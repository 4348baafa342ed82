"""Asking one question and getting one answer, in whichever dialect the server has.

This module decides that an answer is usable before anybody sees it. It must not know what is asked, nor how bytes
travel.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from vision_backends.backends.openai.dialect import follow, read_all, whole
from vision_backends.backends.openai.prices import billed
from vision_backends.errors import BackendError, CallerError, VisionError
from vision_backends.types import Usage

if TYPE_CHECKING:
    from collections.abc import Generator

    from vision_backends.backends.openai.connection import Connection
    from vision_backends.backends.openai.dialect import Ask, Dialect, Said

__all__ = ["Conversation"]


class Conversation:
    """Questions to one server. Safe for many threads.

    Args:
        connection: The server.
        dialect: How it is spoken to.
    """

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect

    def ask(self, ask: Ask, *, timeout_s: float) -> Said:
        """Return the answer, even where it comes as a stream that nobody asked for.

        Raises:
            BackendError: No usable answer came.
            CallerError: The request, its image or its content was refused.
        """
        body = self._dialect.body(ask, stream=False)
        reply = self._connection.post(self._dialect.endpoint, body, timeout_s=timeout_s)
        try:
            if reply.streamed:
                return whole(read_all(self._dialect, reply.payloads))
            return whole(self._dialect.read(reply.payloads[0]))
        except VisionError as error:
            error.usage = billed(reply.payloads)
            if isinstance(error, BackendError):
                error.request_id = error.request_id or reply.request_id
            raise

    def stream(self, ask: Ask, *, timeout_s: float) -> Generator[str, None, Said]:
        """Yield the pieces of the answer as they come and return the whole of it; errors as in `ask`."""
        body = self._dialect.body(ask, stream=True)
        with closing(self._connection.stream(self._dialect.endpoint, body, timeout_s=timeout_s)) as events:
            try:
                said = yield from follow(self._dialect, events)
            except CallerError as error:
                error.usage = error.usage or Usage()  # what it has cost would have come later
                raise
        try:
            return whole(said)
        except VisionError as error:
            tokens = said.tokens
            error.usage = Usage(input_tokens=tokens.input, output_tokens=tokens.output) if tokens else Usage()
            raise
