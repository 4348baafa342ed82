"""pydantic-ai's ``FallbackModel``, in one event loop that callers of any thread share."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import openai
from pydantic_ai import BinaryContent
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelRequest, UserPromptPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from trial import API_KEY, MODEL, PROMPT, Peer, messages

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["make"]

OF_THE_CALLER = frozenset({400, 413, 422})


def make(settings: str, url_a: str, url_b: str, cooldown_s: float | None) -> Peer:
    """Return the peer; at its best it never retries, and passes on errors of the caller. It has no cooldown."""
    del cooldown_s
    is_best = settings == "best"
    models = []
    for url in (url_a, url_b):
        own = {"openai_client": openai.AsyncOpenAI(base_url=url, api_key=API_KEY, max_retries=0, timeout=20)}
        provider = OpenAIProvider(**(own if is_best else {"base_url": url, "api_key": API_KEY}))
        models.append(OpenAIChatModel(MODEL, provider=provider))
    model = FallbackModel(*models, **({"fallback_on": _is_trouble} if is_best else {}))
    sdk = openai.AsyncOpenAI(base_url=url_a, api_key=API_KEY, max_retries=0)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 — whatever the work returns
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def ask(image: bytes) -> str:
        content = [PROMPT, BinaryContent(data=image, media_type="image/png")]
        reply = await model_request(model, [ModelRequest(parts=[UserPromptPart(content=content)])])
        return str(reply.parts[0])

    async def bare(image: bytes) -> str:
        reply = await sdk.chat.completions.create(model=MODEL, messages=messages(image))
        return reply.choices[0].message.content or ""

    async def ask_at_once(image: bytes, callers: int) -> None:
        await asyncio.gather(*(ask(image) for _ in range(callers)), return_exceptions=True)

    return Peer(
        ask=lambda image: run(ask(image)),
        ask_at_once=lambda image, callers: run(ask_at_once(image, callers)),
        bare=lambda image: run(bare(image)),
    )


def _is_trouble(error: Exception) -> bool:
    return not (isinstance(error, ModelHTTPError) and error.status_code in OF_THE_CALLER)
