"""This package as it is used: the upper server, and below it the embedded rung or a second server.

Gates are blocked for minutes. To see them pass again within a short trial, the router's clock runs faster: the
seconds that a server asks it to wait, and those of the gates, pass in so much less time. What is timed is not: servers,
models and callers know nothing of that clock.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from vision_backends import Router
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.openai import OpenAIBackend

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["make"]

API_KEY = "sk-sandbox"

MODEL = "gpt-sandbox"

PROMPT = "Describe this image."

GATE_S = 15 * 60.0
"""How long an exhausted quota is left alone at first; the peers' cooldowns are set alike."""

DEADLINE_S = 60.0


class FastClock:
    """The machine's clock, that many times as fast."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._wall = time.time()
        self._began = time.monotonic()

    def monotonic(self) -> float:
        """Return fast seconds since the clock was made."""
        return (time.monotonic() - self._began) * self._speed

    def time(self) -> float:
        """Return the wall clock, which was right when it was made."""
        return self._wall + self.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after that many fast seconds."""
        time.sleep(seconds / self._speed)

    def timeout_at(self, at: float) -> AbstractAsyncContextManager[object]:
        """Cancel the block when `monotonic` reaches a time, and then raise TimeoutError."""
        return asyncio.timeout((at - self.monotonic()) / self._speed)


class Second(OpenAIBackend):
    """The lower server."""

    name = "second"


class Ladder:
    """A router, as the program that calls it wants to have it."""

    def __init__(self, router: Router, *, prompt: str | None) -> None:
        self._router = router
        self._prompt = prompt

    def ask(self, image: bytes) -> str:
        """Ask about a PNG and return the answer's text."""
        return self._router.describe(image, prompt=self._prompt).text


def make(settings: str, url_a: str, url_b: str, cooldown_s: float) -> Ladder:
    """Return the ladder.

    Args:
        settings: ``"embedded"`` or ``"second"``: what is below the upper server.
        url_a: The upper server.
        url_b: The lower server.
        cooldown_s: Seconds after which an exhausted quota is probed for the first time.
    """
    speed = GATE_S / cooldown_s
    upper = OpenAIBackend(api_key=API_KEY, model=MODEL, base_url=url_a)
    below = EmbeddedBackend() if settings == "embedded" else Second(api_key=API_KEY, model=MODEL, base_url=url_b)
    router = Router([upper, below], caching=False, clock=FastClock(speed), deadline_s=DEADLINE_S * speed)
    return Ladder(router, prompt=None if settings == "embedded" else PROMPT)  # the embedded rung follows none
