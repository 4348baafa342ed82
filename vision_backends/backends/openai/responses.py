"""The Responses API, OpenAI's own.

This module decides how a question is written for it and how its answers are read. Nothing is stored there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.backends.openai.prices import read_tokens
from vision_backends.backends.openai.protocol import ApiProtocol, Ask, Finish, Said, refused
from vision_backends.errors import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Responses"]

_ENDINGS = {"response.completed", "response.incomplete", "response.failed"}


class Responses(ApiProtocol):
    """Responses."""

    endpoint = "responses"

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
        """Read a reply."""
        parts = list(_parts(payload.get("output")))
        refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
        if refusals:
            raise refused(" ".join(refusals))
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
        """Read one event of a stream."""
        kind = event.get("type")
        if kind == "response.output_text.delta":
            delta = event.get("delta")
            return Said(text=delta if isinstance(delta, str) else "")
        if kind == "response.refusal.done":
            raise refused(str(event.get("refusal") or ""))
        if kind in _ENDINGS and isinstance(event.get("response"), dict):
            return self.read(event["response"])
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
