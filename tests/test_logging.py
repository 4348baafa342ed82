"""What the package writes to the log: nothing by itself, everything on demand, and never what was asked."""

import logging
import subprocess
import sys

import pytest
from PIL import Image as PILImage

from vision_backends import AllBackendsFailedError, QuotaExhaustedError, Router
from vision_backends.testing import FakeBackend
from vision_backends.types import Usage

IMAGE = PILImage.new("RGB", (64, 48), "teal")
CANARY = "a very private question"

LOUD_SCRIPT = """
from vision_backends import QuotaExhaustedError, Router
from vision_backends.testing import FakeBackend
best = FakeBackend("best", local=False)
best.play(QuotaExhaustedError("No money.", code="insufficient_quota"))
with Router([best, FakeBackend("spare")]) as router:
    print(router.embed_text("hello").trace.backend)
"""


@pytest.fixture
def best():
    """A remote backend to play trouble."""
    return FakeBackend("best", local=False, usage=Usage(input_tokens=7, output_tokens=3, cost_usd=0.01))


@pytest.fixture
def router(best):
    """A router over that backend and a spare one."""
    with Router([best, FakeBackend("spare", labels=["cat"])], caching=False) as made:
        yield made


def test_a_program_that_set_up_no_logging_sees_none():
    """Not even an error: every answer says itself how it came about."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOUD_SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == "spare\n"
    assert run.stderr == ""


def test_attempts_and_calls_are_logged_at_debug_level(router, best, caplog):
    """With fields for whoever collects logs, units in their names."""
    caplog.set_level(logging.DEBUG, logger="vision_backends")
    best.play(QuotaExhaustedError("No money.", code="insufficient_quota", status=429))
    router.describe(IMAGE)
    gate, failed, answered, call = [each for each in caplog.records if each.name == "vision_backends.events"]
    assert {each.levelno for each in (gate, failed, answered, call)} == {logging.DEBUG}
    assert (gate.vision_gate, gate.vision_before, gate.vision_after) == ("quota", "passing", "blocked")
    assert (failed.vision_backend, failed.vision_error, failed.vision_status) == ("best", "quota_exhausted", 429)
    assert (answered.vision_backend, answered.vision_outcome) == ("spare", "answered")
    assert (call.vision_count, call.vision_answered, call.vision_degraded) == (1, 1, 1)
    assert failed.vision_call_id == answered.vision_call_id == call.vision_call_id
    assert "outcome=failed" in failed.getMessage()
    assert "error=quota_exhausted" in failed.getMessage()


def test_tokens_and_cost_are_logged(router, caplog):
    """As far as they are known."""
    caplog.set_level(logging.DEBUG, logger="vision_backends")
    router.describe(IMAGE)
    answered = next(each for each in caplog.records if hasattr(each, "vision_outcome"))
    assert (answered.vision_input_tokens, answered.vision_output_tokens) == (7, 3)
    assert answered.vision_cost_usd == 0.01
    assert not hasattr(answered, "vision_error")


def test_nothing_is_made_up_for_a_log_that_nobody_reads(router, caplog):
    """At information level a call leaves no line."""
    caplog.set_level(logging.INFO, logger="vision_backends")
    router.describe(IMAGE)
    assert caplog.records == []


def test_no_prompt_text_or_label_is_in_the_log(router, best, caplog):
    """Though the sentences of errors may quote them."""
    caplog.set_level(logging.DEBUG)
    router.describe(IMAGE, prompt=CANARY)
    router.embed_text(CANARY)
    best.play(QuotaExhaustedError(f"No money for {CANARY!r}.", remedy=f"Do not ask {CANARY!r}."))
    with pytest.raises(AllBackendsFailedError) as caught:
        router.detect(IMAGE, labels=[CANARY])
    assert CANARY in str(caught.value)
    logged = "".join(repr(vars(record)) + record.getMessage() for record in caplog.records)
    assert "not_supported" in logged
    assert CANARY not in logged
