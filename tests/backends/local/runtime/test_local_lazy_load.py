"""One load for all, in the background or waited for, and what is said meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from answering import answer

from vision_backends.backends.local.hub.progress import Progress
from vision_backends.backends.local.runtime.lazy_load import RETRY_AFTER_S, Slot
from vision_backends.clock import SYSTEM_CLOCK, Deadline
from vision_backends.errors import ModelNotFoundError, NotReadyError, OverloadedError
from vision_backends.testing import FakeClock


class Work:
    """Something to load that takes until it is allowed to end."""

    def __init__(self, *results):
        self.results = list(results)
        self.begun = threading.Event()
        self.allowed = threading.Event()
        self.calls = 0

    def __call__(self, progress):
        """Report, wait, and return or raise the next result."""
        self.calls += 1
        progress.stage, progress.done_bytes, progress.total_bytes = "being fetched", 250_000_000, 1_000_000_000
        self.begun.set()
        assert self.allowed.wait(10)
        result = self.results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result


def slot_for(work, clock=None):
    """Return a slot around some work."""
    return Slot("The model", work, clock=clock or FakeClock())


def get(slot, *, timeout_s=10):
    """Return what is loaded, or hear why not."""
    return answer(slot.get, Deadline(SYSTEM_CLOCK, timeout_s))


def test_many_threads_load_once():
    """Eight callers share one load."""
    work = Work("loaded")
    slot = slot_for(work)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(get, slot) for _ in range(8)]
        assert work.begun.wait(10)
        work.allowed.set()
        assert {job.result() for job in jobs} == {"loaded"}
    assert (work.calls, slot.value, slot.state) == (1, "loaded", "loaded")


def test_in_the_background_callers_hear_how_far_it_is():
    """Until it is there the check refuses with progress; then it passes."""
    work = Work("loaded")
    slot = slot_for(work)
    slot.check()
    slot.start()
    slot.start()
    assert work.begun.wait(10)
    with pytest.raises(NotReadyError, match=r"The model is being fetched: 250 of 1000 MB, 25%\."):
        slot.check()
    work.allowed.set()
    assert get(slot) == "loaded"
    slot.check()
    assert work.calls == 1


def test_a_load_that_somebody_waits_for_refuses_nobody():
    """Others wait for it as well."""
    work = Work("loaded")
    slot = slot_for(work)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(get, slot)
        assert work.begun.wait(10)
        slot.check()
        work.allowed.set()
        assert job.result() == "loaded"


def test_who_cannot_wait_longer_leaves_and_the_load_goes_on():
    """The next caller finds it loaded."""
    work = Work("loaded")
    slot = slot_for(work)
    with pytest.raises(NotReadyError, match=r"still being (fetched|loaded).* after 0\.0\d+ s"):
        get(slot, timeout_s=0.01)
    work.allowed.set()
    assert get(slot) == "loaded"
    assert work.calls == 1


def test_a_failure_is_told_for_a_while_and_then_tried_again():
    """With its kind, its words and its remedy; nobody loads meanwhile."""
    work, clock = Work(ModelNotFoundError("No such model.", remedy="Correct it.", code="404"), "loaded"), FakeClock()
    slot = slot_for(work, clock)
    work.allowed.set()
    for ask in (lambda: get(slot), slot.check, lambda: get(slot), slot.start):
        with pytest.raises(ModelNotFoundError, match="No such model") as caught:
            ask()
        assert (caught.value.remedy, caught.value.code) == ("Correct it.", "404")
    assert (work.calls, slot.state) == (1, "failed: No such model.")
    clock.advance(RETRY_AFTER_S + 1)
    slot.check()
    assert get(slot) == "loaded"


def test_a_failure_may_say_when_to_try_again():
    """A shortage passes sooner than a wrong name."""
    work, clock = Work(NotReadyError("No memory.", retry_after_s=30), "loaded"), FakeClock()
    slot = slot_for(work, clock)
    work.allowed.set()
    with pytest.raises(NotReadyError):
        get(slot)
    clock.advance(31)
    assert get(slot) == "loaded"


def test_a_crash_of_the_load_is_a_reason_not_to_be_ready():
    """Whatever it raises, those who wait hear of it."""
    work = Work(ZeroDivisionError("oops"))
    work.allowed.set()
    with pytest.raises(NotReadyError, match="ZeroDivisionError: oops"):
        get(slot_for(work))


def test_a_system_without_room_for_threads_is_an_overload():
    """Nothing is left half done: once there is room, it is loaded."""
    work = Work("loaded")
    work.allowed.set()
    slot = slot_for(work)
    usual = threading.stack_size(1 << 46)
    try:
        for ask in (slot.start, lambda: get(slot, timeout_s=1)):
            with pytest.raises(OverloadedError, match="No thread could be started"):
                ask()
    finally:
        threading.stack_size(usual)
    assert (slot.state, slot.touched) == ("not loaded", False)
    assert get(slot) == "loaded"


def test_closing_forgets_what_is_loaded_and_what_has_failed():
    """The next caller loads again."""
    work = Work("one", NotReadyError("Broken."), "two")
    slot = slot_for(work)
    work.allowed.set()
    assert get(slot) == "one"
    slot.close()
    assert (slot.value, slot.state, slot.touched) == (None, "not loaded", False)
    with pytest.raises(NotReadyError):
        get(slot)
    slot.close()
    assert get(slot) == "two"


def test_what_arrives_after_closing_is_dropped():
    """Closing gives the memory back, also of a load that is still under way."""
    work = Work("late")
    slot = slot_for(work)
    slot.start()
    assert work.begun.wait(10)
    (loader,) = (thread for thread in threading.enumerate() if thread.name == "load The model")
    slot.close()
    assert (slot.state, slot.touched) == ("not loaded", True)  # a child forked now would lack the thread
    work.allowed.set()
    loader.join(10)
    assert (slot.value, slot.touched) == (None, False)


def test_progress_without_a_total_says_the_stage_only():
    """Nobody invents a percentage."""
    assert str(Progress()) == "being loaded"
