"""Chat Completions and Responses: how a question about an image is written, and how the text that comes back is read.

This module decides what a question and an answer consist of, how either API writes them down, however a compatible
server bends it, and when an answer is whole. It must not know what is asked, nor how bytes travel.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vision_backends.backends.openai.errors import scrub
from vision_backends.backends.openai.models import read_tokens
from vision_backends.errors import BackendError, CallerError, ContentRejectedError, InvalidReplyError, VisionError
from vision_backends.types import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from vision_backends.backends.openai.client import Client, PreparedRequest
    from vision_backends.backends.openai.models import Detail, PriceList, Tokens
    from vision_backends.clock import Deadline

__all__ = ["Ask", "Chat", "Conversation", "Responses", "Said", "Transcript", "join_parts", "read_all", "whole"]

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


class Chat:
    """Chat Completions, which nearly every compatible server has.

    Args:
        official: True for OpenAI itself, which knows parameters that other servers refuse.
    """

    endpoint: ClassVar[Literal["chat"]] = "chat"

    def __init__(self, *, official: bool) -> None:
        self._official = official

    def body(self, ask: Ask, *, stream: bool) -> dict[str, Any]:
        """Return the body of the request."""
        image = {"type": "image_url", "image_url": {"url": ask.image_url, "detail": ask.detail}}
        body: dict[str, Any] = {
            "model": ask.model,
            "messages": [
                {"role": "system", "content": ask.instructions},
                {"role": "user", "content": [{"type": "text", "text": ask.question}, image]},
            ],
            "stream": stream,
            "max_completion_tokens" if self._official else "max_tokens": ask.max_tokens,
        }
        if self._official:
            body["store"] = False
        if stream:
            body["stream_options"] = {"include_usage": True}
        if ask.effort is not None:
            body["reasoning_effort"] = ask.effort
        if ask.schema is not None:
            schema = {"name": "objects", "strict": True, "schema": ask.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def read(self, payload: Mapping[str, Any]) -> Said:
        """Read a reply.

        Raises:
            ContentRejectedError: The model refused.
            InvalidReplyError: It is not a reply to such a question.
        """
        choice = _choice(payload)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise InvalidReplyError("The reply has no message.", code="no_message")
        return _said(payload, choice, message)

    def read_event(self, event: Mapping[str, Any]) -> Said:
        """Read one event of a stream; many carry nothing, and OpenAI's last only the usage. Errors as in `read`."""
        choice = _choice(event)
        delta = choice.get("delta") or choice.get("message")
        return _said(event, choice, delta if isinstance(delta, dict) else {})


def _choice(payload: Mapping[str, Any]) -> dict[str, Any]:
    choices = payload.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _said(payload: Mapping[str, Any], choice: dict[str, Any], message: dict[str, Any]) -> Said:
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        raise _refused(message["refusal"])
    finishes: dict[object, Finish] = {"length": "length", "content_filter": "filter"}
    reason, model = choice.get("finish_reason"), payload.get("model")
    return Said(
        text=join_parts(message.get("content")),
        finish=finishes.get(reason, "stop") if isinstance(reason, str) else None,
        tokens=read_tokens(payload.get("usage")),
        model=model if isinstance(model, str) else None,
    )


def join_parts(content: object) -> str:
    """Return the text of a content that is a string, null, or a list of strings and ``{"text": …}`` parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


class Responses:
    """The Responses API, OpenAI's own. Nothing is stored there."""

    endpoint: ClassVar[Literal["responses"]] = "responses"

    def body(self, ask: Ask, *, stream: bool) -> dict[str, Any]:
        """Return the body of the request."""
        content = [
            {"type": "input_text", "text": ask.question},
            {"type": "input_image", "image_url": ask.image_url, "detail": ask.detail},
        ]
        body: dict[str, Any] = {
            "model": ask.model,
            "instructions": ask.instructions,
            "input": [{"role": "user", "content": content}],
            "max_output_tokens": ask.max_tokens,
            "store": False,
            "stream": stream,
        }
        if ask.effort is not None:
            body["reasoning"] = {"effort": ask.effort}
        if ask.schema is not None:
            body["text"] = {"format": {"type": "json_schema", "name": "objects", "strict": True, "schema": ask.schema}}
        return body

    def read(self, payload: Mapping[str, Any]) -> Said:
        """Read a reply; errors as in `Chat.read`."""
        parts = list(_parts(payload.get("output")))
        refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
        if refusals:
            raise _refused(" ".join(refusals))
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        model = payload.get("model")
        return Said(
            text="".join(texts),
            finish=_finish(payload),
            tokens=read_tokens(payload.get("usage")),
            model=model if isinstance(model, str) else None,
            whole=True,
        )

    def read_event(self, event: Mapping[str, Any]) -> Said:
        """Read one event of a stream; errors as in `Chat.read`."""
        match event:
            case {"type": "response.output_text.delta"}:
                delta = event.get("delta")
                return Said(text=delta if isinstance(delta, str) else "")
            case {"type": "response.refusal.done"}:
                raise _refused(str(event.get("refusal") or ""))
            case {
                "type": "response.completed" | "response.incomplete" | "response.failed",
                "response": dict() as response,
            }:
                return self.read(response)
        return self.read(event) if "output" in event else Said()


def _parts(output: object) -> Iterator[dict[str, Any]]:
    """Yield what messages consist of; other items are thoughts and tools."""
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict) and item.get("type") == "message" and isinstance(item.get("content"), list):
            yield from (part for part in item["content"] if isinstance(part, dict))


def _finish(payload: Mapping[str, Any]) -> Finish:
    status = payload.get("status", "completed")
    if status == "completed":
        return "stop"
    details = payload.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if status == "incomplete" and reason in {"max_output_tokens", "content_filter"}:
        return "length" if reason == "max_output_tokens" else "filter"
    raise InvalidReplyError(f"The response is {status!r} for the reason {reason!r}.", code="not_completed")


def _refused(words: str) -> ContentRejectedError:
    return ContentRejectedError(f"The model refused to answer: {scrub(words) or 'it gave no reason'}")


class Transcript:
    """What a streamed answer has said so far.

    Args:
        protocol: How its events are read.
    """

    def __init__(self, protocol: Chat | Responses) -> None:
        self._protocol = protocol
        self._pieces: list[str] = []
        self._said = Said()

    @property
    def finished(self) -> bool:
        """Whether the model has said why it stopped; what breaks after that takes nothing from the answer."""
        return self._said.finish is not None

    def add(self, event: Mapping[str, Any]) -> str:
        """Return the piece that an event adds, which is often empty. Errors as in `Chat.read`."""
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


def read_all(protocol: Chat | Responses, events: Iterable[Mapping[str, Any]]) -> Said:
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
            remedy="Asking elsewhere would circumvent the policy; change the image or the prompt.",
        )
    if not said.text.strip():
        raise InvalidReplyError("The answer is empty.", code="empty_reply")
    return said


class Conversation:
    """Questions to one server.

    Args:
        client: The server.
        protocol: The API to use.
        prices: What answers cost that cannot be used.
    """

    def __init__(self, client: Client, protocol: Chat | Responses, prices: PriceList) -> None:
        self._client = client
        self._protocol = protocol
        self._prices = prices

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

    async def ask(self, ask: Callable[[], Ask], *, deadline: Deadline) -> Said:
        """Return the answer to a question, even where it comes as a stream that was not asked for.

        Raises:
            BackendError: No usable answer came.
            CallerError: The request, its image or its content was refused.
        """
        question = await self.prepare(ask, deadline=deadline)
        reply = await self._client.post(question, deadline=deadline)
        try:
            if reply.streamed:
                return whole(read_all(self._protocol, reply.payloads))
            return whole(self._protocol.read(reply.payloads[0]))
        except VisionError as error:
            error.usage = self._prices.billed(question.model, reply.payloads)
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
            error.usage = self._prices.usage(question.model, said.tokens)
            raise
