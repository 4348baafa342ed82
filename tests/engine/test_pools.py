"""Pools of threads: what is begun, what is left behind, and when there are no threads for more."""

import asyncio
import contextvars
import gc
import logging
import threading
import time
import weakref

import pytest
from programs import run_program

from vision_backends import OverloadedError
from vision_backends.engine.pools import Pool

WHO = contextvars.ContextVar("WHO", default="nobody")


def make_pool(name="work", *, size=2, idle_s=0.05, eager=None):
    """Return a pool whose threads do not outlive the test for long."""
    return Pool(name, size=size, idle_s=idle_s, eager=eager)


def threads_of(name):
    """Return the threads of a pool that run now."""
    return [each for each in threading.enumerate() if each.name == f"vision-{name}"]


async def until(is_so, timeout_s=5.0):
    """Wait in real time until something holds."""
    ends = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < ends, "It never came to that."
        await asyncio.sleep(0.005)


def let_it_come():
    """Keep the loop busy while an outcome is on its way to it."""
    time.sleep(0.05)


class Stuck:
    """A call that goes on until it is released, and says when it has begun."""

    def __init__(self, result=None):
        self.begun = threading.Event()
        self.released = threading.Event()
        self._result = result

    def __call__(self):
        """Wait for the release."""
        self.begun.set()
        assert self.released.wait(10)
        return self._result


async def leave_behind(pool, stuck, on_late=None):
    """Begin a call and cancel its future."""
    future = pool.start(stuck, on_late=on_late)
    await until(stuck.begun.is_set)
    future.cancel()
    await asyncio.sleep(0)
    return future


def test_a_call_runs_in_a_thread_of_the_pool():
    """The loop goes on meanwhile; what the call returns is what is awaited."""

    async def run():
        thread = await make_pool("named").start(threading.current_thread)
        assert (thread.name, thread.daemon) == ("vision-named", True)

    asyncio.run(run())


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_what_a_call_raises_is_raised_where_it_is_awaited(error):
    """Whatever it is; the thread goes on to the next call."""
    pool = make_pool(size=1)

    def fail():
        raise error

    async def run():
        failed = pool.start(fail)
        await asyncio.wait([failed])
        assert failed.exception() is error
        assert await pool.start(lambda: 42) == 42

    asyncio.run(run())


def test_a_call_that_ends_with_stop_iteration_fails_with_a_runtime_error():
    """A future does not take it, and nobody should wait for ever."""

    async def run():
        with pytest.raises(RuntimeError, match="StopIteration"):
            await make_pool().start(lambda: next(iter(())))

    asyncio.run(run())


def test_a_call_sees_the_context_of_its_caller():
    """Tracing finds its span; what the call sets stays with it."""
    pool = make_pool()

    def look():
        seen = WHO.get()
        WHO.set("the call")
        return seen

    async def run():
        WHO.set("the caller")
        assert await pool.start(look) == "the caller"
        assert WHO.get() == "the caller"
        seen = []
        pool.submit(lambda: seen.append(WHO.get()))
        await until(lambda: seen)
        assert seen == ["the caller"]

    asyncio.run(run())


def test_no_more_threads_than_allowed_work_at_a_time():
    """And no fewer, if there is work; each call gets its own answer."""
    pool = make_pool(size=3)
    inside, most = [], []

    def work(n):
        inside.append(n)
        most.append(len(inside))
        time.sleep(0.01)
        inside.remove(n)
        return n

    async def run():
        return await asyncio.gather(*(pool.start(lambda n=n: work(n)) for n in range(30)))

    assert asyncio.run(run()) == list(range(30))
    assert max(most) == 3


def test_a_thread_that_is_free_is_used_before_another_is_started():
    """One call after the other needs one thread."""
    pool = make_pool(size=8, idle_s=5)

    async def run():
        idents = set()
        for _ in range(20):
            idents.add(await pool.start(threading.get_ident))
            await asyncio.sleep(0.005)
        return idents

    assert len(asyncio.run(run())) == 1
    pool.close()


def test_calls_that_end_quickly_share_the_threads_that_are_started_at_once():
    """More would only contend for the processor; the loop, which starts more in time, is kept busy here."""
    pool = make_pool("quick", size=8, eager=2)
    seen, all_done = set(), threading.Event()

    async def run():
        futures = [pool.start(lambda: seen.add(threading.get_ident())) for _ in range(50)]
        futures.append(pool.start(all_done.set))
        assert all_done.wait(10)
        await asyncio.gather(*futures)

    asyncio.run(run())
    assert len(seen) <= 2


def test_more_threads_are_started_where_no_call_ends():
    """Calls that wait for a disk hold up nobody for long; there are never more than allowed."""
    pool, stuck = make_pool("slow", size=6, eager=1), [Stuck(n) for n in range(7)]

    async def run():
        futures = [pool.start(each) for each in stuck]
        await until(lambda: sum(each.begun.is_set() for each in stuck) == 6)
        assert (len(threads_of("slow")), stuck[6].begun.is_set()) == (6, False)
        for each in stuck:
            each.released.set()
        return await asyncio.gather(*futures)

    assert asyncio.run(run()) == list(range(7))


def test_threads_of_calls_that_were_left_behind_are_replaced_at_once():
    """Those that hang are none of the threads that quick calls share."""
    pool, stuck, begun = make_pool("left", size=3, eager=1), Stuck(), threading.Event()

    async def run():
        await leave_behind(pool, stuck)
        future = pool.start(begun.set)
        assert begun.wait(5)  # without the loop, which starts more in time, and before the other one ends
        await future
        stuck.released.set()

    asyncio.run(run())


def test_a_loop_that_has_ended_is_not_waited_for_to_start_more_threads():
    """The next loop on which a call is begun takes care of it."""
    pool, stuck = make_pool("loops", size=2, eager=1), [Stuck(), Stuck()]

    async def begin():
        return [pool.start(each) for each in stuck]

    async def begin_and_wait():
        await until(lambda: pool.start(lambda: None) and stuck[1].begun.is_set())
        for each in stuck:
            each.released.set()

    ended = asyncio.new_event_loop()
    ended.run_until_complete(begin())
    ended.close()
    asyncio.run(begin_and_wait())


def test_a_call_that_is_left_behind_is_counted_until_it_returns():
    """Its late result is handed on in a thread of the pool, in the context of its caller."""
    pool, stuck, late = make_pool(), Stuck("the answer"), []

    def note(result):
        late.append((result, WHO.get(), threading.current_thread().name))

    async def run():
        WHO.set("the caller")
        await leave_behind(
            pool, stuck, lambda result: late.append((result, WHO.get(), threading.current_thread().name))
        )
        assert (pool.stuck, late) == (1, [])
        stuck.released.set()
        await until(lambda: late)
        assert (pool.stuck, late) == (0, [("the answer", "the caller", "vision-work")])

    asyncio.run(run())


def test_a_call_that_is_left_behind_and_fails_tells_nobody():
    """There is no result; it is no longer counted."""
    pool, stuck, late = make_pool(), Stuck(), []

    def fail():
        stuck()
        raise ValueError("no")

    async def run():
        future = pool.start(fail, on_late=late.append)
        await until(stuck.begun.is_set)
        future.cancel()
        await asyncio.sleep(0)
        assert pool.stuck == 1
        stuck.released.set()
        await until(lambda: pool.stuck == 0)

    asyncio.run(run())
    assert late == []


def test_trouble_with_a_late_result_is_logged(caplog):
    """Nobody is left who could handle it, and the thread goes on."""
    pool, stuck = make_pool(size=1), Stuck()

    def fail(result):
        raise ValueError("cannot be booked")

    async def run():
        await leave_behind(pool, stuck, fail)
        stuck.released.set()
        await until(lambda: caplog.records)
        assert await pool.start(lambda: 42) == 42

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert [str(record.exc_info[1]) for record in caplog.records] == ["cannot be booked"]


def test_a_call_that_was_cancelled_before_it_began_never_begins():
    """It is not counted as stuck, and what it held is let go of."""
    pool, stuck, begun = make_pool(size=1), Stuck(), []

    class Pixels:
        """Something large."""

    async def run():
        first = pool.start(stuck)
        await until(stuck.begun.is_set)
        pixels = Pixels()
        gone = weakref.ref(pixels)
        second = pool.start(lambda held=pixels: begun.append(held))
        del pixels
        second.cancel()
        await asyncio.sleep(0)
        del second
        gc.collect()
        assert (pool.stuck, gone()) == (0, None)
        stuck.released.set()
        await first
        await pool.start(lambda: None)

    asyncio.run(run())
    assert begun == []


def test_a_pool_whose_threads_are_all_stuck_refuses_at_once():
    """And takes work again as soon as one has come back."""
    pool, stuck = make_pool(size=2), [Stuck(), Stuck()]

    async def run():
        for each in stuck:
            await leave_behind(pool, each)
        with pytest.raises(OverloadedError, match="All 2 threads for work are in earlier calls") as caught:
            pool.start(lambda: 42)
        assert "dead connection" in caught.value.remedy
        with pytest.raises(OverloadedError):
            pool.submit(lambda: 42)
        stuck[0].released.set()
        await until(lambda: pool.stuck == 1)
        assert await pool.start(lambda: 42) == 42
        stuck[1].released.set()

    asyncio.run(run())


def test_a_pool_whose_work_always_ends_refuses_nothing():
    """A job waits for the threads that are still in work that was left behind."""
    pool, stuck = Pool("work", size=1, may_hang=False), Stuck()

    async def run():
        await leave_behind(pool, stuck)
        waiting = pool.start(lambda: 42)
        stuck.released.set()
        assert await waiting == 42

    asyncio.run(run())
    pool.close()


def test_cancellations_that_race_with_beginnings_and_ends_are_counted_right():
    """Each result is either awaited, late or never begun, and none is stuck in the end."""
    pool, begun, late, got = make_pool(size=4), [], [], []

    def work(n):
        begun.append(n)
        return n

    async def one(n):
        future = pool.start(lambda: work(n), on_late=late.append)
        for _ in range(n % 7):
            await asyncio.sleep(0)
        if n % 2:
            future.cancel()
        await asyncio.wait([future])
        if not future.cancelled():
            got.append(future.result())

    async def run():
        for start in range(0, 2000, 40):
            await asyncio.gather(*(one(n) for n in range(start, start + 40)))
        await until(lambda: len(late) + len(got) == len(begun))

    asyncio.run(run())
    assert sorted(late + got) == sorted(begun)
    assert pool.stuck == 0


def test_a_result_whose_future_was_cancelled_on_its_way_is_a_late_one():
    """The call had ended before the cancellation, but the loop had not heard of it."""
    pool, late, done = make_pool(), [], threading.Event()

    def work():
        done.set()
        return "the answer"

    async def run():
        future = pool.start(work, on_late=late.append)
        assert done.wait(5)
        let_it_come()
        future.cancel()
        await until(lambda: late)
        assert (late, pool.stuck) == (["the answer"], 0)

    asyncio.run(run())


def test_such_a_result_is_not_lost_where_the_pool_has_been_closed():
    """It is handed on right there."""
    pool, late, done = make_pool(), [], threading.Event()

    def work():
        done.set()
        return "the answer"

    async def run():
        future = pool.start(work, on_late=late.append)
        assert done.wait(5)
        let_it_come()
        pool.close()
        future.cancel()
        await until(lambda: late)

    asyncio.run(run())
    assert late == ["the answer"]


def test_a_result_that_came_in_the_tick_of_the_deadline_can_still_be_read():
    """The future has it, though its waiter was cancelled."""
    pool = make_pool()

    async def run():
        future = pool.start(lambda: 42)
        try:
            async with asyncio.timeout(None) as deadline:
                future.add_done_callback(lambda _: deadline.reschedule(0.0))
                await asyncio.wait([future])
                await asyncio.sleep(60)
        except TimeoutError:
            return future.result()

    assert asyncio.run(run()) == 42


def test_a_result_whose_loop_has_ended_is_a_late_one():
    """An answer that somebody paid for is booked even so."""
    pool, stuck, late = make_pool(), Stuck("the answer"), []

    async def run():
        pool.start(stuck, on_late=late.append)
        await until(stuck.begun.is_set)

    asyncio.run(run())
    stuck.released.set()
    ends = time.monotonic() + 5
    while not late:
        assert time.monotonic() < ends
        time.sleep(0.005)
    assert late == ["the answer"]


def test_background_work_that_fails_is_logged(caplog):
    """Nobody waits for it; the thread goes on."""
    pool, done = make_pool(size=1), threading.Event()

    def fail():
        raise SystemExit("no")

    with caplog.at_level(logging.ERROR):
        pool.submit(fail)
        pool.submit(done.set)
        assert done.wait(5)
    assert [str(record.exc_info[1]) for record in caplog.records] == ["no"]


def test_idle_threads_end_and_others_come():
    """A pool that nobody uses, closes or keeps leaves nothing behind."""
    pool = make_pool("idle", size=4, idle_s=0.05)

    async def run():
        await asyncio.gather(*(pool.start(lambda: time.sleep(0.02)) for _ in range(4)))
        assert threads_of("idle")
        await until(lambda: not threads_of("idle"))
        assert await pool.start(lambda: 42) == 42
        await until(lambda: not threads_of("idle"))

    asyncio.run(run())


def test_work_that_comes_in_the_moment_in_which_threads_end_is_done():
    """None is lost between a thread that has given up waiting and the count of idle ones."""
    pools = [make_pool(size=3, idle_s=0.002) for _ in range(4)]

    async def run(pool):
        for n in range(100):
            await asyncio.gather(*(pool.start(lambda: None) for _ in range(3)))
            await asyncio.sleep(0.001 + 0.00002 * n)
            await pool.start(lambda: None)

    async def run_all():
        await asyncio.gather(*map(run, pools))

    asyncio.run(asyncio.wait_for(run_all(), 30))


def test_an_idle_thread_keeps_nothing_of_its_last_call():
    """Neither its input nor its result; a failed call leaves no circle of references."""

    class Pixels:
        """Something large."""

    pool = make_pool(size=1, idle_s=5)

    def fail(pixels):
        raise ValueError(str(id(pixels)))

    async def run():
        gc.collect()
        gc.disable()
        try:
            for work in (lambda held: [held], fail):
                pixels = Pixels()
                gone = weakref.ref(pixels)
                future = pool.start(lambda work=work, held=pixels: work(held))
                await asyncio.wait([future])
                future.exception()
                del pixels, future
                await until(lambda gone=gone: gone() is None)
        finally:
            gc.enable()

    asyncio.run(run())
    pool.close()


def test_a_closed_pool_finishes_what_it_has_and_takes_no_more():
    """Its threads end; closing it again is harmless."""
    pool, stuck = make_pool("closing", size=1, idle_s=30), Stuck("done")

    async def run():
        first, second = pool.start(stuck), pool.start(lambda: 42)
        await until(stuck.begun.is_set)
        pool.close()
        pool.close()
        with pytest.raises(RuntimeError, match="'closing' is closed"):
            pool.start(lambda: 42)
        stuck.released.set()
        assert (await first, await second) == ("done", 42)
        await until(lambda: not threads_of("closing"))

    asyncio.run(run())


def test_a_thread_that_cannot_be_started_is_an_overload(monkeypatch):
    """While others work, its job waits for one of them; where none does, the caller is told."""
    pool, stuck = make_pool(size=2), Stuck("done")

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    async def run():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(OverloadedError, match="can't start new thread") as caught:
                pool.start(lambda: 42)
            assert "ulimit -u" in caught.value.remedy
        first = pool.start(stuck)
        await until(stuck.begun.is_set)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            second = pool.start(lambda: 42)
            first.cancel()
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="can't start new thread"):
                pool.start(lambda: 42)
        stuck.released.set()
        assert await second == 42

    asyncio.run(run())


def test_a_stuck_thread_does_not_hold_up_the_exit():
    """It is a daemon; not even Ctrl-C changes that."""
    started = time.monotonic()
    done = run_program(
        """
        pool = Pool("work", size=1)
        begun = threading.Event()

        def work():
            begun.set()
            time.sleep(60)

        async def call():
            future = pool.start(work)
            while not begun.is_set():
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            await future

        engine_loop().run(call)
        """
    )
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert time.monotonic() - started < 10


def test_a_forked_child_has_threads_of_its_own():
    """Even where all of the parent's are stuck, and for a pool that many threads of the child use first together."""
    done = run_program(
        """
        pool = Pool("work", size=1)

        async def leave_behind():
            begun = threading.Event()
            future = pool.start(lambda: [begun.set(), time.sleep(60)])
            while not begun.is_set():
                await asyncio.sleep(0.01)
            future.cancel()

        async def use():
            return await pool.start(threading.get_ident)

        engine_loop().run(leave_behind)
        assert pool.stuck == 1
        child = os.fork()
        if child == 0:
            assert pool.stuck == 0
            found = []
            threads = [threading.Thread(target=lambda: found.append(asyncio.run(use()))) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            assert len(found) == 8, found
            assert len(set(found)) == 1, found
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pool.stuck)
        """
    )
    assert (done.stdout, done.stderr) == ("7 1\n", "")
