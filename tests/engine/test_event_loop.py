"""The loop that all calls run on: who waits for it, what interrupts a wait, and when its thread ends."""

import asyncio
import contextvars
import gc
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from programs import run_program

from vision_backends import OverloadedError
from vision_backends.engine.event_loop import EventLoop, engine_loop

WHO = contextvars.ContextVar("WHO", default="nobody")


@pytest.fixture
def engine():
    """A loop of its own, whose thread is ended afterwards."""
    engine = EventLoop()
    engine.attach()
    yield engine
    engine.stop()


def wait_until(is_so, timeout_s=5.0):
    """Wait in real time until something holds."""
    ends = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < ends, "It never came to that."
        time.sleep(0.005)


def loop_threads():
    """Return the threads of event loops that run now."""
    return [each for each in threading.enumerate() if each.name == "vision-loop"]


async def answer(value=42):
    """Return a value, a tick later."""
    await asyncio.sleep(0)
    return value


async def fail(error):
    """Raise an error, a tick later."""
    await asyncio.sleep(0)
    raise error


async def current_thread():
    """Return the thread that this runs on."""
    return threading.current_thread()


class Hanging:
    """A coroutine that goes on until it is cancelled, and notes what happens to it."""

    def __init__(self, cleanup_s=0.0):
        self.begun = threading.Event()
        self.ended = threading.Event()
        self._cleanup_s = cleanup_s

    async def __call__(self):
        """Go on for a minute."""
        self.begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            if self._cleanup_s:
                await asyncio.sleep(self._cleanup_s)
            self.ended.set()


def test_a_call_returns_what_its_coroutine_does(engine):
    """The coroutine runs on the loop's thread, the same for every call."""
    assert engine.run(answer) == 42
    here, again = engine.run(current_thread), engine.run(current_thread)
    assert here is again
    assert here is not threading.current_thread()
    assert here.daemon


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()])
def test_a_call_raises_what_its_coroutine_does(engine, error):
    """Even what would end the program; the loop and the other calls go on."""
    hanging = Hanging()
    engine.start(hanging)
    with pytest.raises(type(error)) as caught:
        engine.run(lambda: fail(error))
    assert caught.value is error
    assert engine.run(answer) == 42
    assert not hanging.ended.is_set()


def test_an_exit_raised_in_a_task_of_a_call_leaves_the_loop_running(engine):
    """Asyncio hands it to whoever awaits the task and to the loop, which must not end by that."""

    async def spawn():
        await asyncio.gather(fail(SystemExit(3)))

    with pytest.raises(SystemExit):
        engine.run(spawn)
    assert engine.run(answer) == 42


def test_a_call_whose_coroutine_cannot_be_made_fails(engine):
    """The waiting thread is told instead of waiting for ever."""

    def make():
        raise TypeError("wrong arguments")

    with pytest.raises(TypeError, match="wrong arguments"):
        engine.run(make)


def test_a_failed_call_leaves_no_circle_of_references(engine):
    """What it held is gone without the garbage collector."""

    class Pixels:
        """Something large."""

    gone = []

    async def work():
        pixels = Pixels()
        gone.append(weakref.ref(pixels))
        raise ValueError(str(id(pixels)))

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ValueError, match=r"\d"):
            engine.run(work)
        wait_until(lambda: gone[0]() is None)
    finally:
        gc.enable()


def test_many_threads_call_together(engine):
    """Each gets its own answer."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: engine.run(lambda: answer(n)), range(400)))
    assert answers == list(range(400))
    assert len(loop_threads()) == 1


def test_a_coroutine_sees_the_context_of_its_caller(engine):
    """Tracing finds its span; what the coroutine sets stays with it."""

    async def look():
        seen = WHO.get()
        WHO.set("the coroutine")
        return seen, await asyncio.create_task(inner())

    async def inner():
        return WHO.get()

    WHO.set("the caller")
    assert engine.run(look) == ("the caller", "the coroutine")
    assert WHO.get() == "the caller"
    assert asyncio.run(engine.run_from_loop(look)) == ("the caller", "the coroutine")


def test_a_call_from_the_loops_own_thread_is_an_error_instead_of_a_deadlock(engine):
    """As from an event handler that makes a synchronous call; the message has the remedy."""

    async def nested():
        return engine.run(answer)

    with pytest.raises(RuntimeError, match="await an AsyncRouter there, or make the call in another thread"):
        engine.run(nested)


def test_a_call_awaited_on_the_loops_own_thread_runs_there(engine):
    """An event handler may be a coroutine that uses an AsyncRouter."""

    async def nested():
        return await engine.run_from_loop(answer)

    assert engine.run(nested) == 42


def test_a_synchronous_call_inside_somebodys_coroutine_blocks_only_that(engine):
    """The engine has a loop of its own, so the two never wait for one another."""

    async def caller():
        return engine.run(answer)

    assert asyncio.run(caller()) == 42


def test_a_call_is_awaited_from_any_loop_one_after_the_other(engine):
    """Nothing of an earlier loop is kept."""

    async def caller():
        return await asyncio.gather(*(engine.run_from_loop(lambda n=n: answer(n)) for n in range(20)))

    for _ in range(3):
        assert asyncio.run(caller()) == list(range(20))


def test_an_awaited_call_leaves_the_callers_loop_free(engine):
    """Its other tasks go on meanwhile."""

    async def caller():
        release = asyncio.Event()
        engine_side = engine.run_from_loop(lambda: asyncio.sleep(0.05, "done"))
        ticks = asyncio.create_task(release.wait())
        asyncio.get_running_loop().call_soon(release.set)
        assert await engine_side == "done"
        assert ticks.done()

    asyncio.run(caller())


def test_a_cancelled_await_cancels_the_coroutine_and_waits_for_its_end(engine):
    """So what it holds has been given back when the caller goes on."""
    hanging = Hanging(cleanup_s=0.05)

    async def caller():
        call = asyncio.create_task(engine.run_from_loop(hanging))
        await asyncio.to_thread(hanging.begun.wait, 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert hanging.ended.is_set()

    asyncio.run(caller())


def test_a_cancelled_await_does_not_wait_for_long(engine):
    """A coroutine that takes its time to end is left alone after a second."""
    hanging = Hanging(cleanup_s=30)

    async def caller():
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.run_from_loop(hanging), 0.05)
        return time.monotonic() - started

    assert 1 <= asyncio.run(caller()) < 3


def test_a_loop_that_is_closed_under_its_call_disturbs_nobody(engine, caplog):
    """The outcome has nowhere to go."""
    hanging = Hanging()
    loop = asyncio.new_event_loop()
    call = engine.run_from_loop(hanging)
    waiting = loop.create_task(call)
    loop.run_until_complete(asyncio.sleep(0))
    assert hanging.begun.wait(5)
    loop.close()
    call.close()
    assert hanging.ended.wait(5)
    assert engine.run(answer) == 42
    assert not waiting.done()
    waiting._log_destroy_pending = False


def test_ctrl_c_cancels_the_coroutine_and_waits_for_its_end():
    """The cleanup runs before the caller's own; the interpreter then goes on."""
    done = run_program(
        """
        async def work():
            try:
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.05)
                print("cleaned up", flush=True)

        try:
            engine_loop().run(work)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(engine_loop().run(answer))
        """
    )
    assert done.stdout.split("\n") == ["cleaned up", "interrupted", "42", ""]
    assert (done.stderr, done.returncode) == ("", 0)


def test_ctrl_c_is_not_held_up_by_a_coroutine_that_does_not_end():
    """After a second the exception is raised, and at exit nobody waits either."""
    done = run_program(
        """
        async def work():
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        started = time.monotonic()
        try:
            engine_loop().run(work)
        except KeyboardInterrupt:
            print(round(time.monotonic() - started))
        """
    )
    assert (done.stdout, done.returncode) == ("1\n", 0)


def test_ctrl_c_without_a_handler_ends_the_program_within_a_moment():
    """With the coroutine's cleanup done; the traceback is the caller's."""
    started = time.monotonic()
    done = run_program(
        """
        async def work():
            try:
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
                await asyncio.sleep(60)
            finally:
                print("cleaned up", flush=True)

        engine_loop().run(work)
        """
    )
    assert done.stdout == "cleaned up\n"
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert time.monotonic() - started < 10


def test_work_that_nobody_waits_for_can_be_cancelled(engine):
    """From any thread, as often as one likes."""
    hanging = Hanging()
    cancel = engine.start(hanging)
    assert hanging.begun.wait(5)
    cancel()
    assert hanging.ended.wait(5)
    cancel()


def test_work_that_nobody_waits_for_and_that_fails_is_logged(engine, caplog):
    """A cancelled one is not."""
    with caplog.at_level(logging.ERROR):
        engine.start(lambda: fail(ValueError("no")))
        wait_until(lambda: caplog.records)
        hanging = Hanging()
        engine.start(hanging)()
        engine.run(answer)
    assert [str(record.exc_info[1]) for record in caplog.records] == ["no"]


def test_a_call_that_is_cancelled_before_it_began_never_begins(engine):
    """Its coroutine is not even made."""
    made = []

    async def begin_and_cancel():
        engine.start(lambda: made.append(1))()

    engine.run(begin_and_cancel)
    engine.run(answer)
    assert made == []


def test_tasks_of_a_call_are_not_collected(engine):
    """Its own task is referred to by the engine; a coroutine looks after those that it makes."""

    async def wait_for_nobody():
        gc.collect()
        await asyncio.sleep(0.05)
        gc.collect()
        return "still there"

    assert engine.run(wait_for_nobody) == "still there"


def test_stopping_fails_the_calls_that_wait_at_once(engine):
    """They are told before the coroutines have ended; nobody waits on a dead loop."""
    coroutines = [Hanging(cleanup_s=0.8) for _ in range(4)]
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(engine.run, each) for each in coroutines]
        assert all(each.begun.wait(5) for each in coroutines)
        stopping = pool.submit(engine.stop)
        for call in calls:
            with pytest.raises(RuntimeError, match="shutting down"):
                call.result(timeout=5)
        assert not any(each.ended.is_set() for each in coroutines)
        stopping.result(timeout=5)
    assert all(each.ended.is_set() for each in coroutines)


def test_a_call_after_the_end_starts_another_loop(engine):
    """Stopping twice is harmless."""

    async def where():
        return asyncio.get_running_loop()

    first = engine.run(where)
    engine.stop()
    engine.stop()
    second = engine.run(where)
    assert first is not second
    assert first.is_closed()


def test_stopping_from_a_callback_waits_for_nobody(engine):
    """The loop's own thread cannot wait for its own end."""
    started = time.monotonic()
    thread = engine.run(current_thread)
    engine.call_soon(engine.stop)
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - started < 1


def test_the_thread_ends_even_if_its_coroutines_do_not(engine, caplog):
    """Neither one that ignores its cancellation nor a generator that closes for ever keeps it."""

    async def ignore_cancellation():
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def close_slowly():
        await anext(held)

    async def pieces():
        try:
            yield 1
        finally:
            await asyncio.sleep(60)

    held = pieces()
    thread = engine.run(current_thread)
    engine.start(ignore_cancellation)
    engine.start(close_slowly)
    engine.run(answer)
    engine.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_calls_that_race_with_the_end_are_answered_or_told():
    """Whatever the moment: no thread waits for ever, and no task is left pending."""
    engine = EventLoop()
    outcomes = []

    def call():
        for n in range(50):
            try:
                outcomes.append(engine.run(lambda n=n: answer(n)) == n)
            except RuntimeError as error:
                outcomes.append("shutting down" in str(error))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        engine.stop()
    for thread in threads:
        thread.join(10)
    engine.stop()
    assert outcomes == [True] * 200


def test_a_callback_is_called_on_the_loop_if_it_runs(engine):
    """Without starting it."""
    called = threading.Event()
    assert not engine.call_soon(called.set)
    engine.run(answer)
    assert engine.call_soon(called.set)
    assert called.wait(5)
    engine.stop()
    assert not engine.call_soon(called.set)


def test_the_thread_ends_when_nobody_is_left_for_a_while():
    """And not before; a call that comes later starts it again."""
    engine = EventLoop(idle_s=0.2)
    engine.attach()
    thread = engine.run(current_thread)
    time.sleep(0.4)
    assert thread.is_alive()
    engine.detach()
    assert thread.is_alive()
    thread.join(5)
    assert not thread.is_alive()
    assert engine.run(answer) == 42
    engine.stop()


def test_the_thread_ends_after_calls_that_nobody_was_attached_for():
    """Also after one that came, or was still running, when the last had left."""
    engine = EventLoop(idle_s=0.05)
    engine.attach()
    thread = engine.run(current_thread)
    engine.detach()
    engine.start(lambda: asyncio.sleep(0.3))
    time.sleep(0.2)
    assert thread.is_alive()
    thread.join(5)
    assert not thread.is_alive()


def test_the_thread_stays_for_tasks_that_no_call_waits_for():
    """A call may leave one behind that books what it has cost."""
    engine = EventLoop(idle_s=0.02)
    booked = threading.Event()
    tasks = []

    async def book():
        await asyncio.sleep(0.2)
        booked.set()

    async def call():
        tasks.append(asyncio.create_task(book()))
        return threading.current_thread()

    thread = engine.run(call)
    assert booked.wait(5)
    thread.join(5)
    assert not thread.is_alive()


def test_a_user_that_comes_in_the_meantime_keeps_the_thread():
    """The idle time is over, but somebody has attached."""
    engine = EventLoop(idle_s=0.1)
    engine.attach()
    thread = engine.run(current_thread)
    engine.detach()
    counts = threading.Event()
    engine.call_soon(counts.set)
    assert counts.wait(5)
    engine.attach()
    time.sleep(0.3)
    assert thread.is_alive()
    engine.detach()
    thread.join(5)
    assert not thread.is_alive()


def test_dropped_users_leave_neither_threads_nor_descriptors():
    """They detach in their finalizers, wherever the collector finds them."""

    class User:
        """Something like a router."""

        def __init__(self, engine):
            engine.attach()
            weakref.finalize(self, engine.detach)
            self.circle = self

    def count_descriptors():
        return len(list(Path("/dev/fd").iterdir()))

    before = count_descriptors()
    for _ in range(5):
        engine = EventLoop(idle_s=0.01)
        users = [User(engine) for _ in range(20)]
        thread = engine.run(current_thread)
        del users
        gc.collect()
        thread.join(5)
        assert not thread.is_alive()
    assert count_descriptors() == before


def test_users_of_many_threads_are_counted_right():
    """No attach and no detach is lost."""
    engine = EventLoop(idle_s=0.01)
    engine.attach()
    thread = engine.run(current_thread)

    def come_and_go():
        for _ in range(1000):
            engine.attach()
            engine.detach()

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(come_and_go) for _ in range(8)]:
            each.result()
    assert thread.is_alive()
    engine.detach()
    thread.join(5)
    assert not thread.is_alive()


def test_a_thread_that_cannot_be_started_is_an_error_with_a_remedy(engine, monkeypatch):
    """Nothing stays open; the next call tries again."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OverloadedError, match="can't start new thread") as caught:
            engine.run(answer)
        with pytest.raises(OverloadedError):
            asyncio.run(engine.run_from_loop(answer))
    assert "ulimit -u" in caught.value.remedy
    assert engine.run(answer) == 42


def test_a_loop_that_cannot_be_made_is_an_error_with_a_cause():
    """The process has no descriptors left; once it has some again, calls are answered."""
    done = run_program(
        """
        import resource, warnings
        from vision_backends import OverloadedError

        engine_loop()
        warnings.simplefilter("ignore")  # asyncio leaves its half-made loop behind
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            engine_loop().run(answer)
        except OverloadedError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(engine_loop().run(answer))
        """
    )
    assert "Too many open files" in done.stdout
    assert done.stdout.endswith("\n42\n")


def test_what_holds_up_the_loop_is_noticed_by_every_test(engine, slow_callbacks):
    """Only computing counts, and only on an engine's loop."""

    async def compute():
        ends_s = time.thread_time() + 0.15
        while time.thread_time() < ends_s:
            pass

    async def collect():
        circles = [[] for _ in range(100_000)]
        ends_s = time.thread_time() + 0.15
        while time.thread_time() < ends_s:
            gc.collect()
        circles.clear()

    asyncio.run(compute())
    engine.run(lambda: asyncio.sleep(0.1))
    engine.run(collect)
    assert slow_callbacks == []
    engine.run(compute)
    engine.run(answer)
    assert len(slow_callbacks) == 1
    assert "compute" in slow_callbacks.pop()


def test_the_loop_of_the_process_is_one():
    """Whoever asks for it."""
    with ThreadPoolExecutor(8) as pool:
        assert {id(engine_loop()) for _ in pool.map(lambda _: engine_loop(), range(50))} == {id(engine_loop())}


def test_importing_starts_nothing():
    """Neither a thread nor a loop; they come with the first call."""
    done = run_program(
        """
        assert threading.active_count() == 1
        engine_loop()
        assert threading.active_count() == 1
        engine_loop().run(answer)
        assert threading.active_count() == 2
        """
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_at_exit_coroutines_are_cancelled_and_their_cleanup_runs():
    """Within a second, and without a word on stderr."""
    done = run_program(
        """
        begun = threading.Event()

        async def work():
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.1)
                print("cleaned up", flush=True)

        engine_loop().start(work)
        assert begun.wait(5)
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("cleaned up\n", "", 0)


@pytest.mark.parametrize("stuck", ["block_the_loop", "block_a_thread", "ignore_cancellation", "close_slowly"])
def test_nothing_stuck_holds_up_the_exit(stuck):
    """Three seconds are the most that it takes."""
    done = run_program(
        f"""
        begun = threading.Event()

        async def block_the_loop():
            begun.set()
            time.sleep(60)

        async def block_a_thread():
            await engine_loop().compute.start(lambda: [begun.set(), time.sleep(60)])

        async def ignore_cancellation():
            begun.set()
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        async def close_slowly():
            async def pieces():
                try:
                    yield 1
                finally:
                    begun.set()
                    await asyncio.sleep(60)

            async for _ in pieces():
                break

        engine_loop().start({stuck})
        assert begun.wait(5)
        print(time.time())
        """
    )
    assert time.time() - float(done.stdout) < 6
    assert done.returncode == 0


def test_threads_that_wait_at_exit_are_told():
    """They are not left waiting on a dead loop."""
    done = run_program(
        """
        import atexit

        begun, told = threading.Event(), threading.Event()
        atexit.register(told.wait, 5)  # after the exit of the engine

        async def work():
            begun.set()
            await asyncio.sleep(60)

        def wait():
            try:
                engine_loop().run(work)
            except RuntimeError as error:
                print(error, flush=True)
            told.set()

        waiting = threading.Thread(target=wait, daemon=True)
        import atexit

        atexit.register(waiting.join, 5)  # runs after the hook of the engine, which is not there yet
        waiting.start()
        assert begun.wait(5)
        """
    )
    assert (done.stdout, done.stderr) == ("Python is shutting down; the call was cancelled.\n", "")


def test_a_forked_child_has_a_loop_of_its_own_and_leaves_the_parents_alone():
    """The parent's calls go on while the child calls and ends; neither prints a warning."""
    done = run_program(
        """
        engine = engine_loop()
        begun = threading.Event()

        async def hang():
            begun.set()
            await asyncio.sleep(60)

        async def slow():
            await asyncio.sleep(0.5)
            return "the parent's call"

        engine.start(hang)
        assert begun.wait(5)
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(engine.run(slow)))
        waiting.start()
        child = os.fork()
        if child == 0:
            assert engine_loop() is not engine
            assert not engine.call_soon(print)
            try:
                engine.run(answer)
            except RuntimeError as error:
                assert "engine_loop()" in str(error)
            engine.stop()
            engine.detach()
            assert engine_loop().run(answer) == 42
            assert asyncio.run(engine_loop().run_from_loop(answer)) == 42
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        waiting.join(10)
        print(answers, engine.run(answer))
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ('["the parent\'s call"] 42\n', "", 0)


def test_a_forked_child_that_makes_no_call_leaves_the_parents_loop_alone():
    """It only ends, with everything that it inherited."""
    done = run_program(
        """
        assert engine_loop().run(answer) == 42
        child = os.fork()
        if child == 0:
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        print(engine_loop().run(answer))
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("42\n", "", 0)


def test_locks_that_are_held_during_a_fork_do_not_hang_the_child():
    """Those of the engine, of its pools and of their queues belong to threads that the child does not have."""
    done = run_program(
        """
        engine = engine_loop()
        pool = Pool("work", size=2)

        async def use(pool):
            return await pool.start(lambda: 42)

        assert engine.run(lambda: use(pool)) == 42
        held, over = threading.Event(), threading.Event()

        def hold():
            with engine._lock, pool._lock, engine.compute._lock:
                held.set()
                over.wait(20)

        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(5)
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            assert pool.stuck == 0
            assert engine_loop().run(lambda: use(pool)) == 42
            assert engine_loop().run(lambda: use(engine_loop().compute)) == 42
            pool.close()
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        over.set()
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("7\n", "", 0)


GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent
import asyncio, os, signal, sys, threading, time
from vision_backends.engine.event_loop import engine_loop
from vision_backends.engine.pools import Pool

async def answer(value=42):
    await asyncio.sleep(0)
    return value

"""


def test_under_gevent_calls_run_on_a_real_thread_and_other_greenlets_go_on():
    """So are the threads of a pool; a greenlet that waits does not hold up the others."""
    done = run_program(
        """
        main = gevent.monkey.get_original("_thread", "get_ident")()

        async def slow(pool):
            here = gevent.monkey.get_original("_thread", "get_ident")()
            there = await pool.start(gevent.monkey.get_original("_thread", "get_ident"))
            await asyncio.sleep(0.2)
            return len({main, here, there})

        pool = Pool("work", size=2)
        ticks = []

        def tick():
            while True:
                ticks.append(1)
                gevent.sleep(0.01)

        gevent.spawn(tick)
        calls = [gevent.spawn(engine_loop().run, lambda: slow(pool)) for _ in range(50)]
        gevent.joinall(calls, timeout=10)
        print({call.value for call in calls}, len(ticks) > 5)
        print(sum(engine_loop().run(lambda: answer(n)) for n in range(500)))
        """,
        preamble=GEVENT,
    )
    assert done.stdout == "{3} True\n124750\n", done.stderr
    assert done.returncode == 0


def test_under_gevent_a_killed_greenlet_cancels_its_call():
    """As Ctrl-C does in a thread."""
    done = run_program(
        """
        async def work():
            try:
                await asyncio.sleep(60)
            finally:
                print("cleaned up", flush=True)

        try:
            with gevent.Timeout(0.1):
                engine_loop().run(work)
        except gevent.Timeout:
            print("timed out", flush=True)
        """,
        preamble=GEVENT,
    )
    assert done.stdout == "cleaned up\ntimed out\n", done.stderr
    assert done.returncode == 0
