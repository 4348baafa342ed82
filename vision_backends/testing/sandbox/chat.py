"""``POST /v1/chat/completions``: a prompt and its answer in the wire format of Chat Completions.

This module decides the shape of the document and of the stream. It must not know what is answered, nor which
limits hold.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vision_backends.testing.sandbox.answers import Answer, Prompt, compose
from vision_backends.testing.sandbox.context import Context, Draft
from vision_backends.testing.sandbox.corruptions import corrupt_answer, corrupt_reply
from vision_backends.testing.sandbox.prompts import read_chat
from vision_backends.testing.sandbox.wire import Event, HttpReply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["respond", "usage"]


def respond(body: Mapping[str, Any], context: Context) -> Draft:
    """Return the draft of a reply.

    Raises:
        ApiError: The request is not well formed.
    """
    prompt = read_chat(body, context.album)
    answer = corrupt_answer(compose(prompt), context.fault)
    if prompt.stream or context.fault.corruption == "streamed":
        options = body.get("stream_options") or {}
        counted = answer.counted and options.get("include_usage") is True
        events = tuple(_events(prompt, replace(answer, counted=counted), context))
        reply = HttpReply(events=events)
    else:
        reply = HttpReply(body=_document(prompt, answer, context))
    tokens = prompt.input_tokens + answer.output_tokens
    return Draft(pictures=prompt.pictures, tokens=tokens, reply=corrupt_reply(reply, context.fault))


def usage(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    """Return the ``usage`` object of an answer."""
    return {
        "prompt_tokens": prompt.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": prompt.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": 0,
            "audio_tokens": 0,
            "image_tokens": prompt.image_tokens,
            "text_tokens": prompt.input_tokens - prompt.image_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _document(prompt: Prompt, answer: Answer, context: Context) -> dict[str, Any]:
    said, refused = (None, answer.text) if answer.refusal else (answer.text, None)
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": refused, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
    counted = {"usage": usage(prompt, answer)} if answer.counted else {}
    return _envelope(prompt, context, kind="chat.completion", choices=[choice]) | counted


def _events(prompt: Prompt, answer: Answer, context: Context) -> Iterator[Event]:
    key = "refusal" if answer.refusal else "content"
    deltas: list[dict[str, Any]] = [{"role": "assistant", key: ""}]
    deltas += [{key: word} for word in answer.words]
    rows: list[tuple[dict[str, Any], str | None]] = [(delta, None) for delta in deltas] + [({}, answer.finish)]
    # The real API puts "usage": null on every chunk but the last, once usage was asked for.
    uncounted = {"usage": None} if answer.counted else {}
    for delta, finish in rows:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        yield Event(_envelope(prompt, context, kind="chat.completion.chunk", choices=[choice]) | uncounted)
    if answer.counted:
        chunk = _envelope(prompt, context, kind="chat.completion.chunk", choices=[])
        yield Event(chunk | {"usage": usage(prompt, answer)})
    yield Event("[DONE]")


def _envelope(prompt: Prompt, context: Context, *, kind: str, choices: list[Any]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{context.ident}",
        "object": kind,
        "created": context.created,
        "model": prompt.model,
        "service_tier": "default",
        "system_fingerprint": "fp_sandbox",
        "choices": choices,
    }
