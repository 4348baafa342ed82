"""How long a store is waited for, and when it is asked again."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from blocked_store import until

from vision_backends.engine.threads import Mailbox
from vision_backends.storage.base import StoreError
from vision_backends.storage.bounded import RETRY_S, Reader, bounded, is_over, store_time, until_done, waited_for


@pytest.fixture
def stuck():
    """What somebody waits for who never hears of it, until the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def test_the_time_of_a_call_is_used_up_wherever_it_is_waited():
    """Also in what it begins in threads; within a call no further time begins."""
    with store_time():
        assert not is_over()
        with store_time(), pytest.raises(TimeoutError):
            waited_for(Mailbox())
        assert is_over()
        with pytest.raises(TimeoutError):
            waited_for(Mailbox())
    assert not is_over()


def test_a_call_in_a_hurry_waits_for_half_of_its_time_at_most():
    """A store is not worth all of it."""
    with store_time(at_most_s=0.002):
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            waited_for(Mailbox())
        assert is_over()
    assert time.monotonic() - started < 10.0


def test_what_comes_in_time_costs_what_it_took():
    """A quick store may be asked often."""
    with store_time():
        for number in range(50):
            mailbox = Mailbox()
            mailbox.put(number)
            assert waited_for(mailbox) == number
        assert not is_over()


def test_an_event_loop_waits_as_long():
    """For a future of its own."""

    async def work():
        future = asyncio.get_running_loop().create_future()
        with store_time():
            assert not await until_done(future)
            assert is_over()
        future.set_result(None)
        assert await until_done(future)

    asyncio.run(work())


def test_what_takes_too_long_is_left_behind(stuck):
    """What it would have raised otherwise comes out."""
    with pytest.raises(StoreError, match=r"not answered within 0.01 s"):
        bounded(stuck.wait, wait_s=0.01)
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 / 0, wait_s=20.0)
    assert bounded(lambda: "answer", wait_s=20.0) == "answer"


def test_a_question_that_is_never_answered_does_not_shut_the_store_for_good(stuck):
    """Another is asked after a while, and its answer counts."""
    reader = Reader("read it", stuck_s=0.0)
    with store_time(), pytest.raises(StoreError):
        reader.ask(stuck.wait)
    assert reader.trouble is not None
    until(lambda: reader.trouble is None)
    assert reader.ask(lambda: "answer") == "answer"
    assert reader.ask(lambda: "another") == "another"


def test_nobody_asks_a_store_that_has_not_answered_the_last_question(stuck):
    """For as long as the answer may still come; then it is back."""
    reader = Reader("read it")
    with store_time(), pytest.raises(StoreError):
        reader.ask(stuck.wait)
    asked = []
    for pause_s in (0.0, RETRY_S):
        time.sleep(pause_s)
        with store_time(), pytest.raises(StoreError):
            reader.ask(lambda: asked.append(1))
    assert asked == []
    stuck.set()
    until(lambda: reader.trouble is None)
    assert reader.ask(lambda: "answer") == "answer"


def test_one_asks_whether_the_store_is_back_and_the_others_do_not_wait(stuck):
    """As a gate lets one call probe."""
    reader, begun, asked = Reader("read it"), threading.Event(), []
    with pytest.raises(StoreError):
        reader.ask(lambda: 1 / 0)
    until(lambda: reader.trouble is None)

    def probe():
        begun.set()
        return stuck.wait()

    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(reader.ask, probe)
        assert begun.wait(20.0)
        for _ in range(10):
            with pytest.raises(StoreError, match="ZeroDivisionError"):
                reader.ask(lambda: asked.append(1))
        stuck.set()
        assert probing.result()
    assert asked == []
    assert reader.trouble is None


def test_several_questions_in_one_go_are_waited_for_once():
    """They are asked in one thread; one that fails shows that the store is away, although the whole does not fail."""
    reader, threads = Reader("read it"), []

    def fail():
        raise StoreError("It is on fire.")

    def ask_all():
        reader.ask(lambda: threads.append(threading.get_ident()))
        with pytest.raises(StoreError, match="on fire"):
            reader.ask(fail)
        with pytest.raises(StoreError, match="on fire"):
            reader.ask(lambda: threads.append("not asked any more"))
        return threading.get_ident()

    assert [reader.ask(ask_all)] == threads
    assert "on fire" in str(reader.trouble)
