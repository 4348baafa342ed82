"""Models of routers that nobody has any more."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest
from PIL import Image

from vision_backends import AsyncRouter, Router
from vision_backends.backends.local import LocalBackend

PICTURE = Image.new("RGB", (40, 30), "red")


@pytest.fixture(autouse=True)
def uncollected():
    """Python does not happen to look for circular references while a test runs."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def make_dropped(model):
    """A maker of backends that nobody closes."""

    def make(**settings):
        models = {"caption_model": str(model("blip")), "embedding_model": str(model("clip"))}
        return LocalBackend(**models, engine="torch", **settings)

    return make


def weights_of(backend):
    """Return weak references to the models in memory."""
    loaded = [each._slot.value for each in backend._models.values()]
    return [weakref.ref(engine.loaded.model) for engine in loaded if engine is not None]


def are_freed(weights, within_s=30.0):
    """Return whether all of them are gone, or are so soon."""
    until = time.monotonic() + within_s
    while any(each() is not None for each in weights):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("settings", [{}, {"idle_unload_s": 1000.0}])
def test_a_router_that_is_dropped_gives_its_models_back(make_dropped, settings):
    """Also while a timer waits for them to be idle."""
    backend = make_dropped(**settings)
    router = Router([backend])
    router.embed(PICTURE)
    router.describe(PICTURE)
    weights = weights_of(backend)
    assert len(weights) == 2
    del backend, router
    assert are_freed(weights)


def test_models_of_two_routers_stay_until_the_last_one_is_dropped(make_dropped):
    """It still answers from them."""
    backend = make_dropped()
    first, second = Router([backend]), Router([backend], caching=False)
    first.embed(PICTURE)
    weights = weights_of(backend)
    del backend, first
    second.embed(PICTURE)
    assert all(each() is not None for each in weights)
    del second
    assert are_freed(weights)


def test_an_asynchronous_router_gives_its_models_back_too(make_dropped):
    """When its last reference goes, before its loop ends or after."""

    async def ask():
        backend = make_dropped()
        router = AsyncRouter(Router([backend]))
        await router.embed(PICTURE)
        return weights_of(backend)

    assert are_freed(asyncio.run(ask()))


def test_a_call_keeps_its_models(make_dropped):
    """Until it has been answered, whoever else has let go."""

    async def ask():
        backend = make_dropped()
        router = AsyncRouter(Router([backend]))
        await router.embed(PICTURE)
        weights = weights_of(backend)
        calls = [asyncio.ensure_future(router.describe(PICTURE)) for _ in range(3)]
        del router, backend
        await asyncio.sleep(0)
        return [answer.trace.backend for answer in await asyncio.gather(*calls)], weights

    backends, weights = asyncio.run(ask())
    assert backends == ["local"] * 3
    assert are_freed(weights)
