"""LangChain's ``with_fallbacks``."""

from __future__ import annotations

import openai
from at_once import at_once
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from trial import API_KEY, MODEL, Peer, messages

__all__ = ["make"]

TROUBLES = (
    openai.RateLimitError,
    openai.InternalServerError,
    openai.APIConnectionError,
    openai.APITimeoutError,
    openai.AuthenticationError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
)
"""What is not the caller's fault."""


def make(settings: str, url_a: str, url_b: str, cooldown_s: float | None) -> Peer:
    """Return the peer; at its best it never retries, and passes on errors of the caller. It has no cooldown."""
    del cooldown_s
    is_best = settings == "best"
    own = {"max_retries": 0, "timeout": 20} if is_best else {}
    chats = [ChatOpenAI(model=MODEL, base_url=url, api_key=API_KEY, **own) for url in (url_a, url_b)]
    handled = {"exceptions_to_handle": TROUBLES} if is_best else {}
    chain = chats[0].with_fallbacks([chats[1]], **handled)
    sdk = openai.OpenAI(base_url=url_a, api_key=API_KEY, max_retries=0)

    def bare(image: bytes) -> str:
        return sdk.chat.completions.create(model=MODEL, messages=messages(image)).choices[0].message.content or ""

    def ask(image: bytes) -> str:
        return str(chain.invoke([HumanMessage(content=messages(image)[0]["content"])]).content)

    return Peer(ask=ask, ask_at_once=lambda image, callers: at_once(lambda: ask(image), callers), bare=bare)
