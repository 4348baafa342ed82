"""`describe_each` and its siblings: answers one by one, in order, in bounded memory, from inputs without end."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import count, islice

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AsyncRouter,
    Description,
    InvalidImageError,
    InvalidRequestError,
    QuotaExhaustedError,
    Router,
    SpaceUnavailableError,
)
from vision_backends.testing import FakeAsyncBackend, FakeBackend


def picture(number):
    """Return a picture of its own."""
    return PILImage.new("RGB", (32 + number % 7, 32), (number % 256, number // 256, 7))


def test_answers_come_in_order_from_inputs_without_end():
    """One that cannot be read is an error in its place; only a few are taken ahead, in the caller's own thread."""
    taken, threads = [], set()

    def images():
        for number in count():
            taken.append(number)
            threads.add(threading.current_thread())
            yield "no-such-file.png" if number == 3 else picture(number)

    with Router([FakeBackend("best", concurrency=8)]) as router:
        answers = router.describe_each(images())
        assert taken == []
        found = list(islice(answers, 10))
        answers.close()
    assert [type(each) for each in found[:5]] == [Description] * 3 + [InvalidImageError, Description]
    assert [each.text.split()[2] for each in found[4:]] == [f"{32 + number % 7}×32" for number in range(4, 10)]
    assert len(taken) <= 10 + 8
    assert threads == {threading.current_thread()}


def test_as_many_are_under_way_as_the_backend_can_work_at():
    """The slowest does not hold up the others, and nobody waits for more than the order demands."""
    best = FakeBackend("best", concurrency=4, local=False)
    best.play(*[0.2] * 12)
    with Router([best]) as router:
        started = time.monotonic()
        assert len(list(router.detect_each(map(picture, range(12))))) == 12
    assert time.monotonic() - started < 12 * 0.2 * 0.75


def test_large_images_are_few_at_a_time():
    """What is under way is bounded by its memory."""
    taken = []

    def images():
        for number in range(8):
            taken.append(number)
            yield PILImage.new("RGB", (4000, 3000), (number, 0, 0))

    with Router([FakeBackend("best", concurrency=8)]) as router:
        for number, answer in enumerate(router.describe_each(images())):
            assert isinstance(answer, Description)
            assert len(taken) <= number + 3


def test_leaving_ends_what_is_under_way():
    """Its requests are cancelled, and booked."""
    best = FakeAsyncBackend("best", concurrency=4, local=False)
    best.play(0.0, 0.0, *[30.0] * 20)
    with Router([best]) as router:
        started = time.monotonic()
        for _ in router.describe_each(map(picture, range(20))):
            break
        else:
            raise AssertionError
        assert time.monotonic() - started < 5


def test_vectors_stay_in_the_space_of_the_first():
    """What cannot be had there says so; a space that is given holds from the beginning."""
    best, spare = FakeBackend("best", space="a"), FakeBackend("spare", space="b")
    with Router([best, spare], caching=False) as router:
        best.play(0.0, 0.0, QuotaExhaustedError("Gone."))
        first, second, *others = router.embed_each(map(picture, range(6)))
        assert first.space == second.space == "a"
        assert {type(each) for each in others} == {SpaceUnavailableError}
        assert {each.space for each in router.embed_each(map(picture, range(3)))} == {"b"}
        assert {each.space for each in router.embed_each(map(picture, range(3)), space="b")} == {"b"}


def test_each_has_a_deadline_of_its_own():
    """One that hangs costs no other its answer."""
    best = FakeAsyncBackend("best", local=False)
    best.play(30.0)
    with Router([best], caching=False) as router:
        kinds = [type(each).__name__ for each in router.describe_each(map(picture, range(5)), deadline_s=0.3)]
    assert sorted(kinds) == ["AllBackendsFailedError", *["Description"] * 4]


def test_a_single_input_is_refused_before_anything_is_asked():
    """As by the methods for lists."""
    with Router([FakeBackend("best")]) as router:
        for wrong in ("photo.png", b"bytes", 7):
            with pytest.raises(InvalidRequestError):
                router.describe_each(wrong)
        with pytest.raises(InvalidRequestError):
            router.describe_each([], deadline_s=-1)


def test_the_awaited_form_takes_asynchronous_iterables():
    """And plain ones; leaving it ends what is under way."""

    async def images():
        for number in range(6):
            await asyncio.sleep(0)
            yield picture(number)

    async def main():
        best = FakeAsyncBackend("best", concurrency=3, local=False)
        async with AsyncRouter(Router([best], caching=False)) as router:
            found = [answer.text async for answer in router.describe_each(images())]
            assert found == [answer.text async for answer in router.describe_each(map(picture, range(6)))]
            assert len(found) == 6
            assert {answer.space async for answer in router.embed_each(images())} == {"fake/vectors@1"}
            best.play(0.0, 0.0, *[30.0] * 20)
            answers = router.detect_each(images())
            async for _ in answers:
                break
            await answers.aclose()
            assert len(asyncio.all_tasks()) == 1

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 10
