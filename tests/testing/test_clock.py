"""The clock that tests move by hand."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from vision_backends.testing import FakeClock


def test_time_stands_still_until_it_is_advanced():
    """Both clocks move by what is advanced, and by nothing else."""
    clock = FakeClock(start=1000.0)
    assert (clock.monotonic(), clock.time()) == (0.0, 1000.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (2.5, 1002.5)


def test_sleeping_advances_and_returns_at_once():
    """A sleeper of a minute takes no time."""
    clock = FakeClock()
    clock.sleep(60)
    assert clock.monotonic() == 60


def test_a_jump_moves_the_wall_clock_alone():
    """Somebody sets the clock; no time passes by that."""
    clock = FakeClock(start=1000.0)
    clock.jump(-300)
    assert (clock.monotonic(), clock.time()) == (0.0, 700.0)


def test_time_does_not_run_backwards():
    """A negative duration is a mistake in a test."""
    with pytest.raises(ValueError, match="backwards"):
        FakeClock().advance(-1)


def test_advances_of_many_threads_add_up():
    """No advance is lost."""
    clock = FakeClock()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(clock.advance, [1] * 400))
    assert clock.monotonic() == 400
