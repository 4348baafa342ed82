"""Ways to corrupt a healthy answer, a reply or a set of vectors, by name.

This module decides how an answer is wrong although it arrives in full. It must not know when that is played.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vision_backends.testing.sandbox.wire import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import numpy.typing as npt

    from vision_backends.testing.sandbox.answers import Answer
    from vision_backends.testing.sandbox.faults import Fault
    from vision_backends.testing.sandbox.wire import HttpReply

    Vectors = npt.NDArray[np.float32]

__all__ = ["CORRUPTIONS", "corrupt_answer", "corrupt_reply", "corrupt_vectors"]

_RENAMED = "sandbox-renamed-model"
_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


def corrupt_answer(answer: Answer, fault: Fault) -> Answer:
    """Return the answer as the fault would have it."""
    half = answer.text[: max(1, len(answer.text) // 2)]
    match fault.corruption:
        case "refusal":
            return replace(answer, text="I'm sorry, but I can't help with that.", refusal=True)
        case "content_filter":
            return replace(answer, text=half, finish="content_filter")
        case "length":
            return replace(answer, text=half, finish="length")
        case "failed":
            return replace(answer, text="", failed=fault.code or "server_error")
        case "no_usage":
            return replace(answer, counted=False)
    corruption = _TEXT_CORRUPTIONS.get(fault.corruption or "")
    return replace(answer, text=corruption(answer.text)) if corruption else answer


def corrupt_reply(reply: HttpReply, fault: Fault) -> HttpReply:
    """Return the reply as the fault would have it."""
    corruption = _REPLY_CORRUPTIONS.get(fault.corruption or "")
    return corruption(reply, fault) if corruption else reply


def corrupt_vectors(vectors: Vectors, fault: Fault) -> Vectors:
    """Return the vectors, float32 of shape [n, D], as the fault would have them."""
    corruption = _VECTOR_CORRUPTIONS.get(fault.corruption or "")
    return corruption(vectors) if corruption else vectors


def _each(kind: type, change: Callable[[Any], Any]) -> Callable[[str], str]:
    """Return a corruption of every value of exactly this type in a JSON text; other texts stay as they are."""

    def walk(value: Any) -> Any:  # noqa: ANN401 — any JSON
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return change(value) if type(value) is kind else value

    def corruption(text: str) -> str:
        try:
            return json.dumps(walk(json.loads(text)))
        except ValueError:
            return text

    return corruption


_TEXT_CORRUPTIONS: Mapping[str, Callable[[str], str]] = {
    "empty_answer": lambda _: "",
    "not_json": lambda _: "Sure! I can see two things in this picture, and both of them are lovely.",
    "fenced_json": lambda text: f"Here you are:\n```json\n{text}\n```\n",
    "schema_broken": lambda text: json.dumps({"surprise": text[:40]}),
    "boxes_out_of_range": _each(int, lambda number: number + 5000),
    "boxes_inside_out": _each(int, lambda number: 1000 - number),
    "unknown_label": _each(str, lambda _: "sandbox-unknown"),
}


def _invalid_json(reply: HttpReply, fault: Fault) -> HttpReply:
    del fault
    headers = {**reply.headers, "content-type": "application/json"}
    return replace(reply, body=json.dumps(reply.body)[:-2], events=None, headers=headers)


def _renamed_model(reply: HttpReply, fault: Fault) -> HttpReply:
    del fault

    def rename(value: Any) -> Any:  # noqa: ANN401 — any JSON
        if not isinstance(value, dict):
            return value
        inner = {"response": rename(value["response"])} if "response" in value else {}
        return {**value, **({"model": _RENAMED} if "model" in value else {}), **inner}

    events = None if reply.events is None else tuple(replace(e, data=rename(e.data)) for e in reply.events)
    return replace(reply, body=rename(reply.body), events=events)


def _list_content(reply: HttpReply, fault: Fault) -> HttpReply:
    del fault
    if reply.events is not None:
        return reply
    choices = [
        {**choice, "message": {**choice["message"], "content": _as_parts(choice["message"]["content"])}}
        for choice in reply.body["choices"]
    ]
    return replace(reply, body={**reply.body, "choices": choices})


def _as_parts(text: str | None) -> list[dict[str, str]]:
    return [{"type": "text", "text": text or ""}]


def _no_choices(reply: HttpReply, fault: Fault) -> HttpReply:
    del fault
    if reply.events is not None:
        return replace(reply, events=(Event("[DONE]"),))
    return replace(reply, body={**reply.body, ("choices" if "choices" in reply.body else "output"): []})


def _no_done(reply: HttpReply, fault: Fault) -> HttpReply:
    del fault
    return replace(reply, events=reply.events and tuple(e for e in reply.events if e.data != "[DONE]"))


def _no_finish(reply: HttpReply, fault: Fault) -> HttpReply:
    del fault
    if reply.events is None:
        return reply
    kept = (event for event in reply.events if event.name not in _FINAL)
    return replace(reply, events=tuple(event for event in kept if not _finishes(event)))


def _finishes(event: Event) -> bool:
    choices = event.data.get("choices") if isinstance(event.data, dict) else None
    return bool(choices and choices[0].get("finish_reason"))


def _error_event(reply: HttpReply, fault: Fault) -> HttpReply:
    if reply.events is None:
        return reply
    half = reply.events[: max(1, len(reply.events) // 2)]
    error = {"message": "The server had an error.", "type": fault.code, "param": None, "code": fault.code}
    if half[0].name is None:
        return replace(reply, events=(*half, Event({"error": error})))
    data = {**error, "type": "error", "sequence_number": len(half)}
    return replace(reply, events=(*half, Event(data, name="error")))


def _early_usage(reply: HttpReply, fault: Fault) -> HttpReply:
    """Move the usage from a last chunk of its own to the chunk that carries the finish reason."""
    del fault
    counted = [e for e in reply.events or () if isinstance(e.data, dict) and not e.data.get("choices")]
    if reply.events is None or not counted:
        return reply
    usage = counted[0].data["usage"]
    rest = (event for event in reply.events if event is not counted[0])
    moved = (replace(e, data={**e.data, "usage": usage}) if _finishes(e) else e for e in rest)
    return replace(reply, events=tuple(moved))


def _shuffled_vectors(reply: HttpReply, fault: Fault) -> HttpReply:
    del fault
    return replace(reply, body={**reply.body, "data": reply.body["data"][::-1]})


_REPLY_CORRUPTIONS: Mapping[str, Callable[[HttpReply, Fault], HttpReply]] = {
    "invalid_json": _invalid_json,
    "renamed_model": _renamed_model,
    "list_content": _list_content,
    "no_choices": _no_choices,
    "no_done": _no_done,
    "no_finish": _no_finish,
    "error_event": _error_event,
    "early_usage": _early_usage,
    "shuffled_vectors": _shuffled_vectors,
}


def _one_more(vectors: Vectors) -> Vectors:
    return vectors[[*range(len(vectors)), -1]]


def _with_nan(vectors: Vectors) -> Vectors:
    corrupted = vectors.copy()
    corrupted[-1, 0] = float("nan")
    return corrupted


_VECTOR_CORRUPTIONS: Mapping[str, Callable[[Vectors], Vectors]] = {
    "too_few_vectors": lambda vectors: vectors[:-1],
    "too_many_vectors": _one_more,
    "wrong_dimension": lambda vectors: vectors[:, : vectors.shape[1] // 2],
    "nan_vector": _with_nan,
    "zero_vector": lambda vectors: vectors * 0,
}

_ANSWER_CORRUPTIONS = frozenset({"refusal", "content_filter", "length", "failed", "no_usage", *_TEXT_CORRUPTIONS})

_ENDPOINT_CORRUPTIONS = frozenset({"streamed", "floats_for_base64"})
"""Corruptions that only the endpoint itself can apply, while it writes the reply."""

CORRUPTIONS = (
    _ANSWER_CORRUPTIONS | _ENDPOINT_CORRUPTIONS | frozenset(_REPLY_CORRUPTIONS) | frozenset(_VECTOR_CORRUPTIONS)
)
"""Every corruption by name."""
