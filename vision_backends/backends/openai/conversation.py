"""Asking one server: a question, its answer, and the second question where thinking has used up the limit of the first.

This module decides when a question is asked again with a larger limit, what both have cost, and that no thought gets
out. It must not know how either API writes a question or an answer down, nor how bytes travel.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from vision_backends.backends.openai.prices import Tokens
from vision_backends.backends.openai.protocol import Transcript, read_all, whole
from vision_backends.backends.texts import spoken
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
    from collections.abc import AsyncGenerator, Callable, Sequence

    from vision_backends.backends.openai.client import Client, PreparedRequest
    from vision_backends.backends.openai.prices import PriceList
    from vision_backends.backends.openai.protocol import Ask, Chat, Responses, Said
    from vision_backends.clock import Deadline
    from vision_backends.images import Image, WireRule

__all__ = ["Conversation", "Draft", "billed_for", "cut_short"]

MORE_TOKENS = 8192
"""By how much a limit is raised that thinking has used up."""

QUICK_BYTES = 256_000
"""Images of so many bytes are put into a request in half a millisecond, if they are sent as they are."""

TAKES_NO_MORE = frozenset({"invalid_request", "invalid_image", "not_supported", "refused"})
"""Errors of a second question that the first one had not: they are about the raised limit."""

MAYBE_BILLED = (InvalidReplyError, TimedOutError, UnavailableError)

_THINKER = re.compile(r"(?<!no)(?<!no-)think|(?<!non-)reason|qwq|(?<![a-z0-9])r1(?![a-z0-9])", re.IGNORECASE)
"""Names of models whose chat template opens the thoughts itself, so that only the closing tag is theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A question that is still to be written: its images are scaled, encoded and hashed for it.

    Attributes:
        images: Those that it shows; none where it has a picture of its own.
        rule: How they are sent.
        ask: Writes it.
    """

    images: Sequence[Image]
    rule: WireRule
    ask: Callable[[], Ask]

    @property
    def is_quick(self) -> bool:
        """Whether writing it is sooner done than handed to a thread."""
        sizes = [image.bytes_at_hand(self.rule) for image in self.images]
        return bool(sizes) and None not in sizes and sum(filter(None, sizes)) <= QUICK_BYTES

    def write(self) -> Ask:
        """Return it as it is asked; by their hashes its images are known again."""
        for image in self.images:
            _ = image.digest
        return self.ask()


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

    async def prepare(self, draft: Draft, *, stream: bool = False, deadline: Deadline) -> PreparedRequest:
        """Return a question that can be sent.

        Args:
            draft: The question, written in a thread where its images have to be scaled or encoded.
            stream: Whether the answer is to come piece by piece.
            deadline: When it has to be ready.

        Raises:
            TimedOutError: It was not.
        """

        def write() -> dict[str, Any]:
            asked = draft.write()
            if self.more_tokens:
                asked = replace(asked, max_tokens=asked.max_tokens + self.more_tokens)
            return self._protocol.body(asked, stream=stream)

        return await self._client.prepare(self._protocol.endpoint, write, deadline=deadline, is_quick=draft.is_quick)

    async def ask(self, draft: Draft, *, deadline: Deadline) -> Said:
        """Return the answer to a question, even where it comes as a stream that was not asked for.

        Where thinking has used up the limit, the question is asked once more with a larger one, if time allows.

        Raises:
            BackendError: No usable answer came.
            CallerError: The request, its image or its content was refused.
        """
        more, before_s = self.more_tokens, deadline.remaining_s
        question = await self.prepare(draft, deadline=deadline)
        heard = await self._hear(question, deadline=deadline)
        if self._may_raise(heard.said, more=more, before_s=before_s, now_s=deadline.remaining_s):
            self.more_tokens = MORE_TOKENS
            try:
                again = await self._hear(await self.prepare(draft, deadline=deadline), deadline=deadline)
                heard = again._replace(said=_both(heard.said, again.said))
            except VisionError as error:
                heard = heard._replace(said=self._without_a_second(heard.said, error, question.model))
        return self._usable(*heard, model=question.model)

    async def stream(
        self, question: PreparedRequest, draft: Draft, *, deadline: Deadline
    ) -> AsyncGenerator[str | Said, None]:
        """Yield the pieces of the answer as they come, and at last the whole of it; errors as in `ask`.

        Args:
            question: The question, prepared.
            draft: It is written again, should its limit have to be raised.
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
                question = await self.prepare(draft, stream=True, deadline=deadline)
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
        if speech.has_thoughts or speech.text != said.text:
            said = replace(said, text=speech.text, has_thoughts=said.has_thoughts or speech.has_thoughts)
        return _Heard(said, reply.request_id)

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
        billed = billed_for(error)
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


def billed_for(error: VisionError) -> Usage:
    """Return what a question has cost that ended in an error; unknown where the server may have answered it."""
    return error.usage or (Usage() if isinstance(error, MAYBE_BILLED) else FREE)


def cut_short(what: str, usage: Usage) -> InvalidReplyError:
    """Return the error of an answer that is worth nothing as it was cut.

    Args:
        what: How the message calls it.
        usage: What it has cost.
    """
    error = InvalidReplyError(
        f"{what} was cut at its length limit.",
        remedy="Raise max_tokens in [openai] of vision.toml, or lower reasoning_effort there.",
        code="limit_reached",
    )
    error.usage = usage
    return error
