"""The tests that every backend has to pass, plain or asynchronous, built in or third-party.

This module decides what a router may rely on. Subclass `BackendContract` in a test module, define how the backend is
made, and pytest runs the rest::

    class TestMine(BackendContract):
        def make_backend(self):
            return MyBackend()
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, contextmanager
from typing import TYPE_CHECKING, Any

from vision_backends.backends.base import AsyncBackend
from vision_backends.backends.requests import AskRequest, DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.config.validation import parse_table
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import BackendError, NotSupportedError
from vision_backends.images import open_image
from vision_backends.images.several import Images
from vision_backends.types import Description, Detections, Embedding, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Request
    from vision_backends.images import Image

__all__ = ["BackendContract"]

REQUESTS: tuple[Request, ...] = (DescribeRequest(), EmbedRequest(), EmbedTextRequest(), DetectRequest())

RECORDS: dict[str, type] = {
    "describe": Description,
    "embed": Embedding,
    "embed_text": Embedding,
    "detect": Detections,
}


class BackendContract:
    """Subclass it and define `make_backend`; override `images` if the backend needs particular ones.

    Attributes:
        timeout_s: Seconds that one call may take.
        cancel_s: Seconds within which a cancelled call of an asynchronous backend has to end.
    """

    timeout_s = 60.0
    cancel_s = 0.2

    def make_backend(self) -> Backend:
        """Return a new backend that is ready to answer."""
        raise NotImplementedError

    def images(self) -> list[Image]:
        """Return three different images; by default of two colours each."""
        from PIL import Image as PILImage

        sizes = ((96, 64), (64, 96), (80, 80))
        left, right = ("red", "white", "navy"), ("black", "green", "orange")
        made = []
        for size, first, second in zip(sizes, left, right, strict=True):
            picture = PILImage.new("RGB", size, first)
            picture.paste(second, (size[0] // 2, 0, *size))
            made.append(open_image(picture))
        return made

    def test_it_has_a_name_and_at_least_one_task(self) -> None:
        """A ladder needs the name, and a backend without tasks would be useless on it."""
        with self._backend() as backend:
            assert backend.name
            assert self._supported(backend)

    def test_it_names_its_model_the_same_way_every_time(self) -> None:
        """Cache keys and gates depend on the model."""
        with self._backend() as backend:
            for request in self._supported(backend):
                model = backend.model_for(request)
                assert model.name
                assert model == backend.model_for(request)
                assert (model.space is not None) == (request.task in {"embed", "embed_text"})

    def test_another_model_is_the_same_rung_or_a_typed_refusal(self) -> None:
        """The one that it has changes nothing; any other has its own name, and for vectors its own space."""
        with self._backend() as backend:
            for request in self._supported(backend):
                model = backend.model_for(request)
                assert backend.with_model(model.name, request).model_for(request) == model
                try:
                    other = backend.with_model("another-model", request)
                except NotSupportedError:
                    continue
                named = other.model_for(request)
                assert (other.name, other.credential, other.local) == (backend.name, backend.credential, backend.local)
                assert named.name == "another-model"
                assert named.space is None or named.space != model.space
                assert backend.model_for(request) == model

    def test_it_names_every_space_that_may_be_pinned(self) -> None:
        """The one of `model_for` comes first; each that is named is answered in."""
        with self._backend() as backend:
            for request in self._supported(backend):
                spaces = backend.spaces(request)
                assert spaces[:1] == ((backend.model_for(request).space,) if spaces else ())
                for space in spaces:
                    pinned = (EmbedRequest if request.task == "embed" else EmbedTextRequest)(space=space)
                    assert backend.model_for(pinned).space == space
                    (answer,) = self._ask(backend, pinned, self._inputs(pinned)[:1])
                    assert answer.space == space

    def test_what_it_cannot_do_is_a_typed_refusal(self) -> None:
        """A task that it lacks raises NotSupportedError from both `model_for` or `check` and the task itself."""
        with self._backend() as backend:
            for request in REQUESTS:
                if request not in self._supported(backend):
                    try:
                        self._ask(backend, request, self._inputs(request)[:1])
                    except NotSupportedError:
                        continue
                    raise AssertionError(f"{request.task} is refused by check but answered by the task")

    def test_it_answers_a_list_with_a_list_in_the_same_order(self) -> None:
        """N inputs give n records of the right kind, and the same ones as asking for each alone."""
        with self._backend() as backend:
            for request in self._supported(backend):
                inputs = self._inputs(request)
                together = self._ask(backend, request, inputs)
                assert [type(answer) for answer in together] == [RECORDS[request.task]] * len(inputs)
                alone = [self._ask(backend, request, [each])[0] for each in inputs]
                for one, other in zip(together, alone, strict=True):
                    assert _alike(one, other), f"{request.task}: {one} in a list, {other} alone"

    def test_every_answer_names_its_model(self) -> None:
        """The trace says which model answered."""
        with self._backend() as backend:
            for request in self._supported(backend):
                for answer in self._ask(backend, request, self._inputs(request)):
                    assert answer.trace.model

    def test_a_question_about_several_images_has_one_reply(self) -> None:
        """Which says who gave it; with a schema, its data follows that. Who follows no instructions says so."""
        schema = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
        with self._backend() as backend:
            for count in (1, 2):
                images = Images(self.images()[:count])
                for form in (None, json.dumps(schema)):
                    request = AskRequest(prompt="How many things are here?", images=count, schema=form)
                    try:
                        backend.check(request)
                        backend.model_for(request)
                    except BackendError:
                        continue
                    (reply,) = self._ask(backend, request, [images])
                    assert isinstance(reply, Reply)
                    assert reply.trace.model
                    assert (form is None) == (reply.data is None)
                    assert form is None or isinstance(reply.data["number"], int)

    def test_embeddings_live_in_the_announced_space(self) -> None:
        """The space of a vector is the one that `model_for` announced, and texts share it with images."""
        with self._backend() as backend:
            for request in self._supported(backend):
                if request.task in {"embed", "embed_text"}:
                    space = backend.model_for(request).space
                    answers = self._ask(backend, request, self._inputs(request))
                    assert {answer.space for answer in answers} == {space}
                    assert len({answer.dimension for answer in answers}) == 1

    def test_boxes_are_in_pixels_of_the_upright_image(self) -> None:
        """Detections state the full size of the image that they were made from."""
        with self._backend() as backend:
            if DetectRequest() in self._supported(backend):
                images = self.images()
                found = self._ask(backend, DetectRequest(), images)
                assert [(each.width, each.height) for each in found] == [
                    (image.width, image.height) for image in images
                ]

    def test_images_are_left_as_they_were(self) -> None:
        """The next rung gets the same pixels."""
        with self._backend() as backend:
            for request in self._supported(backend):
                if request.task != "embed_text":
                    images = self.images()
                    before = [image.rgb().tobytes() for image in images]
                    self._ask(backend, request, images)
                    assert [image.rgb().tobytes() for image in images] == before

    def test_many_threads_may_ask_simultaneously(self) -> None:
        """Four threads get the same answers as one."""
        with self._backend() as backend, ThreadPoolExecutor(4) as pool:
            for request in self._supported(backend):
                inputs = self._inputs(request)
                alone = self._ask(backend, request, inputs)
                jobs = [pool.submit(self._ask, backend, request, inputs) for _ in range(4)]
                for job in jobs:
                    assert all(map(_alike, alone, job.result()))

    def test_many_calls_of_one_loop_give_the_answers_of_one(self) -> None:
        """Sixteen coroutines of an asynchronous backend do not interfere with each other."""

        async def gather(backend: Backend, request: Request, inputs: Sequence[Any]) -> list[list[Any]]:
            return await asyncio.gather(*(self._call(backend, request, inputs) for _ in range(16)))

        with self._backend() as backend:
            for request in self._supported(backend) if isinstance(backend, AsyncBackend) else ():
                inputs = self._inputs(request)[:2]
                alone = self._ask(backend, request, inputs)
                for together in engine_loop().run(lambda: gather(backend, request, inputs)):  # noqa: B023 — run immediately
                    assert all(map(_alike, alone, together)), f"{request.task}: {together} beside others, {alone} alone"

    def test_a_cancelled_call_ends_soon_and_leaves_the_backend_usable(self) -> None:
        """It does so wherever an asynchronous backend was at that moment."""

        async def cancel(backend: Backend, request: Request, inputs: Sequence[Any], after_s: float) -> None:
            call = asyncio.ensure_future(self._call(backend, request, inputs))
            await asyncio.sleep(after_s)
            call.cancel()
            _, pending = await asyncio.wait([call], timeout=self.cancel_s)
            assert not pending, f"{request.task} did not end within {self.cancel_s} s of its cancellation"

        with self._backend() as backend:
            for request in self._supported(backend) if isinstance(backend, AsyncBackend) else ():
                inputs = self._inputs(request)[:1]
                before = self._ask(backend, request, inputs)
                for after_s in (0.0, 0.002, 0.02):
                    engine_loop().run(lambda: cancel(backend, request, inputs, after_s))  # noqa: B023 — run immediately
                after = self._ask(backend, request, inputs)
                assert all(map(_alike, before, after)), f"{request.task}: {before} before, {after} after a cancellation"

    def test_a_stream_is_made_of_pieces_and_ends_with_the_record(self) -> None:
        """The pieces are the text of the record, which a plain backend returns and an asynchronous one yields last."""
        with self._backend() as backend:
            if DescribeRequest() in self._supported(backend):
                *pieces, record = self._stream(backend)
                assert isinstance(record, Description)
                assert all(isinstance(piece, str) for piece in pieces)
                assert "".join(pieces).split() == record.text.split()
                assert record.trace.model

    def test_a_stream_can_be_left_early(self) -> None:
        """The next one is complete again."""
        with self._backend() as backend:
            if DescribeRequest() in self._supported(backend):
                assert len(self._stream(backend, length=1)) == 1
                assert isinstance(self._stream(backend)[-1], Description)

    def test_warming_it_up_changes_no_answer(self) -> None:
        """It returns once the backend is ready, as often as it is called, and leaves it ready."""
        with self._backend() as backend:
            for request in self._supported(backend):
                (before,) = self._ask(backend, request, self._inputs(request)[:1])
                backend.warm_up(request)
                backend.warm_up(request)
                backend.check(request)
                (after,) = self._ask(backend, request, self._inputs(request)[:1])
                assert _alike(before, after)

    def test_it_can_be_configured(self) -> None:
        """The types in its constructor can be read, so that a table in vision.toml can be checked."""
        with self._backend() as backend:
            assert parse_table(type(backend), {}, section="[contract]") == {}

    def test_closing_twice_is_harmless(self) -> None:
        """A second close has nothing left to release."""
        backend = self.make_backend()
        _close(backend)
        _close(backend)

    @contextmanager
    def _backend(self) -> Iterator[Backend]:
        backend = self.make_backend()
        try:
            yield backend
        finally:
            _close(backend)

    def _supported(self, backend: Backend) -> list[Request]:
        supported: list[Request] = []
        for request in REQUESTS:
            try:
                backend.model_for(request)
                backend.check(request)
            except BackendError:
                continue
            supported.append(request)
        return supported

    def _inputs(self, request: Request) -> Sequence[Any]:
        return ["a red bicycle", "two cats", "snow"] if request.task == "embed_text" else self.images()

    def _ask(self, backend: Backend, request: Request, inputs: Sequence[Any]) -> list[Any]:
        if isinstance(backend, AsyncBackend):
            return engine_loop().run(lambda: self._call(backend, request, inputs))
        answers: list[Any] = getattr(backend, request.task)(inputs, request, timeout_s=self.timeout_s)
        return answers

    async def _call(self, backend: Backend, request: Request, inputs: Sequence[Any]) -> list[Any]:
        answers: list[Any] = await getattr(backend, request.task)(inputs, request, timeout_s=self.timeout_s)
        return answers

    def _stream(self, backend: Backend, *, length: int | None = None) -> list[Any]:
        """Return the first pieces of a stream, or all of them and the record."""
        image = self.images()[0]
        found: list[Any] = []
        if isinstance(backend, AsyncBackend):

            async def listen() -> None:
                stream: Any = backend.describe_stream(image, DescribeRequest(), timeout_s=self.timeout_s)
                async with aclosing(stream):
                    async for act in stream:
                        found.append(act)
                        if len(found) == length:
                            break

            engine_loop().run(listen)
            return found
        with closing(backend.describe_stream(image, DescribeRequest(), timeout_s=self.timeout_s)) as pieces:
            while len(found) != length:
                try:
                    found.append(next(pieces))
                except StopIteration as end:
                    return [*found, end.value]
        return found


def _close(backend: Backend) -> None:
    if isinstance(backend, AsyncBackend):
        engine_loop().run(backend.aclose)
    backend.close()


def _alike(one: Any, other: Any) -> bool:  # noqa: ANN401 — any pair of records
    """Whether two answers are the same, apart from rounding and their traces."""
    if isinstance(one, Embedding):
        return bool(one.space == other.space and one.similarity(other) > 0.999)
    if isinstance(one, Detections):
        return [item.label for item in one] == [item.label for item in other]
    return bool(one.text == other.text)
