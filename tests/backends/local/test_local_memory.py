"""Loads that run beside each other share what is free."""

from __future__ import annotations

import pytest

from vision_backends.backends.local.checkpoint import read_checkpoint
from vision_backends.backends.local.memory import Room, give_back_memory, memory_for, needed_bytes
from vision_backends.errors import NotReadyError


def test_a_load_counts_what_another_is_about_to_take():
    """Each fits alone; together they would not."""
    room = Room()
    with room.reserve(600, free=1000) as first, room.reserve(600, free=1000) as second:
        assert (first, second) == (1000, 400)
    with room.reserve(600, free=1000) as third:
        assert third == 1000


def test_what_a_running_load_has_already_taken_is_not_counted_twice():
    """Half-way through, its 300 bytes are missing from what is free as well as reserved."""
    room = Room()
    with room.reserve(600, free=1000), room.reserve(400, free=700) as second:
        assert second == 400


def test_what_others_take_meanwhile_counts():
    """The rest of the machine does not stand still."""
    room = Room()
    with room.reserve(600, free=1000), room.reserve(100, free=50) as second:
        assert second == 50


def test_a_load_that_ended_keeps_its_memory_while_others_run():
    """What it holds may not show in what is free: files that are mapped do not."""
    room = Room()
    with room.reserve(300, free=1000):
        with room.reserve(300, free=1000):
            pass
        with room.reserve(500, free=1000) as third:
            assert third == 400


def test_a_load_that_failed_gives_its_memory_back():
    """Also while others run."""
    room = Room()
    with room.reserve(300, free=1000):
        with pytest.raises(ZeroDivisionError), room.reserve(300, free=1000):
            raise ZeroDivisionError
        with room.reserve(700, free=1000) as third:
            assert third == 700


def test_two_models_that_fit_alone_do_not_load_together(model):
    """The second is told what is left, and fits once the first has failed; both in the room of this process."""
    checkpoint = read_checkpoint(model("clip"))
    huge = int(1e15)  # more than half of any machine

    def load(parameter_bytes):
        return memory_for(checkpoint, device="cpu", max_bytes=None, bytes_per_parameter=parameter_bytes)

    from vision_backends.backends.local.memory import free_memory_bytes

    half = int(free_memory_bytes() * 0.6 / 1.3 / checkpoint.parameters)
    with load(half), pytest.raises(NotReadyError, match=r"MB is free") as caught, load(half):
        pytest.fail("It was let through.")
    assert (caught.value.code, caught.value.retry_after_s) == ("out_of_memory", 30.0)
    with load(half):
        pass
    with pytest.raises(NotReadyError), load(huge):
        pytest.fail("It was let through.")


def test_half_the_bytes_for_each_parameter_need_half_the_memory(model):
    """16-bit floats."""
    checkpoint = read_checkpoint(model("clip"))
    full = needed_bytes(checkpoint, bytes_per_parameter=4)
    assert full > 4 * checkpoint.parameters
    assert needed_bytes(checkpoint, bytes_per_parameter=2) == pytest.approx(full / 2, abs=1)


@pytest.mark.skipif("sys.platform != 'linux'")
def test_memory_that_is_given_back_leaves_the_process():
    """What many small pieces leave behind is kept by malloc until it is told."""
    pieces = [bytearray(2000) for _ in range(100_000)]
    last = bytearray(2000)  # keeps the top of the heap in place
    held = _resident_bytes()
    del pieces
    give_back_memory()
    assert held - _resident_bytes() > 100_000_000
    assert last


def _resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096
