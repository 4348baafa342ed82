"""The Chat Completions API, which nearly every compatible server has.

This module decides how a question is written for it and how its answers are read, however a server bends them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.backends.openai.prices import read_tokens
from vision_backends.backends.openai.protocol import ApiProtocol, Ask, Finish, Said, join_parts, refused
from vision_backends.errors import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Chat"]

_FINISH: dict[str, Finish] = {"length": "length", "content_filter": "filter"}


class Chat(ApiProtocol):
    """Chat Completions.

    Args:
        official: True for OpenAI itself, which knows parameters that other servers refuse.
    """

    endpoint = "chat"

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
        """Read a reply."""
        choice = _choice(payload)
        message = None if choice is None else choice.get("message")
        if choice is None or not isinstance(message, dict):
            raise InvalidReplyError("The reply has no message.", code="no_message")
        return _said(payload, choice, message)

    def read_event(self, event: Mapping[str, Any]) -> Said:
        """Read one event of a stream."""
        choice = _choice(event)
        if choice is None:  # the last event of OpenAI's own streams carries nothing but the usage
            return Said(tokens=read_tokens(event.get("usage")))
        delta = choice.get("delta") or choice.get("message")
        return _said(event, choice, delta if isinstance(delta, dict) else {})


def _choice(payload: Mapping[str, Any]) -> dict[str, Any] | None:
    choices = payload.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _said(payload: Mapping[str, Any], choice: dict[str, Any], message: dict[str, Any]) -> Said:
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        raise refused(message["refusal"])
    reason = choice.get("finish_reason")
    model = payload.get("model")
    return Said(
        text=join_parts(message.get("content")),
        finish=_FINISH.get(reason, "stop") if isinstance(reason, str) else None,
        tokens=read_tokens(payload.get("usage")),
        model=model if isinstance(model, str) else None,
    )
