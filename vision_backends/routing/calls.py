"""From a request and its options to what the caller gets: one coroutine on the engine's event loop, and who waits.

This module decides which rungs a call may ask, what of it is done in the caller's thread, and when it is over: written
down, and its listeners told. `Calls` waits for the coroutine, `AwaitedCalls` returns what is to be awaited. It must not
know what requests mean, nor how a rung is asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vision_backends.arguments import check_iterable, iterate, shown
from vision_backends.backends.requests import AskRequest, EmbedRequest
from vision_backends.backends.structured import with_instance
from vision_backends.clock import Deadline
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import InvalidRequestError, VisionError
from vision_backends.routing.call import Call, Item
from vision_backends.routing.each import Room, answer_each, answer_each_async
from vision_backends.routing.inputs import opens_quickly
from vision_backends.routing.options import CallKeywords, CallOptions
from vision_backends.routing.pipeline import failure
from vision_backends.routing.places import ListPlaces
from vision_backends.routing.streaming import AsyncDescriptionStream, DescriptionStream
from vision_backends.routing.trace import complete
from vision_backends.storage.bounded import store_time
from vision_backends.types import Description, Detections, Embedding, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import DescribeRequest, Request
    from vision_backends.clock import Clock
    from vision_backends.engine.cancellation import RunningCalls
    from vision_backends.health.budgets import Limits
    from vision_backends.images import ImageSource
    from vision_backends.observability.events import Events
    from vision_backends.routing.inputs import Inputs, Opened
    from vision_backends.routing.pipeline import Pipeline
    from vision_backends.routing.recorder import CallRecorder
    from vision_backends.routing.standby import Standby
    from vision_backends.routing.streaming import PieceQueue, StreamLadder
    from vision_backends.storage.guarded import GuardedStores
    from vision_backends.types import Task

    Progress = Callable[[int, int], None]
    Source = ImageSource | tuple[ImageSource, ...] | str
    Sources = Iterable[ImageSource] | AsyncIterable[ImageSource]
    Make = Callable[[ImageSource], Callable[[], Coroutine[Any, Any, "A | VisionError"]]]

__all__ = ["AwaitedCalls", "Calls"]

A = TypeVar("A", Description, Embedding, Detections, Reply)
T = TypeVar("T")

MOST_AT_ONCE = 64
"""Inputs of an iterable that are under way at the same time, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calls:
    """Makes calls, and waits for them in the caller's thread. Safe for many threads.

    Attributes:
        ladders: Who answers each task, best first.
        limits: What limits each backend, by whose it is.
        inputs: Opens what is asked about.
        pipeline: Answers.
        stream_ladder: Answers piece by piece.
        recorder: Where calls are written down.
        stores: When that is done.
        events: Who is told.
        standby: Who has to know what is asked, if anybody.
        running: The calls that run now.
        clock: Where time comes from.
        deadline_s: Seconds that each input may take where the call sets no deadline of its own.
    """

    ladders: Mapping[Task, Sequence[Backend]]
    limits: Mapping[str, Mapping[str, Limits]]
    inputs: Inputs
    pipeline: Pipeline
    stream_ladder: StreamLadder
    recorder: CallRecorder
    stores: GuardedStores
    events: Events
    standby: Standby | None
    running: RunningCalls
    clock: Clock
    deadline_s: float

    def awaited(self) -> AwaitedCalls:
        """Return the same calls for callers with an event loop."""
        return AwaitedCalls(**vars(self))

    def wait(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a coroutine on the engine's loop returns, when what has come of it is written down."""
        try:
            return engine_loop().run(make)
        finally:
            self.stores.written()

    def one(self, source: Source, request: Request, kind: type[A], options: CallKeywords) -> A:
        """Return the answer to one input, or raise its error."""
        item, checked = Item(source=source), CallOptions.of(options, CallKeywords)
        with store_time(at_most_s=checked.deadline_s):
            opened = self._open_here(item, request, checked)

            async def answer() -> A:
                (outcome,) = await self._answer([item], request, kind, checked, opened=opened)
                if isinstance(outcome, VisionError):
                    try:
                        raise outcome
                    finally:
                        del outcome  # its traceback refers to this frame: leave no circle behind
                if isinstance(request, AskRequest) and request.reader is not None:
                    reply: Any = outcome
                    return cast("A", await engine_loop().compute.start(partial(with_instance, reply, request.reader)))
                return outcome

            return self.wait(answer)

    def many(
        self,
        sources: Iterable[ImageSource] | Iterable[str],
        request: Request,
        kind: type[A],
        options: CallKeywords,
        progress: Progress | None,
    ) -> list[A | VisionError]:
        """Return the answers to a list of inputs, or their errors, in order."""
        if progress is not None and not callable(progress):
            raise InvalidRequestError(f"progress={shown(progress)} cannot be called.", remedy="Pass a function.")
        listed = iterate("The input", sources, remedy="Put it in brackets, or call the method without _many.")
        items, checked = [Item(source=source) for source in listed], CallOptions.of(options, CallKeywords)
        with store_time(inputs=len(items), at_most_s=checked.deadline_s):
            return self.wait(lambda: self._answer(items, request, kind, checked, progress=progress))

    def each(
        self, sources: Sources, request: Request, kind: type[A], options: CallKeywords
    ) -> Iterator[A | VisionError]:
        """Yield the answers to inputs that come one by one."""
        self._check_each(sources)
        make, room = self._each_of(request, kind, CallOptions.of(options, CallKeywords))
        return self._yielded(sources, make, room)

    def stream(self, image: ImageSource, request: DescribeRequest, options: CallOptions) -> DescriptionStream:
        """Return a stream of the pieces of a description, whose image is open already."""
        item = Item(source=image)
        with store_time(at_most_s=options.deadline_s):
            opened = self._open_here(item, request, options) or self._open_soon(item, request, options)
        _raise_error_of(item)

        async def produce(queue: PieceQueue) -> Description:
            return await self._produce(item, request, options, queue, opened=opened)

        return DescriptionStream(engine_loop(), produce)

    def _check_each(self, sources: object) -> None:
        """Return if inputs that come one by one are something that can be iterated over. Errors as `check_iterable`."""
        check_iterable("The input", sources, remedy="Put it in brackets, or call the method without _each.")

    def _yielded(self, sources: Sources, make: Make[A], room: Room) -> Iterator[A | VisionError]:
        self.running.check()
        return answer_each(cast("Iterable[ImageSource]", sources), make, room)

    def _open_here(self, item: Item, request: Request, options: CallOptions) -> Opened | None:
        """Open an input in the caller's thread, unless that could outlast the deadline."""
        self.running.check()
        if not opens_quickly(item.source, request):
            return None
        return self.inputs.open_here(item, request, self._backends(request, options))

    def _open_soon(self, item: Item, request: Request, options: CallOptions) -> Opened:
        """Open an input in another thread, and wait for it until the deadline."""
        backends = self._backends(request, options)
        return engine_loop().run(lambda: self.inputs.open(item, request, backends, deadline_s=options.deadline_s))

    async def _answer(
        self,
        items: Sequence[Item],
        request: Request,
        kind: type[A],  # noqa: ARG002 — says which records come back, for the type checker
        options: CallOptions,
        *,
        opened: Opened | None = None,
        progress: Progress | None = None,
        places: ListPlaces | None = None,
    ) -> list[A | VisionError]:
        """Return an answer or an error for each input; the one coroutine that both routers wait for."""
        backends = () if opened else self._backends(request, options)  # what was opened knows its rungs
        with self.running.call(), store_time(inputs=len(items), at_most_s=options.deadline_s):
            outcomes = await self.pipeline.run(
                items,
                request,
                backends,
                opened=opened,
                deadline_s=options.deadline_s,
                patience_s=options.patience_s,
                progress=None if progress is None else self._in_listeners_thread(progress),
                places=places,
            )
            await self._ended()
        return cast("list[A | VisionError]", outcomes)

    async def _ended(self) -> None:
        """Return when the listeners have heard of a call; its caller's thread writes it down, in `wait`."""
        await self.events.delivered()

    async def _written_and_told(self) -> None:
        """Return when a call is written down and its listeners have heard of it."""
        await self.stores.until_written()
        await self.events.delivered()

    def _each_of(self, request: Request, kind: type[A], options: CallOptions) -> tuple[Make[A], Room]:
        """Return what answers one input of many, and how many of them may be under way."""
        backends = self._backends(request, options)
        most = max((each.batch_size(request) * each.concurrency(request) for each in backends), default=1)
        first_alone = isinstance(request, EmbedRequest) and request.space is None
        places = ListPlaces()
        room = Room(most=1 if first_alone else min(most, MOST_AT_ONCE))

        def make(source: ImageSource) -> Callable[[], Coroutine[Any, Any, A | VisionError]]:
            item, asked = Item(source=source), request

            async def answer() -> A | VisionError:
                nonlocal request
                (outcome,) = await self._answer([item], asked, kind, options, places=places)
                room.usual_bytes = item.opened_bytes or room.usual_bytes
                space = getattr(outcome, "space", None)
                if isinstance(asked, EmbedRequest) and asked.space is None and isinstance(space, str):
                    request, room.most = EmbedRequest(space=space), min(most, MOST_AT_ONCE)
                return outcome

            return answer

        return make, room

    async def _produce(
        self,
        item: Item,
        request: DescribeRequest,
        options: CallOptions,
        queue: PieceQueue,
        *,
        opened: Opened | None = None,
    ) -> Description:
        """Return a description whose pieces are handed on as they come."""
        backends = self._backends(request, options)
        with self.running.call(), store_time(at_most_s=options.deadline_s):
            rungs, gates = opened or await self.inputs.open(item, request, backends, deadline_s=options.deadline_s)
            _raise_error_of(item)
            seconds = (self.deadline_s if options.deadline_s is None else options.deadline_s) - item.opening_s
            call = Call(request=request, gates=gates, deadline=Deadline(self.clock, seconds), each_s=seconds)
            try:
                with self.recorder.call(request, [item]):
                    await self.stream_ladder.walk(rungs, call, item, queue)
            except VisionError:
                await self._written_and_told()
                raise
            finally:
                item.close()  # its memory is for the next
            await self._written_and_told()
        answer = complete(item)
        if not isinstance(answer, Description):
            _raise_error_of(item)
            raise failure(item, request)
        return answer

    def _backends(self, request: Request, options: CallOptions) -> Sequence[Backend]:
        """Return the backends that may be asked, and have the standby know of the request."""
        backends = options.choose(self.ladders[request.task], request)
        if options.model is not None:
            self._check_prices_of(backends, request)
        if self.standby is not None:
            self.standby.remember(request)
        return backends

    def _check_prices_of(self, backends: Sequence[Backend], request: Request) -> None:
        """Return if budgets in US dollars can count the model that a call has named.

        Raises:
            InvalidRequestError: Its price is unknown.
        """
        for backend in backends:
            for name, allowed in self.limits.get(backend.name, {}).items():
                allowed.check_priced(backend, [request], name=name, error=InvalidRequestError)

    def _in_listeners_thread(self, progress: Progress) -> Progress:
        return lambda done, total: self.events.call_later(partial(progress, done, total))


class AwaitedCalls(Calls):
    """The same calls, each of which returns what is to be awaited, on any event loop, instead of waiting for it."""

    def wait(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the coroutine that awaits another one on the engine's loop."""
        return cast("T", engine_loop().run_from_loop(make))

    def stream(self, image: ImageSource, request: DescribeRequest, options: CallOptions) -> DescriptionStream:
        """Return a stream of the pieces of a description, for ``async for``; its image is opened with the first."""

        async def produce(queue: PieceQueue) -> Description:
            return await self._produce(Item(source=image), request, options, queue)

        return cast("DescriptionStream", AsyncDescriptionStream(engine_loop(), produce))

    def _check_each(self, sources: object) -> None:
        if not isinstance(sources, AsyncIterable):
            super()._check_each(sources)

    def _yielded(self, sources: Sources, make: Make[A], room: Room) -> Iterator[A | VisionError]:
        """Return what yields the answers, for ``async for``."""
        return cast("Iterator[A | VisionError]", answer_each_async(sources, make, room))

    def _open_here(self, item: Item, request: Request, options: CallOptions) -> None:
        """Leave it to the call, which does it in a thread."""

    async def _ended(self) -> None:
        await self._written_and_told()


def _raise_error_of(item: Item) -> None:
    error, item.error = item.error, None
    try:
        if error is not None:
            raise error
    finally:
        del error
