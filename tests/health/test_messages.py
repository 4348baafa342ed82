"""What people are told about a blocked gate."""

from __future__ import annotations

import pytest

from vision_backends.health.circuit_breaker import Gate
from vision_backends.health.messages import WORDS, duration, refusal
from vision_backends.health.policy import RULES
from vision_backends.health.scopes import GateKey

NOON = 1_795_435_200.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.1, "1 s"),
        (45, "45 s"),
        (120, "120 s"),
        (121, "3 min"),
        (900, "15 min"),
        (7201, "3 h"),
        (86_400, "24 h"),
        (12 * 86_400, "12 d"),
    ],
)
def test_a_duration_is_rounded_up(seconds, words):
    """Who comes back after it is never too early."""
    assert duration(seconds) == words


@pytest.mark.parametrize("kind", WORDS)
def test_every_gate_has_words_of_its_own(kind):
    """With since when and why."""
    gate = Gate(backend="b", reason="why", since=NOON, blocked_at=NOON, until=NOON + 90)
    error = refusal(GateKey(kind, "b", "m", "embed"), gate, now=NOON)
    assert "(why) since 12:00 UTC; the next probe is due in 90 s." in error.message
    assert "{" not in str(error)
    assert RULES[kind].first_s > 0


def test_trouble_of_another_day_has_its_date():
    """Otherwise "since 23:50" would lie in the future."""
    gate = Gate(backend="b", reason="why", since=NOON - 86_400, blocked_at=NOON, until=NOON + 90)
    error = refusal(GateKey("quota"), gate, now=NOON)
    assert "since 2026-11-22 12:00 UTC" in error.message
