"""Replies that were made to confuse, rob or mislead: whatever comes, the ladder answers, and nothing of it sticks."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_values import changed, places
from PIL import Image as PILImage

from vision_backends import CallerError, Router, StreamInterruptedError, VisionError
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.foreign_text import UNPRINTABLE
from vision_backends.health.budgets import Limits
from vision_backends.testing import FakeBackend, SandboxServer
from vision_backends.testing.sandbox import Fault

IMAGE = PILImage.new("RGB", (64, 48), "teal")

KEY = "sk-canary-7f3a9c51d2"

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**400, -(2**70), 1e308, float("inf"), float("nan"), -0.5]),
    st.sampled_from(["", " ", "null", "[]", '{"error": "x"}', "2099-01-01", "1e999", "9" * 400, "-1", "NaN", "stop"]),
    st.sampled_from(["\x1b[2J\x9b31m", "\u202egnp.exe", "\ud800", "a" * 100_000, "<think>", "</think>", "```json"]),
    st.just(f"your key is {KEY}"),
    st.text(max_size=20),
)

VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["text", "type", "code", "message"]), inner)
    ),
    max_leaves=6,
)

CHAT = {
    "id": "x",
    "model": "gpt-x",
    "choices": [{"message": {"content": "A cat."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}
VECTORS = {
    "data": [{"index": 0, "embedding": [1.0, 0.0]}],
    "model": "e",
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}
ERROR = {"error": {"message": "no", "code": "x", "type": "y", "param": None}}

LIMITS = [f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")]
ODD = ["0", "-1", "1", "1e308", "9" * 400, "NaN", "inf", "99999999h", "\x9b31m", KEY, "a" * 5_000, ""]
DATES = ["Fri, 31 Dec 9999 23:59:59 GMT", "Sat, 01 Jan 0000 00:00:00 GMT"]

HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-request-id", "location", *LIMITS]),
    st.sampled_from([*ODD, *DATES]),
    max_size=4,
)


@st.composite
def payloads(draw):
    """Replies of the usual shapes with odd values in up to three places, and some of no shape at all."""
    payload = draw(st.sampled_from([CHAT, VECTORS, ERROR, {}]))
    for _ in range(draw(st.integers(1, 3))):
        payload = changed(payload, draw(st.sampled_from(list(places(payload)))), draw(VALUES))
    return payload


@pytest.fixture(scope="module")
def trial():
    """A server, a router over it and a local backend, and what both have logged."""
    with SandboxServer() as server:
        best = OpenAIBackend(api_key=KEY, base_url=server.url, timeout_s=5)
        limits = {"openai": Limits(daily_budget_usd=1e6, monthly_budget_tokens=10**15)}
        with Router([best, FakeBackend("spare")], limits=limits, caching=False, deadline_s=20) as router:
            yield server, router


def outcome_of(ask):
    """Return an answer or a typed error."""
    try:
        return ask()
    except VisionError as error:
        return error


def ask_everything(router):
    """Yield a call of each kind; the last cannot fall back."""
    yield lambda: router.describe(IMAGE)
    yield lambda: "".join(router.describe_stream(IMAGE))
    yield lambda: router.detect(IMAGE, labels=["a cat"])
    yield lambda: router.embed_text("a cat")
    yield lambda: router.describe(IMAGE, backend="openai")


@pytest.mark.parametrize("kind", range(5))
@settings(max_examples=settings.default.max_examples // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(payload=payloads(), headers=HEADERS, status=st.sampled_from([200, 200, 200, 400, 402, 403, 404, 429, 500, 503]))
def test_a_hostile_reply_is_answered_by_the_next_rung_and_forgotten(trial, caplog, kind, payload, headers, status):
    """No error but a typed one, no key, nothing that drives a terminal, no endless text, and no rung shut for good."""
    server, router = trial
    server.reset()
    router.reset()
    caplog.clear()
    server.play(Fault(status=status, body=json.dumps(payload), headers={"content-type": "application/json", **headers}))
    ask = list(ask_everything(router))[kind]
    outcome = outcome_of(ask)
    if isinstance(outcome, VisionError):
        assert kind == 4 or isinstance(outcome, CallerError | StreamInterruptedError)
    attempts = getattr(getattr(outcome, "trace", outcome), "attempts", ())
    shown = [str(outcome), repr(outcome)] if isinstance(outcome, VisionError) else []
    for attempt in attempts:
        shown += [str(attempt.message), str(attempt.code), str(attempt.request_id), str(attempt.remedy)]
        assert attempt.retry_after_s is None or 0 <= attempt.retry_after_s < 1e10
    shown += [caplog.text, str(router.status()), str(router.explain("describe"))]
    shown += [str((row.code, row.error, row.model, row.request_id)) for row in router.ledger()]
    text = "\n".join(shown)
    assert KEY not in text
    assert not UNPRINTABLE.search(text.replace("\n", " "))
    assert max(map(len, shown)) < 20_000
    server.reset()
    router.reset()
    assert router.describe(IMAGE).trace.backend == "openai"
