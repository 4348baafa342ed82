"""This package: a router over two servers."""

from __future__ import annotations

from at_once import at_once
from trial import API_KEY, MODEL, PROMPT, Peer, messages

from vision_backends import Router
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.testing import FakeClock

__all__ = ["make"]

GATE_S = 15 * 60.0


class Second(OpenAIBackend):
    """The lower server."""

    name = "second"


def make(settings: str, url_a: str, url_b: str, cooldown_s: float | None) -> Peer:
    """Return the peer; its defaults are its best settings, but for answers kept, which the others do not do."""
    del settings
    import openai

    clock = FakeClock()
    options = {} if cooldown_s is None else {"clock": clock}
    table = {"api_key": API_KEY, "model": MODEL, "prices": {MODEL: {"input": 1.0, "output": 1.0}}}
    router = Router([OpenAIBackend(base_url=url_a, **table), Second(base_url=url_b, **table)], caching=False, **options)
    sdk = openai.OpenAI(base_url=url_a, api_key=API_KEY, max_retries=0)

    def bare(image: bytes) -> str:
        return sdk.chat.completions.create(model=MODEL, messages=messages(image)).choices[0].message.content or ""

    def ask(image: bytes) -> str:
        return router.describe(image, prompt=PROMPT).text

    return Peer(
        ask=ask,
        ask_at_once=lambda image, callers: at_once(lambda: ask(image), callers),
        bare=bare,
        pass_cooldown=lambda: clock.advance(GATE_S + 1),
    )
