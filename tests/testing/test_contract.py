"""The contract holds for the fake, and every clause of it catches a backend that breaks it."""

# ruff: noqa: D102 — the class says what its one method does wrong

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from vision_backends import ConfigError, Description, NotReadyError, NotSupportedError, OverloadedError, Trace
from vision_backends.testing import BackendContract, FakeAsyncBackend, FakeBackend

CLAUSES = [name for name in vars(BackendContract) if name.startswith("test_")]


class TestFakeBackend(BackendContract):
    """The fake is a backend like any other."""

    def make_backend(self):
        return FakeBackend()


class TestFakeAsyncBackend(BackendContract):
    """So is the asynchronous one."""

    def make_backend(self):
        return FakeAsyncBackend()


class TestFakeBackendThatOnlyDetects(BackendContract):
    """A backend need not do everything."""

    def make_backend(self):
        return FakeBackend(tasks=["detect"])


class TestFakeBackendWithoutDetections(BackendContract):
    """Nor need it find objects."""

    def make_backend(self):
        return FakeBackend(tasks=["describe", "embed", "embed_text"])


class Nameless(FakeBackend):
    """Has no name."""

    def __init__(self):
        super().__init__("")


class Idle(FakeBackend):
    """Can do nothing."""

    def __init__(self):
        super().__init__(tasks=[])


class Unready(FakeBackend):
    """Is never ready."""

    def __init__(self):
        super().__init__(not_ready=NotReadyError("Loading."))


class Fickle(FakeBackend):
    """Names another model each time."""

    def model_for(self, request):
        self.revision = getattr(self, "revision", 0) + 1
        return replace(super().model_for(request), revision=str(self.revision))


class Spaceless(FakeBackend):
    """Announces no space for its embeddings."""

    def model_for(self, request):
        return replace(super().model_for(request), space=None)


class Overstating(FakeBackend):
    """Announces a space for its descriptions."""

    def model_for(self, request):
        return replace(super().model_for(request), space="words")


class Indifferent(FakeBackend):
    """Takes any model for its own."""

    def with_model(self, model, request):
        return self


class Turning(FakeBackend):
    """Answers with the model of one call from then on."""

    _turned = None

    def with_model(self, model, request):
        self._turned = model
        return self

    def model_for(self, request):
        model = super().model_for(request)
        if self._turned is None or model.name == self._turned:
            return model
        return replace(model, name=self._turned, space=model.space and self._turned)


class Contradictory(FakeBackend):
    """Answers what it has refused."""

    def check(self, request):
        if request.task == "describe":
            raise NotSupportedError("It has no describe.")


class Backwards(FakeBackend):
    """Answers in the wrong order."""

    def describe(self, images, request, *, timeout_s):
        return super().describe(images, request, timeout_s=timeout_s)[::-1]


class BackwardsBoxes(FakeBackend):
    """Finds the objects of the last image in the first one."""

    def detect(self, images, request, *, timeout_s):
        return super().detect(images[::-1], request, timeout_s=timeout_s)


class BackwardsVectors(FakeBackend):
    """Embeds in the wrong order."""

    def embed_text(self, texts, request, *, timeout_s):
        return super().embed_text(texts, request, timeout_s=timeout_s)[::-1]


class Forgetful(FakeBackend):
    """Leaves the last input out."""

    def embed(self, images, request, *, timeout_s):
        found = super().embed(images, request, timeout_s=timeout_s)
        return found[:-1] if len(found) > 1 else found


class Confused(FakeBackend):
    """Describes what should be detected."""

    def detect(self, images, request, *, timeout_s):
        return [Description(text="a thing", trace=Trace(model="fake-model")) for _ in images]


class Anonymous(FakeBackend):
    """Does not say which model has answered."""

    def describe(self, images, request, *, timeout_s):
        return [replace(each, trace=Trace()) for each in super().describe(images, request, timeout_s=timeout_s)]


class Talkative(FakeBackend):
    """Replies to each image of a question."""

    def ask(self, questions, request, *, timeout_s):
        alone = [[image] for images in questions for image in images]
        return super().ask(alone, request, timeout_s=timeout_s)


class Formless(FakeBackend):
    """Answers in prose, whatever form is wanted."""

    def ask(self, questions, request, *, timeout_s):
        return [replace(reply, data=None) for reply in super().ask(questions, request, timeout_s=timeout_s)]


class Wandering(FakeBackend):
    """Embeds texts in another space than it announces."""

    def embed_text(self, texts, request, *, timeout_s):
        return [replace(each, space="elsewhere") for each in super().embed_text(texts, request, timeout_s=timeout_s)]


class Stretching(FakeBackend):
    """Cuts its second vector short."""

    def embed(self, images, request, *, timeout_s):
        found = super().embed(images, request, timeout_s=timeout_s)
        return [replace(each, vector=[1.0, *[0.0] * place]) for place, each in enumerate(found)]


class Shrinking(FakeBackend):
    """Reports boxes in the pixels of its own input, not of the image."""

    def detect(self, images, request, *, timeout_s):
        found = super().detect(images, request, timeout_s=timeout_s)
        return [replace(each, width=416, height=416) for each in found]


class Scribbling(FakeBackend):
    """Changes the image that the next rung will see."""

    def describe(self, images, request, *, timeout_s):
        for image in images:
            image._pixels.putpixel((0, 0), (1, 2, 3))
        return super().describe(images, request, timeout_s=timeout_s)


class Crowded(FakeBackend):
    """Mixes up callers that come at once."""

    def __init__(self):
        super().__init__()
        self.inside = threading.Semaphore(1)

    def describe(self, images, request, *, timeout_s):
        alone = self.inside.acquire(blocking=False)
        if not alone:
            return [Description(text="Whose is this?", trace=self._trace) for _ in images]
        try:
            time.sleep(0.05)
            return super().describe(images, request, timeout_s=timeout_s)
        finally:
            self.inside.release()


class Mumbling(FakeBackend):
    """Streams something else than it returns."""

    def describe_stream(self, image, request, *, timeout_s):
        yield "Er."
        (description,) = self.describe([image], request, timeout_s=timeout_s)
        return description


class Trailing(FakeBackend):
    """Ends its stream without a record."""

    def describe_stream(self, image, request, *, timeout_s):
        (description,) = self.describe([image], request, timeout_s=timeout_s)
        yield description.text


class Unending(FakeAsyncBackend):
    """Ends its stream without a record, as a coroutine."""

    async def describe_stream(self, image, request, *, timeout_s):
        (description,) = await self.describe([image], request, timeout_s=timeout_s)
        yield description.text


class Hasty(FakeAsyncBackend):
    """Yields the record before the pieces."""

    async def describe_stream(self, image, request, *, timeout_s):
        (description,) = await self.describe([image], request, timeout_s=timeout_s)
        yield description
        yield description.text


class Hogging(FakeAsyncBackend):
    """Takes what a stream needs, and gives it back only at its very end."""

    taken = False

    async def describe_stream(self, image, request, *, timeout_s):
        if self.taken:
            yield "Still at it."
            return
        self.taken = True
        (description,) = await self.describe([image], request, timeout_s=timeout_s)
        yield description.text
        yield description
        self.taken = False


class HoggingPlainly(FakeBackend):
    """Likewise, as a plain generator."""

    taken = False

    def describe_stream(self, image, request, *, timeout_s):
        if self.taken:
            yield "Still at it."
            return None
        self.taken = True
        (description,) = self.describe([image], request, timeout_s=timeout_s)
        yield description.text
        self.taken = False
        return description


class Muddled(FakeAsyncBackend):
    """Mixes up calls that run together."""

    running = 0

    async def describe(self, images, request, *, timeout_s):
        self.running += 1
        try:
            await asyncio.sleep(0.005)
            if self.running > 1:
                return [Description(text="Whose is this?", trace=self._trace) for _ in images]
            return await super().describe(images, request, timeout_s=timeout_s)
        finally:
            self.running -= 1


class Stubborn(FakeAsyncBackend):
    """Goes on after it was cancelled."""

    async def embed(self, images, request, *, timeout_s):
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            raise
        return await super().embed(images, request, timeout_s=timeout_s)


class Inviting(FakeBackend):
    """Names a space in which it does not answer."""

    def spaces(self, request):
        return (*super().spaces(request), *(("elsewhere",) if request.task == "embed" else ()))


class Scarred(FakeAsyncBackend):
    """Keeps what a cancelled call held."""

    taken = False

    async def detect(self, images, request, *, timeout_s):
        if self.taken:
            raise OverloadedError("Still at it.")
        self.taken = True
        await asyncio.sleep(0.01)
        self.taken = False
        return await super().detect(images, request, timeout_s=timeout_s)


class Clinging(FakeAsyncBackend):
    """Breaks when its connections are closed again."""

    closed = False

    async def aclose(self):
        if self.closed:
            raise RuntimeError("closed twice")
        self.closed = True


class Warming(FakeBackend):
    """Answers something else once it is warm."""

    def describe(self, images, request, *, timeout_s):
        said = super().describe(images, request, timeout_s=timeout_s)
        return [replace(each, text="Ready!") for each in said] if self.warm_ups else said


class Chilly(FakeBackend):
    """Is not ready after it was made ready."""

    def warm_up(self, request):
        super().warm_up(request)
        self.not_ready = NotReadyError("Too cold.")


class Demanding(FakeBackend):
    """Cannot be made from an empty table."""

    def __init__(self, *, name: str):
        super().__init__(name)


class Fragile(FakeBackend):
    """Breaks when it is closed again."""

    closed = False

    def close(self):
        if self.closed:
            raise RuntimeError("closed twice")
        self.closed = True


BREACHES = [
    (Nameless, "test_it_has_a_name_and_at_least_one_task", AssertionError),
    (Idle, "test_it_has_a_name_and_at_least_one_task", AssertionError),
    (Unready, "test_it_has_a_name_and_at_least_one_task", AssertionError),
    (Fickle, "test_it_names_its_model_the_same_way_every_time", AssertionError),
    (Spaceless, "test_it_names_its_model_the_same_way_every_time", AssertionError),
    (Overstating, "test_it_names_its_model_the_same_way_every_time", AssertionError),
    (Indifferent, "test_another_model_is_the_same_rung_or_a_typed_refusal", AssertionError),
    (Turning, "test_another_model_is_the_same_rung_or_a_typed_refusal", AssertionError),
    (Inviting, "test_it_names_every_space_that_may_be_pinned", AssertionError),
    (Contradictory, "test_what_it_cannot_do_is_a_typed_refusal", AssertionError),
    (Backwards, "test_it_answers_a_list_with_a_list_in_the_same_order", AssertionError),
    (BackwardsVectors, "test_it_answers_a_list_with_a_list_in_the_same_order", AssertionError),
    (Forgetful, "test_it_answers_a_list_with_a_list_in_the_same_order", AssertionError),
    (Confused, "test_it_answers_a_list_with_a_list_in_the_same_order", AssertionError),
    (Anonymous, "test_every_answer_names_its_model", AssertionError),
    (Talkative, "test_a_question_about_several_images_has_one_reply", ValueError),
    (Formless, "test_a_question_about_several_images_has_one_reply", AssertionError),
    (Wandering, "test_embeddings_live_in_the_announced_space", AssertionError),
    (Stretching, "test_embeddings_live_in_the_announced_space", AssertionError),
    (BackwardsBoxes, "test_boxes_are_in_pixels_of_the_upright_image", AssertionError),
    (Shrinking, "test_boxes_are_in_pixels_of_the_upright_image", AssertionError),
    (Scribbling, "test_images_are_left_as_they_were", AssertionError),
    (Crowded, "test_many_threads_may_ask_simultaneously", AssertionError),
    (Muddled, "test_many_calls_of_one_loop_give_the_answers_of_one", AssertionError),
    (Stubborn, "test_a_cancelled_call_ends_soon_and_leaves_the_backend_usable", AssertionError),
    (Scarred, "test_a_cancelled_call_ends_soon_and_leaves_the_backend_usable", OverloadedError),
    (Mumbling, "test_a_stream_is_made_of_pieces_and_ends_with_the_record", AssertionError),
    (Trailing, "test_a_stream_is_made_of_pieces_and_ends_with_the_record", AssertionError),
    (Unending, "test_a_stream_is_made_of_pieces_and_ends_with_the_record", AssertionError),
    (Hasty, "test_a_stream_is_made_of_pieces_and_ends_with_the_record", AssertionError),
    (Hogging, "test_a_stream_can_be_left_early", AssertionError),
    (HoggingPlainly, "test_a_stream_can_be_left_early", AssertionError),
    (Warming, "test_warming_it_up_changes_no_answer", AssertionError),
    (Chilly, "test_warming_it_up_changes_no_answer", NotReadyError),
    (Demanding, "test_it_can_be_configured", ConfigError),
    (Fragile, "test_closing_twice_is_harmless", RuntimeError),
    (Clinging, "test_closing_twice_is_harmless", RuntimeError),
]


def contract_of(kind):
    """Return the contract for a kind of backend, to be run clause by clause."""

    class Contract(BackendContract):
        def make_backend(self):
            return kind(name="demanding") if kind is Demanding else kind()

    return Contract()


@pytest.mark.parametrize(("kind", "clause", "failure"), BREACHES, ids=lambda value: getattr(value, "__name__", value))
def test_a_backend_that_breaks_the_contract_fails_its_clause(kind, clause, failure):
    """Each backend is wrong in one way, and the clause about it says so."""
    with pytest.raises(failure):
        getattr(contract_of(kind), clause)()


@pytest.mark.parametrize("clause", CLAUSES)
def test_every_clause_has_a_backend_that_breaks_it(clause):
    """A clause that cannot fail protects nobody; the fake itself passes."""
    assert clause in {breached for _, breached, _ in BREACHES}
    getattr(contract_of(FakeBackend), clause)()
    getattr(contract_of(FakeAsyncBackend), clause)()


def test_whoever_makes_no_backend_is_told():
    """The contract cannot guess what to test."""
    with pytest.raises(NotImplementedError):
        getattr(BackendContract(), CLAUSES[0])()
