"""LiteLLM Router with ``fallbacks``."""

from __future__ import annotations

import litellm
import openai
from at_once import at_once
from trial import API_KEY, MODEL, Peer, messages

__all__ = ["make"]

LONG_S = 900.0


def make(settings: str, url_a: str, url_b: str, cooldown_s: float | None) -> Peer:
    """Return the peer; at its best it never retries, and cools a deployment down at its first failure."""
    litellm.suppress_debug_info = True
    is_best = settings == "best"
    own = {"max_retries": 0, "timeout": 20} if is_best else {}
    options = {"num_retries": 0, "allowed_fails": 0, "cooldown_time": cooldown_s or LONG_S} if is_best else {}
    if cooldown_s is not None:
        options["cooldown_time"] = cooldown_s
    router = litellm.Router(
        model_list=[
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{MODEL}", "api_base": url, "api_key": API_KEY} | own,
            }
            for name, url in (("a", url_a), ("b", url_b))
        ],
        fallbacks=[{"a": ["b"]}],
        **options,
    )
    sdk = openai.OpenAI(base_url=url_a, api_key=API_KEY, max_retries=0)

    def bare(image: bytes) -> str:
        return sdk.chat.completions.create(model=MODEL, messages=messages(image)).choices[0].message.content or ""

    def ask(image: bytes) -> str:
        return router.completion(model="a", messages=messages(image)).choices[0].message.content or ""

    return Peer(ask=ask, ask_at_once=lambda image, callers: at_once(lambda: ask(image), callers), bare=bare)
