"""Chat Completions and Responses: how a question about an image is written, and how the text that comes back is read.

This module decides what a question and an answer consist of, how either API writes them down, however a compatible
server bends it, and when an answer is whole. It must not know what is asked, nor how bytes travel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vision_backends.backends.openai.prices import Tokens, most_tokens, read_tokens, thinking_tokens
from vision_backends.backends.texts import Speech, mend
from vision_backends.errors import (
    BackendError,
    ContentRejectedError,
    InvalidReplyError,
)
from vision_backends.foreign_text import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vision_backends.backends.openai.models import Detail

__all__ = ["Ask", "Chat", "Responses", "Said", "Transcript", "join_parts", "read_all", "whole"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question about some images.

    Attributes:
        model: Who is asked.
        instructions: What holds for the whole answer.
        question: What is asked.
        image_urls: The images as data URLs.
        detail: How closely to look.
        max_tokens: Limit of the answer.
        effort: How much to think; None leaves it to the model.
        schema: JSON schema that the answer must follow; None for prose.
        schema_name: What that is called.
        strict: Whether the server is to keep the answer to it by force.
    """

    model: str
    instructions: str
    question: str
    image_urls: tuple[str, ...]
    detail: Detail
    max_tokens: int
    effort: str | None = None
    schema: Mapping[str, Any] | None = None
    schema_name: str = "objects"
    strict: bool = True


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
        images = [{"type": "image_url", "image_url": {"url": url, "detail": ask.detail}} for url in ask.image_urls]
        body: dict[str, Any] = {
            "model": ask.model,
            "messages": [
                {"role": "system", "content": ask.instructions},
                {"role": "user", "content": [{"type": "text", "text": ask.question}, *images]},
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
            schema = {"name": ask.schema_name, "strict": ask.strict, "schema": ask.schema}
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
        raise InvalidReplyError(f"The answer is not whole: it ends with {quote(str(word))!r}.", code="not_completed")
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
            *({"type": "input_image", "image_url": url, "detail": ask.detail} for url in ask.image_urls),
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
            schema = {"name": ask.schema_name, "strict": ask.strict, "schema": ask.schema}
            body["text"] = {"format": {"type": "json_schema", **schema}}
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
    raise InvalidReplyError(
        f"The response is {quote(str(status))!r} for the reason {quote(str(reason))!r}.", code="not_completed"
    )


def _refused(words: str) -> ContentRejectedError:
    return ContentRejectedError(f"The model refused to answer: {quote(words) or 'it gave no reason'}")


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
