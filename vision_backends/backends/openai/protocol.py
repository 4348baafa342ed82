"""What OpenAI's two APIs for text have in common: a question about an image, and the text that comes back.

This module decides what a question and an answer consist of, and when an answer is whole. It must not know how
either API writes them down, nor how bytes travel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vision_backends.backends.openai.prices import billed
from vision_backends.backends.openai.secret import scrub
from vision_backends.errors import BackendError, CallerError, ContentRejectedError, InvalidReplyError, VisionError
from vision_backends.types import Usage

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from vision_backends.backends.openai.client import Connection
    from vision_backends.backends.openai.model_families import Detail
    from vision_backends.backends.openai.prices import Tokens

__all__ = ["Ask", "Conversation", "Dialect", "Finish", "Said", "follow", "join_parts", "read_all", "refused", "whole"]

Finish = Literal["stop", "length", "filter"]
"""Why the model stopped: it was done, it hit the limit, or a content filter cut it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question about one image.

    Attributes:
        model: Who is asked.
        instructions: What holds for the whole answer.
        question: What is asked.
        image_url: The image as a data URL.
        detail: How closely to look.
        max_tokens: Limit of the answer.
        effort: How much to think; None leaves it to the model.
        schema: JSON schema that the answer must follow; None for prose.
    """

    model: str
    instructions: str
    question: str
    image_url: str
    detail: Detail
    max_tokens: int
    effort: str | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer, or a piece of one.

    Attributes:
        text: The text.
        finish: Why it ends here; None while it goes on, or where the server does not say.
        tokens: What the server counted.
        model: The exact model that the server names.
        whole: True when the text is the whole answer rather than its next piece.
    """

    text: str = ""
    finish: Finish | None = None
    tokens: Tokens | None = None
    model: str | None = None
    whole: bool = False


class Dialect(ABC):
    """How one of the APIs writes questions and answers.

    Attributes:
        endpoint: Which API it is.
    """

    endpoint: ClassVar[Literal["chat", "responses"]]

    @abstractmethod
    def body(self, ask: Ask, *, stream: bool) -> dict[str, Any]:
        """Return the body of the request."""

    @abstractmethod
    def read(self, payload: Mapping[str, Any]) -> Said:
        """Read a reply.

        Raises:
            ContentRejectedError: The model refused.
            InvalidReplyError: It is not a reply to such a question.
        """

    @abstractmethod
    def read_event(self, event: Mapping[str, Any]) -> Said:
        """Read one event of a stream; most carry nothing. Errors as in `read`."""


def follow(dialect: Dialect, events: Iterable[Mapping[str, Any]]) -> Generator[str, None, Said]:
    """Yield the pieces of a streamed answer as they come; return the whole of it.

    Raises:
        InvalidReplyError: The stream ended without saying why.
    """
    pieces: list[str] = []
    finish, tokens, model = None, None, None
    try:
        for event in events:
            said = dialect.read_event(event)
            finish, tokens = said.finish or finish, said.tokens or tokens
            model = said.model or model
            if said.text and not (said.whole and pieces):
                pieces.append(said.text)
                yield said.text
    except BackendError:
        if finish is None:  # what breaks after the last word takes nothing from the answer
            raise
    if finish is None:
        raise InvalidReplyError("The stream ended in the middle of the answer.", code="stream_cut")
    return Said(text="".join(pieces), finish=finish, tokens=tokens, model=model)


def read_all(dialect: Dialect, events: Iterable[Mapping[str, Any]]) -> Said:
    """Return the whole of a streamed answer that has already arrived; errors as in `follow`."""
    pieces = follow(dialect, events)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            said: Said = end.value
            return said


def whole(said: Said) -> Said:
    """Return an answer that can be used.

    Raises:
        ContentRejectedError: A content filter stopped it.
        InvalidReplyError: It is empty.
    """
    if said.finish == "filter":
        raise ContentRejectedError(
            "The provider's content filter stopped the answer.",
            remedy="Asking elsewhere would get round its policy; change the image or the prompt.",
        )
    if not said.text.strip():
        raise InvalidReplyError("The answer is empty.", code="empty_reply")
    return said


def refused(words: str) -> ContentRejectedError:
    """Return the error for a model that refuses to answer, in its own words."""
    return ContentRejectedError(f"The model refused to answer: {scrub(words) or 'it gave no reason'}")


def join_parts(content: object) -> str:
    """Return the text of a content that is a string, null, or a list of strings and ``{"text": …}`` parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") if isinstance(part, dict) else part for part in content)
    return "".join(text for text in texts if isinstance(text, str))


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
