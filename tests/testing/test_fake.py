"""The fake backend: what it answers by itself, and what it can be told to do."""

import asyncio

import pytest

from vision_backends import (
    FREE,
    TASKS,
    BackendError,
    DescribeRequest,
    Description,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    NotReadyError,
    NotSupportedError,
    QuotaExhaustedError,
    RateLimits,
    UnavailableError,
    Usage,
)
from vision_backends.testing import FakeAsyncBackend, FakeBackend, FakeCall, FakeClock

PLAIN = {
    "describe": DescribeRequest(),
    "embed": EmbedRequest(),
    "embed_text": EmbedTextRequest(),
    "detect": DetectRequest(),
}


def streamed(backend, image, clock=None):
    """Return what a stream yields and at last its record, one by one, while the clock runs as far as it asks for."""
    stream = backend.describe_stream(image, DescribeRequest(), timeout_s=1.0)
    if not isinstance(backend, FakeAsyncBackend):
        yield (yield from stream)
        return
    with asyncio.Runner() as runner:

        async def step():
            coming = asyncio.ensure_future(anext(stream, None))
            while not coming.done():
                await asyncio.sleep(0)
                if clock is not None and clock.pending:
                    clock.advance(clock.pending[0] - clock.monotonic())
            return await coming

        while (act := runner.run(step())) is not None:
            yield act


@pytest.fixture
def ask(make_image):
    """A caller of one task with one input, unless told otherwise."""

    def ask(backend, request, inputs=None, timeout_s=1.0):
        default = ["snow"] if request.task == "embed_text" else [make_image()]
        return getattr(backend, request.task)(default if inputs is None else inputs, request, timeout_s=timeout_s)

    return ask


def test_a_description_says_who_spoke_of_what(ask, make_image):
    """The name, the prompt and the size of the image are in the text."""
    backend = FakeBackend("bob")
    (plain,) = ask(backend, DescribeRequest(), [make_image(30, 20)])
    (prompted,) = ask(backend, DescribeRequest(prompt="Who?"), [make_image(30, 20)])
    assert plain.text == "bob says: 30×20 px"
    assert prompted.text == "bob says to 'Who?': 30×20 px"


def test_vectors_depend_on_the_content_alone(ask, make_image):
    """The same image gives the same vector, another one another, and every backend agrees."""
    (one, other, again) = ask(FakeBackend("bob"), EmbedRequest(), [make_image(), make_image(left="red"), make_image()])
    (elsewhere,) = ask(FakeBackend("eve"), EmbedRequest(), [make_image()])
    assert one.similarity(again) == pytest.approx(1.0)
    assert one.similarity(other) < 0.99
    assert one.similarity(elsewhere) == pytest.approx(1.0)
    assert one.dimension == 8


def test_texts_and_images_share_the_space_that_was_given(ask):
    """Hence they can be compared."""
    backend = FakeBackend(space="toy@2")
    (image,), (text,) = ask(backend, EmbedRequest()), ask(backend, EmbedTextRequest())
    assert image.space == text.space == "toy@2"
    assert -1.0 <= image.similarity(text) <= 1.0


@pytest.mark.parametrize(
    ("known", "wanted", "label"),
    [(None, None, "thing"), (("cat",), None, "cat"), (None, ("a dog", "a cat"), "a dog"), (("cat",), ("cat",), "cat")],
)
def test_the_first_label_is_found_in_the_middle(known, wanted, label, ask, make_image):
    """The one that was asked for, or else the first that it knows."""
    (found,) = ask(FakeBackend(labels=known), DetectRequest(labels=wanted), [make_image(80, 40)])
    assert [(item.label, item.xyxy) for item in found] == [(label, (20, 10, 60, 30))]
    assert (found.width, found.height) == (80, 40)


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_carries_its_model_and_its_cost(task, ask):
    """As the constructor was told; nothing is billed by default."""
    cost = Usage(input_tokens=10, output_tokens=None, cost_usd=0.5)
    (billed,) = ask(FakeBackend("bob", usage=cost), PLAIN[task])
    assert (billed.trace.model, billed.trace.revision, billed.trace.usage) == ("bob-model", "1", cost)
    (free,) = ask(FakeBackend("bob"), PLAIN[task])
    assert free.trace.usage == FREE


@pytest.mark.parametrize("task", TASKS)
def test_a_task_that_it_was_not_given_is_not_supported(task):
    """It names no model for it."""
    backend = FakeBackend(tasks=[each for each in TASKS if each != task])
    with pytest.raises(NotSupportedError, match=f"has no {task}"):
        backend.model_for(PLAIN[task])


def test_calls_are_recorded(ask, make_image):
    """In order, with what was asked, of how many inputs, and how long it might take."""
    backend = FakeBackend()
    ask(backend, DescribeRequest(prompt="Who?"), [make_image(), make_image()], timeout_s=2.5)
    ask(backend, EmbedTextRequest(), ["a", "b", "c"])
    assert backend.calls == [
        FakeCall(request=DescribeRequest(prompt="Who?"), count=2, timeout_s=2.5),
        FakeCall(request=EmbedTextRequest(), count=3, timeout_s=1.0),
    ]


def test_a_scripted_error_is_raised_once(ask):
    """Afterwards it answers by itself again; the call counts."""
    backend = FakeBackend()
    error = QuotaExhaustedError("No quota left.")
    backend.play(error)
    with pytest.raises(QuotaExhaustedError) as caught:
        ask(backend, DescribeRequest())
    assert caught.value is error
    assert isinstance(ask(backend, DescribeRequest())[0], Description)
    assert len(backend.calls) == 2


def test_a_scripted_record_answers_every_input(ask, make_image):
    """Even one of the wrong kind, which is what routers have to be tested with."""
    backend = FakeBackend()
    said = Description(text="As scripted.")
    backend.play(said)
    assert ask(backend, DetectRequest(), [make_image(), make_image()]) == [said, said]


@pytest.mark.parametrize("seconds", [0, 1, 0.5])
def test_a_scripted_delay_passes_on_the_clock(seconds, ask):
    """The answer comes afterwards, and no real time is lost."""
    clock = FakeClock()
    backend = FakeBackend(clock=clock)
    backend.play(seconds)
    before = clock.monotonic()
    assert isinstance(ask(backend, DescribeRequest())[0], Description)
    assert clock.monotonic() - before == seconds


def test_a_delay_is_not_cut_at_the_timeout_of_the_call(ask):
    """To do that is up to the router, which is what a fake is there to test."""
    clock = FakeClock()
    backend = FakeBackend(clock=clock)
    backend.play(5.0)
    assert ask(backend, DescribeRequest(), timeout_s=2.0)
    assert clock.monotonic() == 5.0


def test_a_scripted_text_describes_every_image(ask, make_image):
    """With the model that answered."""
    backend = FakeBackend("bob")
    backend.play("A bicycle.")
    one, other = ask(backend, DescribeRequest(), [make_image(), make_image()])
    assert one.text == other.text == "A bicycle."
    assert one.trace.model == "bob-model"


@pytest.mark.parametrize("kind", [FakeBackend, FakeAsyncBackend])
def test_a_stream_yields_its_scripted_pieces_and_then_the_record(kind, make_image):
    """The pauses between them pass on the clock, before the pieces that follow."""
    clock = FakeClock()
    backend = kind(clock=clock)
    backend.play([1.5, "A red ", 0.5, "bicycle."])
    acts = [(clock.monotonic(), act) for act in streamed(backend, make_image(), clock)]
    assert acts[:2] == [(1.5, "A red "), (2.0, "bicycle.")]
    assert [act.text for _, act in acts[2:]] == ["A red bicycle."]


@pytest.mark.parametrize("kind", [FakeBackend, FakeAsyncBackend])
def test_an_unscripted_stream_is_one_piece(kind, make_image):
    """All at once."""
    piece, record = streamed(kind("bob"), make_image(30, 20))
    assert piece == record.text == "bob says: 30×20 px"


@pytest.mark.parametrize("kind", [FakeBackend, FakeAsyncBackend])
def test_a_stream_can_break_off_in_the_middle(kind, make_image):
    """After the pieces that were scripted before the error."""
    backend, pieces = kind(), []
    backend.play(["A red ", UnavailableError("It went away.")])
    with pytest.raises(UnavailableError):
        pieces.extend(streamed(backend, make_image()))
    assert pieces == ["A red "]
    assert backend.cancelled == []


def test_a_stream_that_is_closed_is_noted(make_image):
    """The caller stopped listening."""
    backend = FakeBackend()
    backend.play(["A red ", "bicycle."])
    stream = backend.describe_stream(make_image(), DescribeRequest(), timeout_s=1.0)
    assert backend.calls == []
    assert next(stream) == "A red "
    stream.close()
    assert backend.cancelled == backend.calls == [FakeCall(request=DescribeRequest(), count=1, timeout_s=1.0)]


@pytest.mark.parametrize("task", TASKS)
def test_a_coroutine_answers_what_the_plain_method_does(task, ask):
    """Both kinds have one script."""
    plain, later = FakeBackend(), FakeAsyncBackend()
    (one,), (other,) = ask(plain, PLAIN[task]), asyncio.run(ask(later, PLAIN[task]))
    assert one.to_dict() == other.to_dict()
    assert later.calls == plain.calls


def test_an_awaited_delay_is_a_timer_of_the_clock(ask):
    """It ends when the test has advanced that far, and no earlier."""
    clock = FakeClock()
    backend = FakeAsyncBackend(clock=clock)
    backend.play(5.0)

    async def run():
        call = asyncio.create_task(ask(backend, DescribeRequest(), timeout_s=2.0))
        await asyncio.sleep(0)
        assert clock.pending == [5.0]
        clock.advance(4.9)
        await asyncio.sleep(0.01)
        assert not call.done()
        clock.advance(0.2)
        assert await call

    asyncio.run(run())
    assert (clock.pending, backend.cancelled) == ([], [])


def test_a_cancelled_coroutine_is_noted_and_leaves_no_timer(ask):
    """The next call answers as ever."""
    clock = FakeClock()
    backend = FakeAsyncBackend(clock=clock)
    backend.play(5.0)

    async def run():
        call = asyncio.create_task(ask(backend, DescribeRequest()))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await ask(backend, DescribeRequest())

    asyncio.run(run())
    assert (clock.pending, backend.cancelled) == ([], backend.calls[:1])


def test_a_timer_around_an_awaited_delay_cuts_it(ask):
    """With the same clock, as a router's deadline does; at the same moment the outer one wins."""
    clock = FakeClock()
    backend = FakeAsyncBackend(clock=clock)
    backend.play(5.0, 5.0)

    async def run(timeout_s):
        async with clock.timeout_at(clock.monotonic() + timeout_s):
            asyncio.get_running_loop().call_soon(clock.advance, timeout_s)
            await ask(backend, DescribeRequest())

    for timeout_s in (2.0, 5.0):
        with pytest.raises(TimeoutError):
            asyncio.run(run(timeout_s))
    assert backend.cancelled == backend.calls


def test_a_script_is_played_in_order_and_as_often_as_told(ask):
    """Scripts can be added to each other."""
    backend = FakeBackend()
    first, second = Description(text="first"), Description(text="second")
    backend.play(first, second, times=2)
    backend.play(BackendError("the end"))
    texts = [ask(backend, DescribeRequest())[0].text for _ in range(4)]
    assert texts == ["first", "second", "first", "second"]
    with pytest.raises(BackendError, match="the end"):
        ask(backend, DescribeRequest())


def test_instructions_can_be_switched_off():
    """A captioning model follows none."""
    backend = FakeBackend(prompts=False)
    backend.check(DescribeRequest())
    with pytest.raises(NotSupportedError, match="does not follow instructions"):
        backend.check(DescribeRequest(prompt="Who?"))


def test_a_vocabulary_can_be_closed():
    """Labels outside it are not supported, and named."""
    backend = FakeBackend(labels=["cat", "dog"])
    backend.check(DetectRequest())
    backend.check(DetectRequest(labels=("cat",)))
    with pytest.raises(NotSupportedError, match="emu"):
        backend.check(DetectRequest(labels=("cat", "emu")))
    FakeBackend().check(DetectRequest(labels=("emu",)))


def test_it_can_become_ready():
    """Weights arrive while a router is running."""
    backend = FakeBackend(not_ready=NotReadyError("Loading."))
    with pytest.raises(NotReadyError, match="Loading"):
        backend.check(DescribeRequest())
    backend.not_ready = None
    backend.check(DescribeRequest())


def test_everything_that_a_router_asks_a_backend_can_be_set():
    """Whatever the test is about."""
    limits = RateLimits(remaining_requests=3)
    backend = FakeBackend(
        "bob", local=False, credential="account", limits=limits, batch_size=4, concurrency=2, space="toy"
    )
    request = EmbedRequest()
    assert (backend.name, backend.local, backend.credential) == ("bob", False, "account")
    assert (backend.rate_limits(request), backend.batch_size(request), backend.concurrency(request)) == (limits, 4, 2)
    assert backend.model_for(request).space == "toy"
    assert backend.model_for(DescribeRequest()).space is None
