"""The router in an event loop."""

import asyncio
import inspect

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AllBackendsFailedError,
    AsyncRouter,
    ClosedError,
    InvalidRequestError,
    Router,
    UnavailableError,
)
from vision_backends.observability.events import CallEvent
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend

IMAGE = PILImage.new("RGB", (64, 48), "teal")


def test_every_method_is_a_coroutine_with_the_same_answer():
    """The answers are those of the router behind it."""

    async def work():
        async with AsyncRouter(Router([FakeBackend()])) as router:
            assert str(await router.describe(IMAGE)) == "fake says: 64×48 px"
            assert (await router.embed(IMAGE)).space == (await router.embed_text("a cat")).space
            assert len(await router.detect(IMAGE)) == 1
            assert len(await router.describe_many([IMAGE, IMAGE])) == 2
            assert len(await router.embed_many([IMAGE])) == 1
            assert len(await router.embed_text_many(["a cat"])) == 1
            assert len(await router.detect_many([IMAGE])) == 1
            assert (await router.explain("describe")).chosen == "fake"
            assert [status.backend for status in await router.status()] == ["fake"]

    asyncio.run(work())


def test_it_has_every_method_of_the_router():
    """With the same parameters; whoever adds one adds it here too."""

    def public(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(Router) == public(AsyncRouter)
    for name in public(Router):
        mine, theirs = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (AsyncRouter, Router))
        assert mine == theirs, name


def test_the_ledger_is_an_async_generator_and_listeners_are_told(tmp_path):
    """The store is read in a thread, page by page."""
    told = []

    async def work():
        router = Router([FakeBackend()], store=open_store(tmp_path / "state.sqlite"), caching=False)
        async with AsyncRouter(router) as router:
            end = router.subscribe(told.append)
            for _ in range(3):
                await router.describe(IMAGE)
            end()
            await router.describe(IMAGE)
            rows = [row async for row in router.ledger()]
            assert [row.backend for row in rows] == ["fake"] * 4
            assert [row async for row in router.ledger(since=rows[-1].at + 1)] == []
            with pytest.raises(InvalidRequestError, match="since='today'"):
                [row async for row in router.ledger(since="today")]

    asyncio.run(work())
    assert len([event for event in told if isinstance(event, CallEvent)]) == 3


def test_errors_come_out_of_the_await():
    """The same types as without an event loop."""

    async def work():
        backend = FakeBackend()
        backend.play(UnavailableError("It is down."))
        async with AsyncRouter(Router([backend])) as router:
            with pytest.raises(AllBackendsFailedError):
                await router.describe(IMAGE)

    asyncio.run(work())


def test_calls_run_side_by_side():
    """Eight calls that each wait for the others can only end if they run at once."""
    import threading

    meeting = threading.Barrier(8, timeout=10)

    class Meeting:
        def sleep(self, _seconds):
            meeting.wait()

    backend = FakeBackend()
    backend._clock = Meeting()
    backend.play(1.0, times=8)
    images = [PILImage.new("RGB", (width, 10)) for width in range(1, 9)]

    async def work():
        async with AsyncRouter(Router([backend])) as router:
            answers = await asyncio.gather(*(router.describe(image) for image in images))
            assert [str(answer) for answer in answers] == [f"fake says: {width}×10 px" for width in range(1, 9)]

    asyncio.run(work())


def test_it_is_made_from_the_configuration(tmp_path):
    """As Router.from_config does."""
    config = tmp_path / "vision.toml"
    config.write_text('ladder = ["vision_backends.testing.fake:FakeBackend"]\nstate = "memory"\n')

    async def work():
        async with AsyncRouter.from_config(config) as router:
            assert (await router.describe(IMAGE)).trace.backend == "fake"

    asyncio.run(work())


def test_a_description_comes_piece_by_piece():
    """And can be stopped early."""

    async def work():
        async with AsyncRouter(Router([FakeBackend()], caching=False)) as router:
            stream = router.describe_stream(IMAGE)
            assert stream.description is None
            assert [piece async for piece in stream] == ["fake says: 64×48 px"]
            assert stream.description.trace.backend == "fake"
            stopped = router.describe_stream(IMAGE)
            await stopped.close()
            assert [piece async for piece in stopped] == []

    asyncio.run(work())


def test_the_house_can_be_kept_from_a_loop():
    """Gates, budgets and cache, without blocking it."""

    async def work():
        async with AsyncRouter(Router([FakeBackend()])) as router:
            await router.describe(IMAGE)
            assert (await router.cache_info()).entries == 1
            assert await router.clear_cache() == 1
            assert await router.reset() == 0
            assert await router.gates() == await router.spending() == []

    asyncio.run(work())


def test_a_closed_router_says_that_it_is_closed():
    """Also what runs in a thread, and what is a stream; closing it again is harmless."""

    async def work():
        router = AsyncRouter(Router([FakeBackend()]))
        await router.describe(IMAGE)
        await router.close()
        await router.close()
        for ask in (lambda: router.describe(IMAGE), router.status, router.cache_info):
            with pytest.raises(ClosedError, match="The router is closed"):
                await ask()
        with pytest.raises(ClosedError):
            router.describe_stream(IMAGE)

    asyncio.run(work())


def test_batch_calls_have_places_of_their_own():
    """One that waits does not keep an interactive one from its turn."""
    import threading

    release = threading.Event()

    class Patient:
        def sleep(self, _seconds):
            release.wait(10)

    backend = FakeBackend()
    backend._clock = Patient()
    backend.play(1.0)

    async def work():
        async with AsyncRouter(Router([backend], caching=False)) as router:
            waiting = asyncio.create_task(router.describe(IMAGE, priority="batch"))
            while not backend.calls:  # noqa: ASYNC110 — the backend is not a coroutine
                await asyncio.sleep(0.001)
            assert (await router.describe(IMAGE)).trace.backend == "fake"
            release.set()
            await waiting

    asyncio.run(work())
