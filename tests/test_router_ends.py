"""How calls of a router end that do not end by themselves: Ctrl-C, close, a fork, a dropped router, a left stream."""

import asyncio
import gc
import io
import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AllBackendsFailedError,
    AsyncRouter,
    ClosedError,
    ContentRejectedError,
    InvalidImageError,
    QuotaExhaustedError,
    Router,
    UnavailableError,
    Usage,
)
from vision_backends.storage import Stores
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeAsyncBackend, FakeBackend

IMAGE = PILImage.new("RGB", (64, 48), "teal")
ESTIMATE = Usage(input_tokens=900, output_tokens=100, cost_usd=0.25)


class Remote(FakeAsyncBackend):
    """A server that thinks for as long as it is told, and may charge for it."""

    def __init__(self, name="remote", **options):
        super().__init__(name, local=False, **options)

    def estimate(self, request, inputs):
        """Return the same for every call."""
        return ESTIMATE


def until(condition, timeout_s=5.0):
    """Wait for something that happens in another thread."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "It did not happen."
        time.sleep(0.002)


def row_of(router):
    """Return the only row of the ledger."""
    (row,) = router.ledger()
    return row


class Watching(FakeBackend):
    """Notes which images it was asked about, without keeping them."""

    images: list

    def describe(self, images, request, *, timeout_s):
        """Answer as it is told."""
        self.images += map(weakref.ref, images)
        return super().describe(images, request, timeout_s=timeout_s)


@pytest.fixture
def no_collection():
    """What is gone without the garbage collector is gone at once."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "failure",
    [
        None,
        UnavailableError("Out of order."),
        QuotaExhaustedError("No quota."),
        ContentRejectedError("No such pictures."),
        RuntimeError("a bug"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_a_call_has_worked_on_is_gone_with_it_however_it_ends(failure, caplog):
    """Neither an error that was noted nor one that was raised keeps the image: its pixels are for the next."""
    caplog.set_level(logging.CRITICAL)  # the records that a test keeps have the frames of what crashed
    backends = Watching("first"), Watching("second")
    for backend in backends:
        backend.images = []
    with Router(backends) as router:
        for number in range(3):
            for backend in backends:
                router.reset()
                backend.play(failure or 0.0)
            photo = io.BytesIO()
            PILImage.new("RGB", (64, 48 + number), "teal").save(photo, "PNG")
            with suppress(AllBackendsFailedError, ContentRejectedError):
                router.describe(photo.getvalue())
        asked = [image for backend in backends for image in backend.images]
        assert len(asked) >= 3
        until(lambda: not [image for image in asked if image() is not None])


@pytest.mark.usefixtures("no_collection")
def test_errors_of_a_list_keep_nothing_of_what_they_are_about():
    """However long they are kept: no frames, neither their own nor those of their causes."""
    with Router([FakeBackend()]) as router:
        errors = router.describe_many([b"broken", io.BytesIO(b"\x89PNG\r\n\x1a\nbroken"), Path("nowhere.jpg")])
    assert [type(error) for error in errors] == [InvalidImageError] * 3
    causes = [cause for error in errors for cause in (error.__cause__, error.__context__) if cause is not None]
    assert causes
    assert [each.__traceback__ for each in (*errors, *causes)] == [None] * (3 + len(causes))


def test_a_cancelled_call_is_given_up_and_booked_with_its_estimate():
    """The server may have charged for it."""
    remote = Remote()
    remote.play(60.0)

    async def work(router):
        call = asyncio.create_task(router.describe(IMAGE))
        while not remote.calls:  # noqa: ASYNC110 — it is asked on another loop
            await asyncio.sleep(0.002)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(remote.cancelled) == 1

    with Router([remote]) as router:
        asyncio.run(work(AsyncRouter(router)))
        row = row_of(router)
    assert (row.outcome, row.error, row.code) == ("failed", "cancelled", "estimated")
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (900, 100, 0.25)


def test_a_call_that_is_late_is_booked_with_its_estimate_and_the_next_rung_answers():
    """Its request is cancelled at the deadline."""
    remote, spare = Remote(), FakeBackend("spare")
    remote.play(60.0)
    with Router([remote, spare]) as router:
        answer = router.describe(IMAGE, deadline_s=0.3)
        assert answer.trace.backend == "spare"
        assert answer.trace.attempts[0].usage == ESTIMATE
        assert len(remote.cancelled) == 1


@pytest.mark.parametrize("ends_badly", [False, True])
def test_a_call_that_was_given_up_is_not_heard_of_again(caplog, ends_badly):
    """However its backend takes that: asyncio has nothing to complain about."""

    class Stubborn(Remote):
        async def describe(self, images, request, *, timeout_s):
            try:
                return await super().describe(images, request, timeout_s=timeout_s)
            finally:
                if ends_badly:
                    raise ZeroDivisionError

    remote = Stubborn()
    remote.play(60.0)
    with Router([remote]) as router, pytest.raises(AllBackendsFailedError):
        router.describe(IMAGE, deadline_s=0.3)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_who_waits_for_the_same_answer_outlasts_who_has_asked_first():
    """The request belongs to no caller: it goes on as long as one of them waits, and is paid for once."""
    remote = Remote(usage=Usage(input_tokens=9, output_tokens=1, cost_usd=0.5))
    remote.play(0.4)
    with Router([remote]) as router, ThreadPoolExecutor(2) as pool:
        first = pool.submit(router.describe, IMAGE, deadline_s=0.15)
        until(lambda: remote.calls)
        second = pool.submit(router.describe, IMAGE, deadline_s=30)
        with pytest.raises(AllBackendsFailedError, match="No answer within"):
            first.result()
        assert second.result().trace.backend == "remote"
        assert len(remote.calls) == 1
        assert sum(row.cost_usd or 0.0 for row in router.ledger()) == 0.5


def test_a_failure_is_shared_by_who_waits_for_the_same_answer():
    """One request, one outage, not eight."""
    from vision_backends import UnavailableError

    remote, spare = Remote(), FakeBackend("spare")
    remote.play([0.2, UnavailableError("It is down.")])
    with Router([remote, spare]) as router, ThreadPoolExecutor(8) as pool:
        answers = [each.result() for each in [pool.submit(router.describe, IMAGE) for _ in range(8)]]
    assert {answer.trace.backend for answer in answers} == {"spare"}
    assert all(answer.trace.degraded for answer in answers)
    assert len(remote.calls) == 1


def test_closing_gives_running_calls_a_second_then_cancels_and_books_them():
    """And refuses new ones."""
    remote = Remote()
    remote.play(0.3, 60.0)
    router = Router([remote], caching=False)
    with ThreadPoolExecutor(2) as pool:
        quick = pool.submit(router.describe, IMAGE)
        until(lambda: len(remote.calls) == 1)
        slow = pool.submit(router.describe, IMAGE)
        until(lambda: len(remote.calls) == 2)
        started = time.monotonic()
        router.close()
        assert time.monotonic() - started < 20  # of the 60 that the call would take
        assert quick.result().trace.backend == "remote"
        with pytest.raises(ClosedError, match="was closed before this call had its answer"):
            slow.result()
    assert len(remote.cancelled) == 1
    assert [row.error for row in router.ledger()] == [None, "cancelled"]
    with pytest.raises(RuntimeError, match="closed"):
        router.describe(IMAGE)


class Stubborn(FakeBackend):
    """Raises when it is closed."""

    def __init__(self, name, error):
        super().__init__(name)
        self.closed = 0
        self.error = error

    def close(self):
        """Count, and raise."""
        self.closed += 1
        raise self.error


def test_closing_closes_everything_whatever_a_backend_raises(tmp_path, caplog):
    """What it raises is logged; the others, the store and the threads are released."""
    from vision_backends.storage import open_store

    class AsyncStubborn(FakeAsyncBackend):
        async def aclose(self):
            raise OSError("It does not let go.")

    backends = [AsyncStubborn("loop"), Stubborn("first", ValueError("No.")), Stubborn("second", OSError("Never."))]
    store = open_store(tmp_path / "state.sqlite")
    router = Router(backends, store=store)
    router.describe(IMAGE)
    router.close()
    assert [backend.closed for backend in backends[1:]] == [1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        f"The {name} backend failed to close." for name in ("loop", "first", "second")
    ]
    with pytest.raises(ClosedError):
        router.cache_info()


def test_closing_goes_on_when_it_is_interrupted():
    """Ctrl-C comes out in the end."""
    first, second = Stubborn("first", KeyboardInterrupt()), Stubborn("second", ValueError("No."))
    router = Router([first, second])
    with pytest.raises(KeyboardInterrupt):
        router.close()
    assert second.closed == 1


def test_a_store_in_trouble_does_not_keep_the_others_open():
    """The error comes out when all three were closed."""

    class Broken(MemoryStore):
        closed = False

        def close(self):
            self.closed = True
            raise OSError("It is stuck.")

    answers, ledger, states = Broken(), Broken(), Broken()
    router = Router([FakeBackend()], store=Stores(answers=answers, ledger=ledger, states=states))
    with pytest.raises(OSError, match="stuck"):
        router.close()
    assert answers.closed
    assert ledger.closed
    assert states.closed


@pytest.mark.parametrize("kept", [False, True])
def test_a_closed_router_says_that_it_is_closed(tmp_path, kept):
    """Whatever it is asked, and wherever it kept things: neither the store nor a backend is to blame."""
    from vision_backends.storage import open_store

    router = Router([FakeBackend()], store=open_store(tmp_path / "state.sqlite" if kept else None))
    router.describe(IMAGE)
    router.close()
    asked = [
        *(lambda: router.describe(IMAGE), lambda: router.describe_many([IMAGE]), lambda: router.embed_text("a cat")),
        lambda: list(router.describe_stream(IMAGE)),
        *([router.cache_info, router.clear_cache, lambda: list(router.ledger())] if kept else []),
    ]
    for ask in asked:
        with pytest.raises(ClosedError, match=r"The router is closed\. Ask before it is closed, or make a new one"):
            ask()
    router.close()


def test_closing_does_not_wait_for_a_backend_that_does_not_close():
    """It is given a second."""

    class Sticky(FakeAsyncBackend):
        async def aclose(self):
            await asyncio.sleep(60)

    router = Router([Sticky("sticky")])
    router.describe(IMAGE)
    started = time.monotonic()
    router.close()
    assert time.monotonic() - started < 20


def test_a_router_that_is_dropped_leaves_no_thread_and_no_descriptor(tmp_path):
    """Nobody has closed it."""
    from vision_backends.storage import open_store

    def work():
        router = Router([FakeBackend()], store=open_store(tmp_path / "state.sqlite"))
        router.describe(IMAGE)

    other = Router([FakeBackend()])  # keeps the loop
    other.describe(IMAGE)
    work()
    gc.collect()
    before = {thread for thread in threading.enumerate() if thread.name != "vision-loop"}
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    work()
    gc.collect()

    def is_tidy():
        gc.collect()
        threads = {thread for thread in threading.enumerate() if thread.name != "vision-loop"}
        return threads <= before and len(list(Path("/proc/self/fd").iterdir())) <= descriptors

    until(is_tidy)
    other.close()


def test_three_event_loops_one_after_the_other():
    """The router has a loop of its own, so those of its callers may come and go."""
    router = AsyncRouter(Router([Remote()], caching=False))

    async def work():
        return await asyncio.gather(*(router.describe(IMAGE) for _ in range(3)))

    for _ in range(3):
        assert [answer.trace.backend for answer in asyncio.run(work())] == ["remote"] * 3
    asyncio.run(router.close())


def test_a_synchronous_call_inside_of_a_coroutine_blocks_only_that_loop():
    """It is slow, but it ends."""

    async def work(router):
        return router.describe(IMAGE)

    with Router([Remote()]) as router:
        assert asyncio.run(work(router)).trace.backend == "remote"


def test_a_thousand_calls_in_flight_hold_no_threads():
    """They wait on one loop."""
    remote = Remote()
    remote.play(1.0, times=1000)

    async def work(router):
        images = [PILImage.new("RGB", (8 + number % 40, 8 + number // 40)) for number in range(1000)]
        calls = [asyncio.create_task(router.describe(image)) for image in images]
        while len(remote.calls) < 1000:  # noqa: ASYNC110 — it is asked on another loop
            await asyncio.sleep(0.01)
        asking = [thread for thread in threading.enumerate() if thread.name.startswith("vision-remote")]
        answers = await asyncio.gather(*calls)
        return asking, answers

    with Router([remote], caching=False) as router:
        asking, answers = asyncio.run(work(AsyncRouter(router)))
    assert asking == []
    assert len(answers) == 1000


class TestStreams:
    """The request of a stream ends with its reader."""

    @pytest.fixture
    def remote(self):
        """A server that says forty words, one each 10 ms."""
        remote = Remote()
        remote.play([piece for number in range(400) for piece in (0.01, f"{number} ")], times=3)
        return remote

    def test_leaving_the_loop_and_dropping_the_stream_ends_it(self, remote):
        """And it is booked."""
        with Router([remote]) as router:
            for piece in router.describe_stream(IMAGE):
                assert piece == "0 "
                break
            gc.collect()
            until(lambda: remote.cancelled)
            until(lambda: list(router.ledger()))
            assert (row_of(router).error, row_of(router).cost_usd) == ("stream_interrupted", 0.25)

    def test_leaving_its_block_ends_it(self, remote):
        """As with a file."""
        with Router([remote]) as router:
            with router.describe_stream(IMAGE) as stream:
                assert next(stream) == "0 "
            assert len(remote.cancelled) == 1
            assert row_of(router).error == "stream_interrupted"
            assert list(stream) == []

    def test_cancelling_who_reads_it_ends_it(self, remote):
        """With async for."""

        async def read(router):
            async for _piece in router.describe_stream(IMAGE):
                pass

        async def work(router):
            reader = asyncio.create_task(read(router))
            while not remote.calls:  # noqa: ASYNC110 — it is asked on another loop
                await asyncio.sleep(0.002)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader

        with Router([remote]) as router:
            asyncio.run(work(AsyncRouter(router)))
            until(lambda: remote.cancelled)

    def test_it_is_at_most_sixteen_pieces_ahead_of_its_reader(self):
        """A slow reader does not fill the memory."""
        said = []

        class Fast(Remote):
            async def describe_stream(self, image, request, *, timeout_s):
                for number in range(1000):
                    said.append(number)
                    yield f"{number} "

        with Router([Fast()]) as router, router.describe_stream(IMAGE) as stream:
            assert next(stream) == "0 "
            time.sleep(0.1)
            assert len(said) <= 1 + 16 + 1


@pytest.mark.parametrize("kind", ["listener", "progress"])
def test_a_callback_may_call_the_router(kind):
    """It runs in a thread of its own, and does not wait for itself."""
    heard = []
    with Router([FakeBackend()]) as router:

        def call_back(*_event):
            if len(heard) < 3:
                heard.append(str(router.describe(PILImage.new("RGB", (9, 9 + len(heard))))))

        started = time.monotonic()
        if kind == "listener":
            router.subscribe(call_back)
            router.describe(IMAGE)
        else:
            router.describe_many([IMAGE, IMAGE], progress=call_back)
        until(lambda: heard)
        assert time.monotonic() - started < 2.5  # it would wait for itself three times, a second each
    assert heard[0] == "fake says: 9×9 px"


def test_a_listener_that_hangs_holds_a_call_up_for_a_second_at_most():
    """The answer is there."""
    release = threading.Event()
    with Router([FakeBackend()]) as router:
        router.subscribe(lambda _event: release.wait(20))
        started = time.monotonic()
        router.describe(IMAGE)
        assert time.monotonic() - started < 10
        release.set()


def run_program(text, *, interrupt=False):
    """Run a program in a process of its own and return what it prints; interrupt it once it has printed a line."""
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PREAMBLE) + textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        first = program.stdout.readline()
        if interrupt:
            time.sleep(0.1)
            program.send_signal(signal.SIGINT)
        with ThreadPoolExecutor(1) as pool:  # `communicate` would lose what `readline` has read ahead
            rest = pool.submit(program.stdout.read)
            program.wait(timeout=30)
            return first + rest.result(timeout=30)
    finally:
        program.kill()
        program.stdout.close()


PREAMBLE = """
import os, threading, time
from PIL import Image as PILImage
from vision_backends import Router
from vision_backends.testing import FakeAsyncBackend, FakeBackend

image = PILImage.new("RGB", (64, 48), "teal")
"""


def test_ctrl_c_cancels_the_call_and_books_it():
    """It is raised when the request has been given up."""
    printed = run_program(
        """
        remote = FakeAsyncBackend("remote", local=False)
        remote.play(60.0)
        router = Router([remote])
        print("asking", flush=True)
        try:
            router.describe(image)
        except KeyboardInterrupt:
            print(len(remote.cancelled), [row.error for row in router.ledger()])
        """,
        interrupt=True,
    )
    assert printed == "asking\n1 ['cancelled']\n"


def test_a_forked_child_asks_on_a_loop_of_its_own():
    """And its parent goes on asking."""
    printed = run_program(
        """
        router = Router([FakeAsyncBackend("remote", local=False), FakeBackend("spare")], caching=False)
        print(router.describe(image).trace.backend, flush=True)
        child = os.fork()
        if child == 0:
            answers = router.describe(image), router.describe(image, backend="spare")
            print("child:", *(answer.trace.backend for answer in answers), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("parent:", router.describe(image).trace.backend, flush=True)
        """
    )
    assert printed == "remote\nchild: remote spare\nparent: remote\n"


def test_a_child_forked_amid_calls_waits_for_nothing_of_its_parent():
    """Neither for its request for the same image, nor behind its waiting calls, nor for locks that its threads held."""
    printed = run_program(
        """
        from vision_backends import RateLimitedError

        remote = FakeAsyncBackend("remote", local=False)
        remote.play(60.0, RateLimitedError("Slow down.", retry_after_s=60.0))
        router = Router([remote, FakeBackend("spare")])
        threading.Thread(target=router.describe, args=(image,), daemon=True).start()
        while len(remote.calls) < 1:
            time.sleep(0.01)
        batch = {"prompt": "What?", "priority": "batch"}
        threading.Thread(target=router.describe, args=(image,), kwargs=batch, daemon=True).start()
        while not router.gates():
            time.sleep(0.01)
        router.reset()
        stores, health = router._stores, router._health
        owners = router._events, stores.states, stores.states._states, stores.answers, health, health._throttling
        locks = [owner._lock for owner in owners]
        holder = threading.Thread(target=lambda: [lock.acquire() for lock in locks])
        holder.start()
        holder.join()
        child = os.fork()
        if child == 0:
            print(router.describe(image, deadline_s=5).trace.backend, flush=True)
            print(router.describe(image, prompt="Who?", priority="batch", max_wait_s=5).trace.backend, flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1], flush=True)
        os._exit(0)
        """
    )
    assert printed == "remote\nremote\n0\n"


def test_what_was_answered_last_is_in_the_ledger_and_the_cache_of_a_program_that_just_ends(tmp_path):
    """It is written behind the call, and before the interpreter ends."""
    from vision_backends.storage import open_store

    path = tmp_path / "state.sqlite"
    printed = run_program(
        f"""
        from vision_backends.storage import open_store

        router = Router([FakeBackend()], store=open_store({str(path)!r}))
        print(router.describe(image))
        """
    )
    assert printed == "fake says: 64×48 px\n"
    store = open_store(path)
    assert len(list(store.rows())) == 1
    assert store.cache_info().entries == 1
    store.close()
