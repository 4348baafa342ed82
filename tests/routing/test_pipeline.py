"""Lists of inputs: order, isolation, one vector space, progress."""

import io
import threading

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AllBackendsFailedError,
    ContentRejectedError,
    Detections,
    Embedding,
    ImageTooLargeError,
    InvalidImageError,
    InvalidReplyError,
    InvalidRequestError,
    NotReadyError,
    Router,
    UnavailableError,
)
from vision_backends.images import ImageLimits
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeBackend, FakeClock


def picture(width):
    """Return an image that its width tells apart."""
    return PILImage.new("RGB", (width, 10), "teal")


@pytest.fixture
def pictures():
    """Seventy images, told apart by their width: more than two windows."""
    return [picture(width) for width in range(1, 71)]


def test_answers_come_in_the_order_of_the_inputs(pictures):
    """Whatever runs at once, place i belongs to input i."""
    with Router([FakeBackend(batch_size=7, concurrency=4)]) as router:
        answers = router.describe_many(pictures)
    assert [str(answer) for answer in answers] == [f"fake says: {width}×10 px" for width in range(1, 71)]


def test_batches_are_as_large_as_the_backend_likes(pictures):
    """The first of each window is a batch like the others, and nothing is asked twice."""
    backend = FakeBackend(batch_size=16)
    with Router([backend]) as router:
        router.detect_many(pictures)
    assert sum(call.count for call in backend.calls) == 70
    assert max(call.count for call in backend.calls) == 16


def test_a_bad_item_fails_alone(pictures):
    """An image that cannot be read is an error in its place."""
    with Router([FakeBackend(batch_size=8)]) as router:
        answers = router.describe_many([pictures[0], b"broken", pictures[1]])
    assert [str(answers[0]), str(answers[2])] == ["fake says: 1×10 px", "fake says: 2×10 px"]
    assert isinstance(answers[1], InvalidImageError)


def test_a_text_with_half_a_character_fails_alone():
    """No encoding can write it down, so no backend is asked about it."""
    backend = FakeBackend()
    with Router([backend]) as router:
        first, half, third = router.embed_text_many(["fine", "bad \ud83d", "fine too"])
        assert isinstance(half, InvalidRequestError)
        assert isinstance(first, Embedding)
        assert isinstance(third, Embedding)
        with pytest.raises(InvalidRequestError, match="not valid Unicode"):
            router.embed_text("\udc80")
        for ask in (
            lambda: router.describe(picture(3), prompt="what \ud83d?"),
            lambda: router.detect(picture(3), labels=["a \ud83d"]),
        ):
            with pytest.raises(InvalidRequestError, match="not valid Unicode"):
                ask()
    assert sum(call.count for call in backend.calls) == 2


def test_a_refused_item_fails_alone_and_the_rest_of_its_batch_is_asked_again(pictures):
    """A policy's no concerns one image, not those that travelled with it."""
    backend = FakeBackend(batch_size=4)
    backend.play(ContentRejectedError("No."), 0.0, ContentRejectedError("No."))
    with Router([backend]) as router:
        answers = router.describe_many(pictures[:4])
    assert [isinstance(answer, ContentRejectedError) for answer in answers] == [False, True, False, False]
    assert [call.count for call in backend.calls] == [4, 1, 1, 1, 1]


@pytest.mark.parametrize("code", ["only_thoughts", "limit_used_up", "empty_reply", "repetition"])
def test_a_picture_of_which_a_model_says_nothing_fails_alone(pictures, code):
    """The next rung answers about it, and only about it."""

    class Thinking(FakeBackend):
        def describe(self, images, request, *, timeout_s):
            if any(image.width == 3 for image in images):
                raise InvalidReplyError("It wrote nothing but its thoughts.", code=code)
            return super().describe(images, request, timeout_s=timeout_s)

    with Router([Thinking("best", batch_size=8), FakeBackend("spare")]) as router:
        answers = router.describe_many(pictures[:8])
    assert [answer.trace.backend for answer in answers] == ["best", "best", "spare", *["best"] * 5]
    assert [answer.trace.degraded for answer in answers] == [False, False, True, *[False] * 5]


def test_what_one_rung_leaves_the_next_one_takes(pictures):
    """Descriptions may come from two rungs, and each says which."""
    best, spare = FakeBackend("best", batch_size=10), FakeBackend("spare", batch_size=10)
    best.play(0.0, UnavailableError("It is down."))
    with Router([best, spare]) as router:
        answers = router.describe_many(pictures[:30])
    assert [answer.trace.backend for answer in answers] == ["best"] * 10 + ["spare"] * 10 + ["best"] * 10


def test_a_dead_backend_is_asked_once_however_many_may_run_at_once(pictures):
    """The first request goes alone; the others learn from it."""
    from vision_backends import QuotaExhaustedError

    best = FakeBackend("best", concurrency=8, credential="account")
    best.play(QuotaExhaustedError("No money is left."), times=70)
    with Router([best, FakeBackend("spare")]) as router:
        answers = router.describe_many(pictures)
    assert {answer.trace.backend for answer in answers} == {"spare"}
    assert len(best.calls) == 1


def test_one_list_of_embeddings_is_one_space(pictures):
    """When a rung fails in the middle, the next one does all of them; what was paid for stays booked and cached."""
    best, spare = FakeBackend("best", space="a"), FakeBackend("spare", space="b")
    best.play(*[0.0] * 40, UnavailableError("It is down."))
    with Router([best, spare]) as router:
        vectors = router.embed_many(pictures)
        assert {vector.space for vector in vectors} == {"b"}
        assert vectors[0].trace.attempts[0].error == "space_unavailable"
        assert vectors[0].trace.degraded
        assert router.embed(pictures[0]).trace.backend == "best"
        assert router.embed(pictures[0]).trace.cached


def test_without_another_space_the_gaps_stay_gaps(pictures):
    """What was answered is returned, what was not is an error."""
    best = FakeBackend("best", space="a", batch_size=1)
    spare = FakeBackend("spare", space="b", not_ready=NotReadyError("It is loading."))
    best.play(0.0, UnavailableError("It is down."))
    with Router([best, spare]) as router:
        first, second, third = router.embed_many(pictures[:3])
    assert (first.space, third.space) == ("a", "a")
    assert isinstance(second, AllBackendsFailedError)
    assert [attempt.backend for attempt in second.attempts] == ["best", "spare"]
    assert "It is loading." in str(second)


def test_texts_are_embedded_in_lists_too():
    """An empty text fails alone."""
    with Router([FakeBackend(batch_size=8)]) as router:
        first, empty, third = router.embed_text_many(["a cat", "", "a dog"])
    assert isinstance(first, Embedding)
    assert isinstance(empty, InvalidRequestError)
    assert first.similarity(third) < 0.999


def test_progress_counts_every_item_once_and_ends_at_the_total(pictures):
    """Answered, cached and failed ones alike."""
    seen = []
    backend = FakeBackend(concurrency=4)
    with Router([backend]) as router:
        router.describe(pictures[3])
        backend.play(UnavailableError("It is down."))
        router.describe_many([*pictures, b"broken"], progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (71, 71)


def test_a_list_may_be_empty_or_an_iterator(pictures):
    """Any iterable will do."""
    with Router([FakeBackend()]) as router:
        assert router.describe_many([]) == []
        assert len(router.detect_many(iter(pictures[:3]))) == 3


@pytest.mark.parametrize("single", ["photo.jpg", b"bytes"])
def test_one_input_is_not_a_list(single):
    """A path would be taken for a list of letters."""
    with Router([FakeBackend()]) as router, pytest.raises(InvalidRequestError, match="list"):
        router.describe_many(single)


def test_files_are_read_once_even_when_the_space_changes():
    """A stream cannot be rewound, so its image is kept for the next rung."""
    streams = [io.BytesIO(), io.BytesIO()]
    for width, stream in enumerate(streams, start=5):
        picture(width).save(stream, "PNG")
        stream.seek(0)
    best, spare = FakeBackend("best", space="a"), FakeBackend("spare", space="b")
    best.play(0.0, UnavailableError("It is down."))
    with Router([best, spare]) as router:
        vectors = router.embed_many(streams)
    assert [vector.space for vector in vectors] == ["b", "b"]


class Pipe(io.RawIOBase):
    """A file that can be read once, from its beginning."""

    def __init__(self, content):
        super().__init__()
        self._content = io.BytesIO(content)

    def readable(self):
        """Return True."""
        return True

    def readinto(self, buffer):
        """Read on."""
        return self._content.readinto(buffer)


def test_a_pipe_may_hold_as_many_bytes_as_an_image_and_no_more():
    """It is kept for the next space, so it is read before its size is known."""
    file = io.BytesIO()
    picture(40).save(file, "BMP")
    content = file.getvalue()
    with Router([FakeBackend()], image_limits=ImageLimits(max_bytes=len(content))) as router:
        fits, too_large = router.embed_many([Pipe(content), Pipe(content + b"x")])
    assert isinstance(fits, Embedding)
    assert isinstance(too_large, ImageTooLargeError)


def test_the_time_to_open_an_image_is_part_of_its_time():
    """Of the router's deadline for each image as of a call's own."""
    clock = FakeClock()

    class Slow(io.BytesIO):
        def read(self, *size):
            if not self.tell():
                clock.advance(3.0)
            return super().read(*size)

    file = io.BytesIO()
    picture(5).save(file, "PNG")
    best = FakeBackend(clock=clock)
    with Router([best], clock=clock, deadline_s=10.0) as router:
        assert router.describe(Slow(file.getvalue())).trace.elapsed_s == pytest.approx(3.0)
    assert best.calls[0].timeout_s == pytest.approx(7.0)


def test_a_batch_has_the_time_of_all_its_images(pictures):
    """Each brings its own; a rung that hangs does not get that of the others."""
    clock = FakeClock()
    best = FakeBackend(batch_size=4, clock=clock)
    with Router([best], clock=clock, deadline_s=10.0) as router:
        router.describe_many(pictures[:8])
    assert [call.timeout_s for call in best.calls] == [pytest.approx(40.0)] * 2


def test_the_same_picture_twice_in_a_list_is_asked_for_once():
    """The second has the first one's answer."""
    backend = FakeBackend()
    with Router([backend]) as router:
        first, second = router.describe_many([picture(5), picture(5)])
    assert (first.trace.cached, second.trace.cached) == (False, True)
    assert len(backend.calls) == 1


def test_a_deadline_for_all_of_them_is_shared(pictures):
    """When it is over, what is left says so."""
    clock = FakeClock()
    backend = FakeBackend(clock=clock)
    backend.play(6.0, 6.0)
    with Router([backend], clock=clock) as router:
        first, *rest = router.describe_many(pictures[:3], deadline_s=10.0)
    assert str(first) == "fake says: 1×10 px"
    assert isinstance(rest[-1], AllBackendsFailedError)
    assert rest[-1].attempts[0].error == "timed_out"


def test_the_ledger_has_a_row_for_each_attempt(pictures):
    """Except where a rung could never have answered."""
    store = MemoryStore()
    best, plain, spare = FakeBackend("best"), FakeBackend("plain", prompts=False), FakeBackend("spare")
    best.play(UnavailableError("It is down."))
    with Router([best, plain, spare], store=store) as router:
        router.describe(pictures[0], prompt="What is it?")
        rows = list(store.rows())
    assert [(row.backend, row.outcome, row.error) for row in rows] == [
        ("best", "failed", "unavailable"),
        ("spare", "answered", None),
    ]
    assert rows[0].call_id == rows[1].call_id


def test_many_threads_share_one_router(pictures):
    """Each gets its own answers."""
    with Router([FakeBackend(batch_size=4)]) as router:
        wrong = []

        def work(width):
            answer = router.describe(picture(width))
            if str(answer) != f"fake says: {width}×10 px":
                wrong.append(width)

        threads = [threading.Thread(target=work, args=(width,)) for width in range(1, 33)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_finding_nothing_is_an_answer(pictures):
    """An empty list of objects is not a failure."""
    backend = FakeBackend()
    backend.play(Detections(items=(), width=1, height=10), times=2)
    with Router([backend]) as router:
        assert len(router.detect(pictures[0])) == 0
        assert [len(found) for found in router.detect_many(pictures[:1])] == [0]


def ask(store, key, *, tenant=None):
    """Describe one picture with a key of a server; return how the answer came."""
    backends = [FakeBackend("server", local=False, credential=key), FakeBackend("spare")]
    with Router(backends, store=store, tenant=tenant) as router:
        return router.describe(picture(9)).trace.attempts[-1].outcome


def test_customers_of_a_server_share_no_cached_answers():
    """Each has paid for his own; who asks again with the same key has them."""
    store = MemoryStore()
    assert [ask(store, key) for key in ("one", "two", "one")] == ["answered", "answered", "cached"]


def test_a_name_for_those_who_share_outlives_their_keys():
    """And separates them from those who have another name, or none."""
    store = MemoryStore()
    assert [ask(store, key, tenant="us") for key in ("one", "two")] == ["answered", "cached"]
    assert [ask(store, "one", tenant="them"), ask(store, "one")] == ["answered", "answered"]


@pytest.mark.parametrize("options", [{}, {"priority": "batch", "max_wait_s": 0.0}])
def test_what_nobody_can_answer_keeps_nobody_from_asking_for_the_rest(options):
    """Whether the list waits for a better rung or not; the last window is asked for as the first was."""

    class Picky(FakeBackend):
        def describe(self, images, request, *, timeout_s):
            if images[0].width == 3:
                raise InvalidReplyError("It wrote nothing but its thoughts.", code="only_thoughts")
            return super().describe(images, request, timeout_s=timeout_s)

    with Router([Picky("one")], caching=False) as router:
        answers = router.describe_many([picture(width) for width in range(1, 201)], **options)
    assert isinstance(answers[2], AllBackendsFailedError)
    assert [str(answer) for answer in answers[3:]] == [f"one says: {width}×10 px" for width in range(4, 201)]
