"""``--batch`` and ``--max-wait``: rather late than degraded."""

from __future__ import annotations

import pytest

from vision_backends.routing import ladder

FAKE = "vision_backends.testing.fake:FakeBackend"


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    """An interactive call waits for a moment only, and so a batch that waits longer need not wait for long either."""
    monkeypatch.setattr(ladder, "MAX_PAUSE_S", 0.2)


@pytest.mark.parametrize("command", ["describe", "detect", "embed"])
def test_a_batch_waits_for_the_best_backend(vision, make_photo, use_ladder, command):
    """Without --batch the next one answers at once."""
    use_ladder("rungs:Busy", FAKE)
    at_once = vision(command, make_photo("a.png"))
    patient = vision(command, make_photo("b.png"), "--batch", "--max-wait", "30")
    assert (at_once.exit_code, patient.exit_code) == (0, 0)
    assert "fake answered, because busy" in at_once.stderr
    assert "fake" not in patient.stderr


def test_patience_ends(vision, make_photo, use_ladder):
    """Then the next backend is better than nothing."""
    use_ladder("rungs:Broke", FAKE)
    result = vision("describe", make_photo(), "--batch", "--max-wait", "0")
    assert (result.exit_code, result.stdout) == (0, "fake says: 64×48 px\n")
    assert "broke: No money is left" in result.stderr


def test_a_long_batch_with_a_deadline_is_asked_for_in_one_piece(vision, make_photo, use_ladder):
    """Only the router knows how much of the time went into waiting; every image is answered."""
    use_ladder("rungs:Busy", FAKE)
    names = [make_photo(f"{number}.png", size=(8, 8)) for number in range(70)]
    result = vision("describe", *names, "--batch", "--max-wait", "30", "--deadline", "30")
    assert result.exit_code == 0
    assert result.stdout.count("busy says") == 70


def test_a_list_waits_together(vision, make_photo, use_ladder, fresh_user):
    """Where waiting is in vain, a thousand images do not wait one after the other."""
    use_ladder("rungs:Throttled", FAKE)
    names = [make_photo(f"{number}.png", size=(8 + number, 8)) for number in range(24)]
    result = vision("describe", *names, "--batch", "--max-wait", "1")
    assert (result.exit_code, result.stdout.count("fake says")) == (0, 24)
    assert 1 <= len((fresh_user / "asked").read_text().splitlines()) <= 3


def test_a_time_to_wait_without_batch_is_refused(vision, make_photo):
    """It would have no effect."""
    result = vision("embed", make_photo(), "--max-wait", "5")
    assert (result.exit_code, result.stderr) == (2, "vision: --max-wait needs --batch.\n")
