"""The end of the interpreter waits for those who compute, and lets nobody begin; threads wake up loops."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
from programs import run_program

from vision_backends.engine.threads import awaited_at_exit, beside, callbacks_of, interpreter_ends

BEGIN = """
import threading, time
from vision_backends.engine.threads import awaited_at_exit, interpreter_ends

def begin(work, daemon=True):
    threading.Thread(target=work, daemon=daemon).start()
    time.sleep(0.2)

def say(*words):
    print(*words, flush=True)
"""


def lines(program):
    """Return what a process prints, and its seconds from the end of its main thread on."""
    code = f"{BEGIN}{program}\nprint(time.time(), flush=True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    ended = time.time()
    said = done.stdout.splitlines()
    main_ended = next(line for line in said if line[:1].isdigit())
    return [line for line in said if line != main_ended], ended - float(main_ended)


def test_the_end_waits_for_who_computes():
    """Until the block is left."""
    said, took_s = lines("""
def work():
    with awaited_at_exit(30):
        time.sleep(1)
        say("done")
begin(work)
""")
    assert said == ["done"]
    assert took_s < 15


def test_it_waits_for_all_together_and_not_for_ever():
    """Nobody's time is added to that of others."""
    said, took_s = lines("""
def work():
    with awaited_at_exit(1):
        time.sleep(600)
for _ in range(20):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
""")
    assert said == []
    assert 0.5 < took_s < 10


def test_nothing_is_begun():
    """Whoever tries hears that the interpreter ends."""
    said, took_s = lines("""
def work():
    with awaited_at_exit(30):
        while not interpreter_ends():
            time.sleep(0.01)
        try:
            with awaited_at_exit(30):
                say("begun")
        except Exception as error:
            say(type(error).__name__, error.code)
begin(work)
""")
    assert said == ["NotReadyError ending"]
    assert took_s < 15


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_waits_for_nobody_in_its_parent():
    """It has not the threads; its own are awaited."""
    said, took_s = lines("""
import os, sys, warnings
warnings.simplefilter("ignore")  # Python's own, about forking with threads
enough = threading.Event()

def work():
    with awaited_at_exit(30):
        enough.wait(600)

def work_shortly():
    with awaited_at_exit(30):
        time.sleep(1)
        say("done")

begin(work)
if os.fork() == 0:
    begin(work_shortly)
    sys.exit()
began = time.monotonic()
os.wait()
say(time.monotonic() - began < 15)
enough.set()
""")
    assert took_s < 15
    assert said == ["done", "True"]


def test_a_script_whose_threads_work_on_has_not_ended():
    """Python waits for threads that are no daemons; they and what serves them go on."""
    said, _ = lines("""
def work():
    time.sleep(1)
    with awaited_at_exit(5):
        say(threading.main_thread().is_alive(), interpreter_ends())
begin(work, daemon=False)
""")
    assert said == ["False False"]


def test_a_block_that_fails_is_left():
    """And its error is that of the caller."""
    with pytest.raises(LookupError), awaited_at_exit(5):
        raise LookupError
    assert not interpreter_ends()


def test_a_call_beside_its_caller_runs_meanwhile():
    """It waits here for what its caller does afterwards."""
    met = threading.Event()
    outcome = beside(lambda: met.wait(30), name="beside")
    met.set()
    assert outcome()


def test_what_a_call_beside_its_caller_raises_is_raised_there():
    """As if the caller had made it."""
    outcome = beside(lambda: 1 // 0, name="beside")
    with pytest.raises(ZeroDivisionError):
        outcome()


def test_without_a_thread_the_caller_makes_the_call_itself():
    """The last rung answers all the same."""
    said, _ = lines("""
from vision_backends.engine.threads import beside

def refuse(self):
    raise RuntimeError("can't start new thread")

threading.Thread.start = refuse
say(beside(lambda: threading.current_thread() is threading.main_thread(), name="beside")())
""")
    assert said == ["True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_waits_for_what_is_to_be_finished_before():
    """By another thread; that which forks does not wait for itself."""
    program = """
    from vision_backends.engine.threads import finished_before_fork
    begun, done = threading.Event(), []

    def work():
        with finished_before_fork():
            begun.set()
            time.sleep(0.5)
            done.append(1)

    with finished_before_fork():
        if os.fork() == 0:
            os._exit(0)
    os.wait()
    threading.Thread(target=work).start()
    begun.wait()
    if os.fork() == 0:
        with finished_before_fork():
            print("child", done, flush=True)
        os._exit(0)
    os.wait()
    with finished_before_fork():
        print("parent", done)
    """
    ended = run_program(program, preamble="import os, threading, time, warnings\nwarnings.simplefilter('ignore')\n")
    assert (ended.stdout, ended.stderr) == ("child [1]\nparent [1]\n", "")


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often it is woken up by others, and may be interrupted in that."""

    def __init__(self):
        super().__init__()
        self.woken = 0
        self.interrupts = 0

    def call_soon_threadsafe(self, callback, *args, context=None):
        """Count."""
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        self.woken += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


@pytest.fixture
def counting_loop():
    """A loop that is closed at the end."""
    loop = CountingLoop()
    yield loop
    loop.close()


async def rest():
    """Let everything run that is due."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_loop_is_woken_up_once_for_all_that_comes_until_it_looks(counting_loop):
    """All of it runs, in order; what comes later wakes it up again."""
    seen = []

    def tell(count):
        for number in range(count):
            callbacks_of(counting_loop).call_soon(partial(seen.append, number))

    async def run():
        for count in (50, 1):
            thread = threading.Thread(target=tell, args=(count,))
            thread.start()
            thread.join()
            await rest()

    counting_loop.run_until_complete(run())
    assert (len(seen), seen[:50], counting_loop.woken) == (51, sorted(seen[:50]), 2)


def test_a_callback_that_fails_holds_up_no_other(counting_loop):
    """It is told as any callback of a loop."""
    seen, told = [], []
    counting_loop.set_exception_handler(lambda _loop, what: told.append(what["exception"]))
    error = ValueError("no")

    def fail():
        raise error

    for callback in (fail, lambda: seen.append("here")):
        callbacks_of(counting_loop).call_soon(callback)
    counting_loop.run_until_complete(rest())
    assert (seen, told) == (["here"], [error])


def test_a_loop_whose_wake_up_was_interrupted_is_woken_up_by_the_next(counting_loop):
    """By Ctrl-C in the thread that wakes the loop, after which it would be waited for in vain."""
    seen, counting_loop.interrupts = [], 1
    with pytest.raises(KeyboardInterrupt):
        callbacks_of(counting_loop).call_soon(lambda: seen.append(1))
    callbacks_of(counting_loop).call_soon(lambda: seen.append(2))
    counting_loop.run_until_complete(rest())
    assert seen == [1, 2]


def test_a_closed_loop_takes_nothing(counting_loop):
    """Also when it was closed before it has looked."""
    callbacks = callbacks_of(counting_loop)
    callbacks.call_soon(list)
    counting_loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            callbacks.call_soon(list)


def test_nothing_is_lost_between_threads_that_ring_and_a_loop_that_looks(counting_loop):
    """However their steps meet."""
    count, seen, all_there = 2_000, [], asyncio.Event()

    def note():
        seen.append(None)
        if len(seen) == 4 * count:
            all_there.set()

    def tell():
        for _ in range(count):
            callbacks_of(counting_loop).call_soon(note)

    async def run():
        threads = [threading.Thread(target=tell) for _ in range(4)]
        for thread in threads:
            thread.start()
        async with asyncio.timeout(60):
            await all_there.wait()
        for thread in threads:
            thread.join()

    counting_loop.run_until_complete(run())
