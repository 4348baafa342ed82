"""Chat Completions and Responses: how a question about an image is written, and how the text that comes back is read.

This module decides what a question and an answer consist of, how either API writes them down, however a compatible
server bends it, and when an answer is whole. It must not know what is asked, nor how bytes travel.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from vision_backends.backends.openai.errors import scrub
from vision_backends.backends.openai.models import Tokens, most_tokens, read_tokens, thinking_tokens
from vision_backends.backends.texts import Speech, mend, spoken
from vision_backends.errors import (
    BackendError,
    CallerError,
    ContentRejectedError,
    InvalidReplyError,
    TimedOutError,
    UnavailableError,
    VisionError,
)
from vision_backends.types import FREE, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from vision_backends.backends.openai.client import Client, PreparedRequest
    from vision_backends.backends.openai.models import Detail, PriceList
    from vision_backends.clock import Deadline

__all__ = ["Ask", "Chat", "Conversation", "Responses", "Said", "Transcript", "join_parts", "read_all", "whole"]

Finish = Literal["stop", "length", "filter"]
"""Why the model stopped: it was done, it hit the limit, or a content filter cut it."""

ENDINGS: Mapping[str, Finish] = {
    **dict.fromkeys(("stop", "end_turn", "eos", "eos_token", "stop_sequence", "complete", "completed"), "stop"),
    **dict.fromkeys(("length", "max_length", "model_length", "token_limit"), "length"),
    **dict.fromkeys(("max_tokens", "max_output_tokens", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("content_filter", "content_filtered", "guardrail_intervened", "refusal", "sensitive"), "filter"),
    **dict.fromkeys(("safety", "image_safety", "recitation", "blocklist", "prohibited_content", "spii"), "filter"),
    "error_toxic": "filter",
}
"""Servers' words in lower case; any other says that the answer is not whole. From the documentation of OpenAI, Mistral,
TGI, Together, watsonx, Cohere, Anthropic, Bedrock, Gemini and Z.ai (2026-11)."""

MORE_TOKENS = 8192
"""By how much a limit is raised that thinking has used up."""

TAKES_NO_MORE = frozenset({"invalid_request", "invalid_image", "not_supported", "refused"})
"""Errors of a second question that the first one had not: they are about the raised limit."""

MAYBE_BILLED = (InvalidReplyError, TimedOutError, UnavailableError)

_THINKER = re.compile(r"(?<!no)(?<!no-)think|(?<!non-)reason|qwq|(?<![a-z0-9])r1(?![a-z0-9])", re.IGNORECASE)
"""Names of models whose chat template opens the thoughts itself, so that only the closing tag is theirs."""


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
        has_thoughts: Whether the model has thought before it answered; thoughts are no part of the text.
    """

    text: str = ""
    finish: Finish | None = None
    tokens: Tokens | None = None
    model: str | None = None
    whole: bool = False
    has_thoughts: bool = False

    @property
    def was_eaten(self) -> bool:
        """Whether thinking has used up the limit before the answer was whole."""
        return self.finish == "length" and (self.has_thoughts or not self.text.strip())


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
        said = _said(payload, choice, message)
        return said if "finish_reason" in choice else replace(said, finish="stop")  # a server that never says

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
    usage, content = payload.get("usage"), message.get("content")
    thoughts = (message.get(name) for name in ("reasoning_content", "reasoning", "reasoning_details", "thinking"))
    return Said(
        text=join_parts(content),
        finish=_ending(choice.get("finish_reason")),
        tokens=read_tokens(usage),
        model=_model(payload),
        has_thoughts=any(thoughts) or thinking_tokens(usage) > 0 or _has_thoughts(content),
    )


def _ending(word: object) -> Finish | None:
    """Return what a word for the ending means; None while there is none.

    Raises:
        InvalidReplyError: It is not known to be the ending of an answer.
    """
    plain = _plain(word)
    if plain in {None, "", "null", "none"}:
        return None
    finish = ENDINGS.get(plain or "")
    if finish is None:
        raise InvalidReplyError(f"The answer is not whole: it ends with {scrub(str(word))!r}.", code="not_completed")
    return finish


def _plain(word: object) -> str | None:
    """Return a server's word as `ENDINGS` has it: ``"content_filter: SAFETY"`` is a filter, of whatever kind."""
    if not isinstance(word, str):
        return None if word is None else repr(word)
    return re.sub(r"[\s-]+", "_", word.partition(":")[0].strip().lower()).removeprefix("finish_reason_")


def _model(payload: Mapping[str, Any]) -> str | None:
    model = payload.get("model")
    return mend(model) if isinstance(model, str) else None


def join_parts(content: object) -> str:
    """Return the text of a content that is a string, null, or a list of strings and ``{"text": …}`` parts.

    Parts of any other type than text, such as thoughts, are left out.
    """
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part if isinstance(part, str) else _text_of(part) for part in parts)
    return "".join(text for text in texts if text is not None)


def _has_thoughts(parts: object) -> bool:
    """Return whether a list of parts holds thoughts, in whichever of the servers' ways."""
    thoughts = (
        part
        for part in (parts if isinstance(parts, list) else ())
        if isinstance(part, dict) and part.get("type") in {"thinking", "reasoning"}
    )
    return any(part.get(name) for part in thoughts for name in ("thinking", "text", "summary", "content"))


def _text_of(part: object) -> str | None:
    if not isinstance(part, dict) or part.get("type", "text") not in {"text", "output_text"}:
        return None
    return part["text"] if isinstance(part.get("text"), str) else None


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
        usage = payload.get("usage")
        return Said(
            text=join_parts(parts),
            finish=_finish(payload),
            tokens=read_tokens(usage),
            model=_model(payload),
            whole=True,
            has_thoughts=thinking_tokens(usage) > 0 or _has_thoughts(payload.get("output")),
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


def _messages(output: object) -> Iterator[dict[str, Any]]:
    """Yield the messages of an output; other items are thoughts and tools."""
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict) and item.get("type") == "message":
            yield item


def _parts(output: object) -> Iterator[dict[str, Any]]:
    """Yield what messages consist of."""
    for item in _messages(output):
        if isinstance(item.get("content"), list):
            yield from (part for part in item["content"] if isinstance(part, dict))


def _finish(payload: Mapping[str, Any]) -> Finish:
    """Return how a response has ended; one whose parts have not is not completed, whatever it says.

    Raises:
        InvalidReplyError: It is not completed.
    """
    status, messages = payload.get("status", "completed"), _messages(payload.get("output"))
    if status == "completed" and all(item.get("status") in {"completed", None} for item in messages):
        return "stop"
    details = payload.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    finish = ENDINGS.get(_plain(reason) or "")
    if status == "incomplete" and finish in {"length", "filter"}:
        return finish
    raise InvalidReplyError(f"The response is {status!r} for the reason {reason!r}.", code="not_completed")


def _refused(words: str) -> ContentRejectedError:
    return ContentRejectedError(f"The model refused to answer: {scrub(words) or 'it gave no reason'}")


class Transcript:
    """What a streamed answer has said so far.

    Args:
        protocol: How its events are read.
        may_begin_inside: Whether the answer may begin inside a thought, which only a closing tag shows.
    """

    def __init__(self, protocol: Chat | Responses, *, may_begin_inside: bool = False) -> None:
        self._protocol = protocol
        self._has_text = False
        self._said = Said()
        self.speech = Speech(may_begin_inside=may_begin_inside)

    @property
    def finished(self) -> bool:
        """Whether the model has said why it stopped; what breaks after that takes nothing from the answer."""
        return self._said.finish is not None

    @property
    def tokens(self) -> Tokens | None:
        """What the server has counted so far."""
        return self._said.tokens

    def add(self, event: Mapping[str, Any]) -> str:
        """Return the piece that an event adds, which is often empty and never a thought. Errors as in `Chat.read`."""
        said, before = self._protocol.read_event(event), self._said
        self._said = Said(
            finish=said.finish or before.finish,
            tokens=most_tokens(before.tokens, said.tokens),
            model=said.model or before.model,
            has_thoughts=before.has_thoughts or said.has_thoughts,
        )
        piece = self.speech.release() if said.has_thoughts else ""
        if not said.text or (said.whole and self._has_text):
            return piece
        self._has_text = True
        return piece + self.speech.feed(said.text)

    def rest(self) -> str:
        """Return the piece that the end of the stream adds.

        Raises:
            InvalidReplyError: It came without saying why.
        """
        if not self.finished:
            raise InvalidReplyError("The stream ended in the middle of the answer.", code="stream_cut")
        return self.speech.end(was_cut=self._said.finish == "length")

    def end(self) -> Said:
        """Return the whole answer; errors as in `rest`."""
        self.rest()
        has_thoughts = self._said.has_thoughts or self.speech.has_thoughts
        return replace(self._said, text=self.speech.text, has_thoughts=has_thoughts)


def read_all(
    protocol: Chat | Responses, events: Iterable[Mapping[str, Any]], *, may_begin_inside: bool = False
) -> Said:
    """Return the whole of a streamed answer that has already arrived; errors as in `Transcript`."""
    transcript = Transcript(protocol, may_begin_inside=may_begin_inside)
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
        InvalidReplyError: It is empty, or nothing but thoughts.
    """
    if said.finish == "filter":
        raise ContentRejectedError(
            "The provider's content filter stopped the answer.",
            remedy="Asking elsewhere would circumvent the policy; change the image or the prompt.",
        )
    if said.text.strip():
        return said
    if said.was_eaten:
        raise InvalidReplyError(
            "Thinking has used up the limit of the answer before it began.",
            remedy='Set reasoning_effort = "none" or "low" in [openai] of vision.toml, or raise max_tokens there.',
            code="limit_used_up",
        )
    if said.has_thoughts:
        raise InvalidReplyError(
            "The reply is nothing but thoughts.",
            remedy='Set reasoning_effort = "none" or "low" in [openai] of vision.toml, or choose another model.',
            code="only_thoughts",
        )
    raise InvalidReplyError("The answer is empty.", code="empty_reply")


class _Heard(NamedTuple):
    said: Said
    request_id: str | None


class Conversation:
    """Questions to one server.

    Args:
        client: The server.
        protocol: The API to use.
        prices: What answers cost that cannot be used.
        raises_limits: Whether a limit that thinking has used up is raised, once for a question.

    Attributes:
        more_tokens: By how much limits are raised since thinking has used one up.
    """

    def __init__(
        self, client: Client, protocol: Chat | Responses, prices: PriceList, *, raises_limits: bool = True
    ) -> None:
        self._client = client
        self._protocol = protocol
        self._prices = prices
        self._raises_limits = raises_limits
        self._begins_inside = False
        self.more_tokens = 0

    async def prepare(self, ask: Callable[[], Ask], *, stream: bool = False, deadline: Deadline) -> PreparedRequest:
        """Return a question that can be sent.

        Args:
            ask: Makes the question, in a thread: its image is scaled and encoded there.
            stream: Whether the answer is to come piece by piece.
            deadline: When it has to be ready.

        Raises:
            TimedOutError: It was not.
        """

        def write() -> dict[str, Any]:
            asked = ask()
            asked = replace(asked, max_tokens=asked.max_tokens + self.more_tokens)
            return self._protocol.body(asked, stream=stream)

        return await self._client.prepare(self._protocol.endpoint, write, deadline=deadline)

    async def ask(self, ask: Callable[[], Ask], *, deadline: Deadline) -> Said:
        """Return the answer to a question, even where it comes as a stream that was not asked for.

        Where thinking has used up the limit, the question is asked once more with a larger one, if time allows.

        Raises:
            BackendError: No usable answer came.
            CallerError: The request, its image or its content was refused.
        """
        more, before_s = self.more_tokens, deadline.remaining_s
        question = await self.prepare(ask, deadline=deadline)
        heard = await self._hear(question, deadline=deadline)
        if self._may_raise(heard.said, more=more, before_s=before_s, now_s=deadline.remaining_s):
            self.more_tokens = MORE_TOKENS
            try:
                again = await self._hear(await self.prepare(ask, deadline=deadline), deadline=deadline)
                heard = again._replace(said=_both(heard.said, again.said))
            except VisionError as error:
                heard = heard._replace(said=self._without_a_second(heard.said, error, question.model))
        return self._usable(*heard, model=question.model)

    async def stream(
        self, question: PreparedRequest, ask: Callable[[], Ask], *, deadline: Deadline
    ) -> AsyncGenerator[str | Said, None]:
        """Yield the pieces of the answer as they come, and at last the whole of it; errors as in `ask`.

        Args:
            question: The question, prepared.
            ask: Makes it again, should its limit have to be raised.
            deadline: When to stop.
        """
        more, before_s = self.more_tokens, deadline.remaining_s
        transcript = self._transcript(question)
        async with aclosing(self._follow(question, transcript, deadline=deadline)) as pieces:
            async for piece in pieces:
                yield piece
        said = transcript.end()
        if not said.text and self._may_raise(said, more=more, before_s=before_s, now_s=deadline.remaining_s):
            self.more_tokens = MORE_TOKENS
            try:
                question = await self.prepare(ask, stream=True, deadline=deadline)
                transcript = self._transcript(question)
                async with aclosing(self._follow(question, transcript, deadline=deadline)) as pieces:
                    async for piece in pieces:
                        yield piece
                said = _both(said, transcript.end())
            except VisionError as error:
                said = self._without_a_second(said, error, question.model)
        yield self._usable(said, None, model=question.model)

    async def _hear(self, question: PreparedRequest, *, deadline: Deadline) -> _Heard:
        """Send a question; return what was said, usable or not, without thoughts."""
        reply = await self._client.post(question, deadline=deadline)
        inside = self._may_begin_inside(question.model)
        try:
            if reply.streamed:
                return _Heard(read_all(self._protocol, reply.payloads, may_begin_inside=inside), reply.request_id)
            said = self._protocol.read(reply.payloads[0])
        except VisionError as error:
            error.usage = self._prices.billed(question.model, reply.payloads)
            if isinstance(error, BackendError):
                error.request_id = error.request_id or reply.request_id
            raise
        inside = inside and not said.has_thoughts
        speech = spoken(said.text, may_begin_inside=inside, was_cut=said.finish == "length")
        self._begins_inside = self._begins_inside or speech.began_inside
        has_thoughts = said.has_thoughts or speech.has_thoughts
        return _Heard(replace(said, text=speech.text, has_thoughts=has_thoughts), reply.request_id)

    async def _follow(
        self, question: PreparedRequest, transcript: Transcript, *, deadline: Deadline
    ) -> AsyncGenerator[str, None]:
        """Send a question and yield the pieces of the answer, none of them a thought."""
        try:
            async with aclosing(self._client.stream(question, deadline=deadline)) as events:
                try:
                    async for event in events:
                        if piece := self._checked(transcript.add(event), transcript):
                            yield piece
                except BackendError:
                    if not transcript.finished or transcript.speech.took_back:
                        raise
            if piece := self._checked(transcript.rest(), transcript):
                yield piece
        except VisionError as error:
            if transcript.tokens is not None:
                error.usage = self._prices.usage(question.model, transcript.tokens)
            elif isinstance(error, CallerError):
                error.usage = error.usage or Usage()  # what it has cost would have come later
            raise

    def _checked(self, piece: str, transcript: Transcript) -> str:
        """Return a piece, unless it shows that those before it were thoughts.

        Raises:
            InvalidReplyError: They were; the next answers are held back until their thoughts have ended.
        """
        self._begins_inside = self._begins_inside or transcript.speech.began_inside
        if transcript.speech.took_back:
            raise InvalidReplyError(
                "What was streamed turned out to be thoughts of the model, without a mark at their beginning.",
                remedy="Ask again: from now on its answers are held back until its thoughts have ended.",
                code="thoughts_streamed",
            )
        return piece

    def _transcript(self, question: PreparedRequest) -> Transcript:
        return Transcript(self._protocol, may_begin_inside=self._may_begin_inside(question.model))

    def _may_begin_inside(self, model: str) -> bool:
        return self._begins_inside or _THINKER.search(model) is not None

    def _may_raise(self, said: Said, *, more: int, before_s: float, now_s: float) -> bool:
        """Return whether a question is worth asking again with a larger limit, in the time that is left."""
        return said.was_eaten and more == 0 and self._raises_limits and now_s > before_s - now_s

    def _without_a_second(self, first: Said, error: VisionError, model: str) -> Said:
        """Return the first answer with the usage of both, where the question with the raised limit has failed.

        Raises:
            VisionError: What it has failed with, where the first answer is none and the limit is not to blame.
        """
        billed = error.usage or (Usage() if isinstance(error, MAYBE_BILLED) else FREE)
        if error.kind in TAKES_NO_MORE:
            self.more_tokens = 0
        elif isinstance(error, ContentRejectedError) or not first.text.strip():
            error.usage = self._prices.usage(model, first.tokens) + billed
            raise error
        sent, received = billed.input_tokens, billed.output_tokens
        if first.tokens is None or sent is None or received is None:
            return replace(first, tokens=None)
        return replace(first, tokens=first.tokens + Tokens(input=sent, output=received))

    def _usable(self, said: Said, request_id: str | None, *, model: str) -> Said:
        try:
            return whole(said)
        except VisionError as error:
            error.usage = self._prices.usage(model, said.tokens)
            if isinstance(error, BackendError):
                error.request_id = error.request_id or request_id
            raise


def _both(first: Said, second: Said) -> Said:
    """Return the second answer with the tokens of both."""
    if first.tokens is None or second.tokens is None:
        return replace(second, tokens=None)
    return replace(second, tokens=first.tokens + second.tokens)
