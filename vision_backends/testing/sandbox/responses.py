"""``POST /v1/responses``: a prompt and its answer in the wire format of the Responses API.

This module decides the shape of the document and of the stream. It must not know what is answered, nor which
limits hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.testing.sandbox.answers import Answer, Prompt, compose
from vision_backends.testing.sandbox.context import Context, Draft
from vision_backends.testing.sandbox.corruptions import corrupt_answer, corrupt_reply
from vision_backends.testing.sandbox.prompts import read_responses
from vision_backends.testing.sandbox.wire import Event, HttpReply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["respond"]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def respond(body: Mapping[str, Any], context: Context) -> Draft:
    """Return the draft of a reply.

    Raises:
        ApiError: The request is not well formed.
    """
    prompt = read_responses(body, context.album)
    answer = corrupt_answer(compose(prompt), context.fault)
    document = _Document(body, prompt, answer, context)
    if prompt.stream or context.fault.corruption == "streamed":
        reply = HttpReply(events=tuple(document.events()))
    else:
        reply = HttpReply(body=document.final())
    tokens = prompt.input_tokens + answer.output_tokens
    return Draft(pictures=prompt.pictures, tokens=tokens, reply=corrupt_reply(reply, context.fault))


class _Document:
    """One response object, from its creation to its end."""

    def __init__(self, body: Mapping[str, Any], prompt: Prompt, answer: Answer, context: Context) -> None:
        self._body = body
        self._prompt = prompt
        self._answer = answer
        self._desk = context
        self._status = "incomplete" if answer.finish in _INCOMPLETE else "completed"
        self._kind = "refusal" if answer.refusal else "output_text"

    def final(self) -> dict[str, Any]:
        """Return the response in its final state."""
        answer = self._answer
        if answer.failed:
            error = {"code": answer.failed, "message": "The response failed.", "param": None, "type": None}
            return self._at("failed", output=[]) | {"error": error}
        reason = _INCOMPLETE.get(answer.finish)
        details = {"incomplete_details": {"reason": reason}} if reason else {}
        counted = {"usage": self._usage()} if answer.counted else {}
        item = self._item(self._status, content=[self._part(answer.text)])
        return self._at(self._status, output=[item]) | details | counted

    def events(self) -> Iterator[Event]:
        """Yield the events of the stream, numbered."""
        for number, (kind, data) in enumerate(self._events()):
            yield Event({"type": kind, "sequence_number": number, **data}, name=kind)

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        final = self.final()
        started = self._at("in_progress", output=[])
        yield "response.created", {"response": started}
        yield "response.in_progress", {"response": started}
        if not self._answer.failed:
            yield from self._item_events()
        yield f"response.{final['status']}", {"response": final}

    def _item_events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        text = self._answer.text
        place = {"output_index": 0}
        spot = {"item_id": self._id("msg"), "output_index": 0, "content_index": 0}
        extra: dict[str, Any] = {} if self._answer.refusal else {"logprobs": []}
        words = "refusal" if self._answer.refusal else "text"
        yield "response.output_item.added", {**place, "item": self._item("in_progress", content=[])}
        yield "response.content_part.added", {**spot, "part": self._part("")}
        for word in self._answer.words:
            yield f"response.{self._kind}.delta", {**spot, **extra, "delta": word}
        yield f"response.{self._kind}.done", {**spot, **extra, words: text}
        yield "response.content_part.done", {**spot, "part": self._part(text)}
        yield (
            "response.output_item.done",
            {**place, "item": self._item(self._status, content=[self._part(text)])},
        )

    def _at(self, status: str, *, output: list[Any]) -> dict[str, Any]:
        body = self._body
        return {
            "id": self._id("resp"),
            "object": "response",
            "created_at": self._desk.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "metadata": body.get("metadata") or {},
            "model": self._prompt.model,
            "output": output,
            "parallel_tool_calls": True,
            "store": body.get("store", True),
            "text": body.get("text") or {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
        }

    def _item(self, status: str, *, content: list[Any]) -> dict[str, Any]:
        return {
            "id": self._id("msg"),
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _part(self, text: str) -> dict[str, Any]:
        if self._answer.refusal:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _usage(self) -> dict[str, Any]:
        read, written = self._prompt.input_tokens, self._answer.output_tokens
        return {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        }

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._desk.ident}"
