"""What OpenAI's two APIs for text have in common: a question about an image, and the text that comes back.

This module decides what a question and an answer consist of, and when an answer is whole. It must not know how
either API writes them down, nor how bytes travel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vision_backends.backends.openai.prices import billed
from vision_backends.backends.openai.secret import scrub
from vision_backends.errors import BackendError, CallerError, ContentRejectedError, InvalidReplyError, VisionError
from vision_backends.types import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    from vision_backends.backends.openai.client import Client, PreparedRequest
    from vision_backends.backends.openai.model_families import Detail
    from vision_backends.backends.openai.prices import Tokens
    from vision_backends.clock import Deadline

__all__ = [
    "ApiProtocol",
    "Ask",
    "Conversation",
    "Finish",
    "Said",
    "Transcript",
    "join_parts",
    "read_all",
    "refused",
    "whole",
]

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


class ApiProtocol(ABC):
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


class Transcript:
    """What a streamed answer has said so far.

    Args:
        protocol: How its events are read.
    """

    def __init__(self, protocol: ApiProtocol) -> None:
        self._protocol = protocol
        self._pieces: list[str] = []
        self._said = Said()

    @property
    def finished(self) -> bool:
        """Whether the model has said why it stopped; what breaks after that takes nothing from the answer."""
        return self._said.finish is not None

    def add(self, event: Mapping[str, Any]) -> str:
        """Return the piece that an event adds, which is often empty. Errors as in `ApiProtocol.read_event`."""
        said, before = self._protocol.read_event(event), self._said
        self._said = Said(
            finish=said.finish or before.finish, tokens=said.tokens or before.tokens, model=said.model or before.model
        )
        if not said.text or (said.whole and self._pieces):
            return ""
        self._pieces.append(said.text)
        return said.text

    def end(self) -> Said:
        """Return the whole answer.

        Raises:
            InvalidReplyError: The stream ended without saying why.
        """
        if not self.finished:
            raise InvalidReplyError("The stream ended in the middle of the answer.", code="stream_cut")
        return replace(self._said, text="".join(self._pieces))


def read_all(protocol: ApiProtocol, events: Iterable[Mapping[str, Any]]) -> Said:
    """Return the whole of a streamed answer that has already arrived; errors as in `Transcript`."""
    transcript = Transcript(protocol)
    try:
        for event in events:
            transcript.add(event)
    except BackendError:
        if not transcript.finished:
            raise
    return transcript.end()


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
    """Questions to one server.

    Args:
        client: The server.
        protocol: How it is spoken to.
    """

    def __init__(self, client: Client, protocol: ApiProtocol) -> None:
        self._client = client
        self._protocol = protocol

    async def prepare(self, ask: Callable[[], Ask], *, stream: bool = False, deadline: Deadline) -> PreparedRequest:
        """Return a question that can be sent.

        Args:
            ask: Makes the question, in a thread: its image is scaled and encoded there.
            stream: Whether the answer is to come piece by piece.
            deadline: When it has to be ready.

        Raises:
            TimedOutError: It was not.
        """
        return await self._client.prepare(
            self._protocol.endpoint, lambda: self._protocol.body(ask(), stream=stream), deadline=deadline
        )

    async def ask(self, question: PreparedRequest, *, deadline: Deadline) -> Said:
        """Return the answer, even where it comes as a stream that nobody asked for.

        Raises:
            BackendError: No usable answer came.
            CallerError: The request, its image or its content was refused.
        """
        reply = await self._client.post(question, deadline=deadline)
        try:
            if reply.streamed:
                return whole(read_all(self._protocol, reply.payloads))
            return whole(self._protocol.read(reply.payloads[0]))
        except VisionError as error:
            error.usage = billed(reply.payloads)
            if isinstance(error, BackendError):
                error.request_id = error.request_id or reply.request_id
            raise

    async def stream(self, question: PreparedRequest, *, deadline: Deadline) -> AsyncGenerator[str | Said, None]:
        """Yield the pieces of the answer as they come, and at last the whole of it; errors as in `ask`."""
        transcript = Transcript(self._protocol)
        async with aclosing(self._client.stream(question, deadline=deadline)) as events:
            try:
                async for event in events:
                    if piece := transcript.add(event):
                        yield piece
            except CallerError as error:
                error.usage = error.usage or Usage()  # what it has cost would have come later
                raise
            except BackendError:
                if not transcript.finished:
                    raise
        said = transcript.end()
        try:
            yield whole(said)
        except VisionError as error:
            tokens = said.tokens
            error.usage = Usage(input_tokens=tokens.input, output_tokens=tokens.output) if tokens else Usage()
            raise
