"""What an application calls.

The way of an image: here its options become a request → `routing.calls` waits for the answer → `inputs` opens it →
`lookups` finds what is known of it → `ladder` asks one rung after the other → `trace` completes the trace → it is
returned, or the error raised. All of this is one coroutine on the engine's event loop, for which `Router` waits and
which `AsyncRouter` awaits.

This module decides what callers can ask for and what they get back. It must not know any concrete backend,
nor what a blocked gate or a cache key is made of.
"""

from __future__ import annotations

import logging
import sys
import weakref
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, Unpack, cast

from vision_backends.arguments import check_number, iterate, shown
from vision_backends.backends.base import AsyncBackend, Backend
from vision_backends.backends.requests import (
    AskRequest,
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    Request,
)
from vision_backends.backends.rung_names import tell_rung
from vision_backends.backends.structured import form_of
from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.cancellation import RunningCalls
from vision_backends.engine.event_loop import engine_loop
from vision_backends.engine.pools import Pool
from vision_backends.errors import InvalidRequestError, VisionError
from vision_backends.health.admission import AdmissionControl
from vision_backends.images import DEFAULT_LIMITS, ImageLimits
from vision_backends.observability.alerts import Alerts
from vision_backends.observability.call_log import CallLog
from vision_backends.observability.events import Events
from vision_backends.reports import RungStatus, WarmUpReport
from vision_backends.routing.attempts import Attempts
from vision_backends.routing.callers import caller_of
from vision_backends.routing.calls import Calls
from vision_backends.routing.cold_starts import ColdStarts
from vision_backends.routing.composition import (
    check_parts,
    check_prices,
    ladders_of,
    limits_of,
    plain_request,
)
from vision_backends.routing.explain import explain
from vision_backends.routing.hedging import Hedges
from vision_backends.routing.inputs import Inputs
from vision_backends.routing.ladder import Ladder
from vision_backends.routing.options import CallKeywords, CallOptions, ChoiceKeywords, positive_seconds
from vision_backends.routing.pipeline import Pipeline
from vision_backends.routing.probing import Probing
from vision_backends.routing.recorder import CallRecorder
from vision_backends.routing.standby import Standby
from vision_backends.routing.streaming import DescriptionStream, StreamLadder
from vision_backends.routing.waiting import Waiting
from vision_backends.routing.warm_up import WarmUps
from vision_backends.storage.base import StoreError, Stores
from vision_backends.storage.guarded import GuardedStores
from vision_backends.storage.memory import MemoryStore
from vision_backends.storage.notes import Notes
from vision_backends.types import TASKS, Description, Detections, Embedding, ProbeReport, Reply, Task

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
    from random import Random
    from types import TracebackType

    from vision_backends.clock import Clock
    from vision_backends.config.keywords import ConfigKeywords
    from vision_backends.config.settings import Settings
    from vision_backends.engine.event_loop import EventLoop
    from vision_backends.health.budgets import Alert, Limits, Spending
    from vision_backends.health.policy import GateReport, Transition
    from vision_backends.images import ImageSource
    from vision_backends.observability.events import Event
    from vision_backends.reports import Explanation
    from vision_backends.routing.hedging import HedgeAfter
    from vision_backends.storage.base import CacheInfo, LedgerRow, LedgerTotal, Store

    Progress = Callable[[int, int], None]

__all__ = ["Router"]

_log = logging.getLogger(__name__)

A = TypeVar("A", Description, Embedding, Detections, Reply)
STORE_THREADS = 4
"""Threads that read and write gates and budgets in a store that may block."""

DIAGNOSIS_S = 5.0
PROBE_S = 60.0
"""Seconds that a look at a server may take."""

RequestTypes = (DescribeRequest, EmbedRequest, EmbedTextRequest, DetectRequest, AskRequest)


class Router:
    """Answers with the best backend that can answer right now. Safe to share between threads.

    Args:
        ladder: Backends, best first; or one such list per task.
        deadline_s: Seconds that one input may take, however many backends are asked.
        store: Where the cache, the ledger and the states of gates and budgets live: one store for all of them, or
            `Stores` that names one for each; by default this process's memory.
        caching: Whether answers are kept and asked for.
        tenant: Who shares the answers of servers, by a name of your choice; by default those who have the same key.
        hedge_after_s: When a single call also asks the next rung, while the better one still thinks: seconds, or
            ``"p95"`` for what 95 % of its answers did not need. At most one call in twenty is hedged.
        warm_standby: Whether the first sign of trouble with a rung makes the next one ready in the background: it
            loads the models of what this process has asked for so far, which take their memory from then on.
        limits: What the user allows, by name of the backend: calls and tokens per minute, budgets; under
            ``"accounts.NAME"`` what all backends share whose limits name that account.
        alerts: Who tells people of trouble and recovery; by default only the log ``vision_backends.alerts``.
        image_limits: What images may cost to read.
        clock: Where time comes from.
        random: Jitter of the gates; pass a seeded one to repeat a run.

    Raises:
        InvalidRequestError: The ladder is empty, names two backends alike or the deadline is not positive.
        ConfigError: A budget in US dollars cannot count a model whose price is unknown, or limits name an account that
            is not given.

    Examples:
        >>> from vision_backends import Router
        >>> with Router.from_config() as router:
        ...     print(router.describe("cat.jpg"))
        The ... cat ...
    """

    def __init__(
        self,
        ladder: Sequence[Backend] | Mapping[Task, Sequence[Backend]],
        *,
        deadline_s: float = 60.0,
        store: Store | Stores | None = None,
        caching: bool = True,
        tenant: str | None = None,
        hedge_after_s: HedgeAfter = None,
        warm_standby: bool = True,
        limits: Mapping[str, Limits] | None = None,
        alerts: Alerts | None = None,
        image_limits: ImageLimits = DEFAULT_LIMITS,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
    ) -> None:
        self._ladders = ladders_of(ladder)
        check_parts(store=store, limits=limits, alerts=alerts, image_limits=image_limits)
        named_limits = limits_of(limits or {})
        check_prices(self._ladders, named_limits)
        deadline_s = positive_seconds(deadline_s)
        self._stores = GuardedStores(store if isinstance(store, Stores) else Stores.of(store or MemoryStore()))
        self._events = Events()
        self._alerts = alerts or Alerts()
        self._warm_ups = WarmUps(clock=clock)
        store_pool = Pool("store", size=STORE_THREADS, may_hang=False)
        standby = Standby(self._ladders, self._warm_ups.begin, later=store_pool.submit) if warm_standby else None
        # Not a method of this router, which would then be part of a circle and outlive its last reference.
        tell = partial(_tell, standby, self._events, self._alerts)
        health = self._health = AdmissionControl(
            self._stores.states,
            clock=clock,
            random=random,
            limits=limits,
            on_event=tell,
        )
        self._recorder = CallRecorder(self._stores, events=self._events, standby=standby, clock=clock)
        self._notes = {
            backend.name: Notes(self._stores.states, owner=backend.name, clock=clock)
            for backend in self._all_backends()
        }
        for backend in self._all_backends():
            backend.remember_in(self._notes[backend.name])
        callers = {backend.name: caller_of(backend) for backend in self._all_backends()}
        cold_starts = ColdStarts(
            health=health,
            warm_ups=self._warm_ups,
            loads_ahead=warm_standby,
            notes=self._notes,
            store_pool=store_pool,
            clock=clock,
        )
        self._attempts = Attempts(
            health=health,
            callers=callers,
            warm_ups=self._warm_ups,
            cold_starts=cold_starts,
            recorder=self._recorder,
            store_pool=store_pool,
            clock=clock,
        )
        self._probing = Probing(health=health, recorder=self._recorder, store_pool=store_pool, clock=clock)
        self._ladder = Ladder(self._attempts, hedges=Hedges(hedge_after_s), probing=self._probing)
        self._inputs = Inputs(
            self._attempts,
            recorder=self._recorder,
            store_pool=store_pool,
            clock=clock,
            limits=image_limits,
            deadline_s=deadline_s,
            caching=caching,
            tenant=tenant,
        )
        pipeline = Pipeline(
            self._ladder,
            inputs=self._inputs,
            waiting=Waiting(clock=clock),
            recorder=self._recorder,
            clock=clock,
            deadline_s=deadline_s,
        )
        pools: list[_Closable] = [self._inputs, self._events, store_pool, *callers.values()]
        self._running = RunningCalls("router")
        self._calls = Calls(
            ladders=self._ladders,
            limits=named_limits,
            inputs=self._inputs,
            pipeline=pipeline,
            stream_ladder=StreamLadder(self._ladder, callers),
            recorder=self._recorder,
            stores=self._stores,
            events=self._events,
            standby=standby,
            running=self._running,
            clock=clock,
            deadline_s=deadline_s,
        )
        engine = engine_loop()
        engine.attach()
        self._release = weakref.finalize(self, _release, engine, health, self._stores, pools)
        if "opentelemetry.trace" in sys.modules:
            self._report_to_opentelemetry()

    @classmethod
    def from_config(
        cls, config: str | os.PathLike[str] | Settings | None = None, **overrides: Unpack[ConfigKeywords]
    ) -> Self:
        """Make a router from vision.toml, ``VISION_*``, ``OPENAI_*`` and keywords; all of them are optional.

        Args:
            config: Path of the file, or settings already read; by default ``VISION_CONFIG`` or ./vision.toml, which
                may set little until ``vision trust`` says that it is trusted.
            **overrides: Keys that win over files and variables, as ``ladder=["openai", "embedded"]`` or
                ``openai={"timeout_s": 5}``; `ConfigKeywords` documents them.

        Raises:
            ConfigError: A file, key, value or backend name has no meaning, or a file that was only found sets what it
                may not. Nothing has been opened or sent then.

        Examples:
            >>> with Router.from_config(ladder=["embedded"], deadline_s=20) as offline:
            ...     print([rung.backend for rung in offline.status()])
            ['embedded']
        """
        from vision_backends.config.loading import load_settings
        from vision_backends.routing.configured import parts_of

        settings = load_settings(config, overrides=cast("Mapping[str, Any]", overrides))
        router = cls(**parts_of(settings))
        if settings.log_file is not None:
            router._recorder.log = CallLog(settings.log_file, max_bytes=settings.logs.max_bytes)
        return router

    def describe(
        self,
        image: ImageSource,
        *,
        prompt: str | None = None,
        language: str | None = None,
        max_words: int | None = None,
        **options: Unpack[CallKeywords],
    ) -> Description:
        """Return a text about an image.

        Args:
            image: Path, bytes, binary file, PIL image, array (H×W, H×W×3 or H×W×4) or data URL.
            prompt: A question or instruction; then only backends that follow instructions are asked.
            language: The wanted language: a BCP 47 tag such as "pt-BR", or a name such as "German".
            max_words: About how long the text may be.
            **options: Who may answer, how fast, how patiently: ``backend``, ``backends``, ``model``, ``local_only``,
                ``deadline_s``, ``priority`` and ``max_wait_s``, as `CallKeywords` documents them.

        Raises:
            CallerError: The image or an option is at fault.
            AllBackendsFailedError: Nothing could answer; says why, rung by rung.

        Examples:
            >>> answer = router.describe("cat.jpg")
            >>> print(answer)
            The ... cat ...
            >>> answer.trace.backend, answer.trace.usage.cost_usd
            ('embedded', 0.0)
        """
        request = DescribeRequest(prompt=prompt, language=language, max_words=max_words)
        return self._calls.one(image, request, Description, options)

    def describe_stream(
        self,
        image: ImageSource,
        *,
        prompt: str | None = None,
        language: str | None = None,
        max_words: int | None = None,
        **options: Unpack[ChoiceKeywords],
    ) -> DescriptionStream:
        """Return a text about an image piece by piece, as it is written.

        The next rung takes over as long as nothing has been said; after the first piece a failure is a
        `StreamInterruptedError` with the text so far. ``stream.description`` is the whole record at the end. Leaving
        the loop and dropping the stream, or closing it, ends the request.
        Arguments as for `describe`; errors of the image come immediately, all others while iterating.

        Examples:
            >>> with router.describe_stream("cat.jpg") as stream:
            ...     text = "".join(stream)
            >>> stream.description.text == text
            True
        """
        request = DescribeRequest(prompt=prompt, language=language, max_words=max_words)
        return self._calls.stream(image, request, CallOptions.of(options, ChoiceKeywords))

    def describe_many(
        self,
        images: Iterable[ImageSource],
        *,
        prompt: str | None = None,
        language: str | None = None,
        max_words: int | None = None,
        progress: Progress | None = None,
        **options: Unpack[CallKeywords],
    ) -> list[Description | VisionError]:
        """Return a text or an error for each image, in order; one that fails leaves the others alone.

        Args:
            images: As for `describe`, each.
            prompt: As for `describe`.
            language: As for `describe`.
            max_words: As for `describe`.
            progress: Called with how many are done and how many there are, in another thread.
            **options: As for `describe`; ``deadline_s`` is for all of them together, by default each has the
                router's, and ``max_wait_s`` for each.

        Raises:
            InvalidRequestError: An option has no meaning.

        Examples:
            >>> for answer in router.describe_many(["cat.jpg", "missing.jpg"]):
            ...     print(type(answer).__name__)
            Description
            InvalidImageError
        """
        request = DescribeRequest(prompt=prompt, language=language, max_words=max_words)
        return self._calls.many(images, request, Description, options, progress)

    def describe_each(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        prompt: str | None = None,
        language: str | None = None,
        max_words: int | None = None,
        **options: Unpack[CallKeywords],
    ) -> Iterator[Description | VisionError]:
        """Yield a text or an error for each image, in order, as they come; in bounded memory, from a million of them.

        The next images are taken in the caller's own thread, when there is room for them. Leaving the loop and
        dropping or closing the iterator ends what is under way. With `AsyncRouter` it is an asynchronous iterator,
        which takes asynchronous iterables as well.

        Args:
            images: As for `describe`, each; may be a generator.
            prompt: As for `describe`.
            language: As for `describe`.
            max_words: As for `describe`.
            **options: As for `describe`; ``deadline_s`` and ``max_wait_s`` are for each image.

        Raises:
            InvalidRequestError: An option has no meaning.

        Examples:
            >>> from pathlib import Path
            >>> for answer in router.describe_each(sorted(Path().glob("c*.jpg"))):
            ...     print(answer.source, answer.complete)
            cat.jpg True
            coffee.jpg True
        """
        request = DescribeRequest(prompt=prompt, language=language, max_words=max_words)
        return self._calls.each(images, request, Description, options)

    def embed(self, image: ImageSource, *, space: str | None = None, **options: Unpack[CallKeywords]) -> Embedding:
        """Return the vector of an image: float32 [D], L2-normalised, with the name of its space.

        Args:
            image: As for `describe`.
            space: Accept only vectors of this space, as an earlier ``embedding.space`` named it.
            **options: As for `describe`.

        Raises:
            CallerError: The image or an option is at fault.
            SpaceUnavailableError: A space was asked for and no rung can produce it now.
            AllBackendsFailedError: Nothing could answer.

        Examples:
            >>> vector = router.embed("cat.jpg")
            >>> vector.dimension, vector.vector.dtype
            (1280, dtype('float32'))
            >>> vector.similarity(router.embed("raccoon.jpg")) > vector.similarity(router.embed("rocket.jpg"))
            True
        """
        return self._calls.one(image, EmbedRequest(space=space), Embedding, options)

    def embed_many(
        self,
        images: Iterable[ImageSource],
        *,
        space: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[CallKeywords],
    ) -> list[Embedding | VisionError]:
        """Return a vector or an error for each image, in order; all vectors are of one space.

        When a backend fails in the middle, the next one starts over, since two spaces cannot be mixed; what
        was already answered stays in the cache. Arguments and errors as for `embed` and `describe_many`.

        Examples:
            >>> cat, raccoon = router.embed_many(["cat.jpg", "raccoon.jpg"])
            >>> cat.space == raccoon.space
            True
        """
        return self._calls.many(images, EmbedRequest(space=space), Embedding, options, progress)

    def embed_each(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        space: str | None = None,
        **options: Unpack[CallKeywords],
    ) -> Iterator[Embedding | VisionError]:
        """Yield a vector or an error for each image, in order, as they come; all vectors are of one space.

        That is the space of the first answer, unless one is given: what cannot be had there is a
        `SpaceUnavailableError`. Otherwise as `describe_each`; arguments as for `embed`.

        Examples:
            >>> [vector.source for vector in router.embed_each(["cat.jpg", "rocket.jpg"])]
            ['cat.jpg', 'rocket.jpg']
        """
        request = EmbedRequest(space=space)
        return self._calls.each(images, request, Embedding, options)

    def embed_text(
        self, text: str, *, space: str | None = None, truncate: bool = False, **options: Unpack[CallKeywords]
    ) -> Embedding:
        """Return the vector of a text; pass ``space=image_embedding.space`` to compare it with an image.

        A rung whose model does not read as long a text is passed by. Other arguments and errors as for `embed`.

        Args:
            text: The text.
            space: As for `embed`; a text that is too long for its model is then the caller's error.
            truncate: Whether the end of a long text may be left out; ``trace.notes`` says what was.
            **options: As for `describe`.

        Examples:
            >>> words = router.embed_text("a cup of coffee")
            >>> photos = router.embed_many(["cat.jpg", "coffee.jpg"], space=words.space)
            >>> max(photos, key=words.similarity).source
            'coffee.jpg'
        """
        return self._calls.one(text, EmbedTextRequest(space=space, truncate=truncate), Embedding, options)

    def embed_text_many(
        self,
        texts: Iterable[str],
        *,
        space: str | None = None,
        truncate: bool = False,
        progress: Progress | None = None,
        **options: Unpack[CallKeywords],
    ) -> list[Embedding | VisionError]:
        """Return a vector or an error for each text, in order and in one space, as `embed_many` does.

        Examples:
            >>> cat, dog = router.embed_text_many(["a cat", "a dog"])
            >>> cat.space == dog.space
            True
        """
        request = EmbedTextRequest(space=space, truncate=truncate)
        return self._calls.many(texts, request, Embedding, options, progress)

    def detect(
        self,
        image: ImageSource,
        *,
        labels: Sequence[str] | None = None,
        min_score: float | None = None,
        truncate: bool = False,
        **options: Unpack[CallKeywords],
    ) -> Detections:
        """Return the objects of an image, in pixels of the upright image, best score first.

        Args:
            image: As for `describe`.
            labels: What to look for; by default what the backend knows (COCO's 80 objects).
            min_score: Lowest score to report, in [0, 1]; the backend's own choice by default.
            truncate: Whether the end of labels that are longer than a model reads may be left out; otherwise its rung
                is passed by.
            **options: As for `describe`.

        Raises:
            CallerError: The image or an option is at fault.
            AllBackendsFailedError: Nothing could answer.

        Examples:
            >>> found = router.detect("astronaut.jpg")
            >>> for box in found:
            ...     print(box.label, f"{box.score:.1f}", [round(side) for side in box.xyxy])
            person 0.7 [...]
        """
        request = DetectRequest(labels=_labels(labels), min_score=min_score, truncate=truncate)
        return self._calls.one(image, request, Detections, options)

    def detect_many(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Sequence[str] | None = None,
        min_score: float | None = None,
        truncate: bool = False,
        progress: Progress | None = None,
        **options: Unpack[CallKeywords],
    ) -> list[Detections | VisionError]:
        """Return the objects of each image or an error, in order, as `describe_many` does; arguments as `detect`.

        Examples:
            >>> [found.labels.tolist() for found in router.detect_many(["astronaut.jpg", "cat.jpg"], min_score=0.5)]
            [['person'], ['cat']]
        """
        request = DetectRequest(labels=_labels(labels), min_score=min_score, truncate=truncate)
        return self._calls.many(images, request, Detections, options, progress)

    def detect_each(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        labels: Sequence[str] | None = None,
        min_score: float | None = None,
        truncate: bool = False,
        **options: Unpack[CallKeywords],
    ) -> Iterator[Detections | VisionError]:
        """Yield the objects of each image or an error, in order, as they come.

        Otherwise as `describe_each`; arguments as for `detect`.

        Examples:
            >>> sum(len(found) for found in router.detect_each(["astronaut.jpg", "cat.jpg"], min_score=0.5))
            2
        """
        request = DetectRequest(labels=_labels(labels), min_score=min_score, truncate=truncate)
        return self._calls.each(images, request, Detections, options)

    def ask(
        self,
        images: ImageSource | Sequence[ImageSource],
        prompt: str,
        *,
        system: str | None = None,
        schema: Mapping[str, Any] | type[Any] | None = None,
        **options: Unpack[CallKeywords],
    ) -> Reply:
        """Return the answer to a question about one or several images together.

        Only rungs that follow instructions are asked, in the order of the ladder for ``describe``.

        Args:
            images: One image as for `describe`, or a list of up to 16, which the model sees in their order.
            prompt: The question or instruction.
            system: Instructions for the whole answer, such as a role or a style.
            schema: The form of the answer: a JSON schema, or a class of pydantic's. ``reply.data`` follows it, as JSON
                values or an instance of the class; a rung that does not keep to it is asked once more, and then passed
                by. A schema may refer only to what stands in it.
            **options: As for `describe`.

        Raises:
            CallerError: An image or an option is at fault.
            AllBackendsFailedError: Nothing could answer; says why, rung by rung.

        Examples:
            >>> from vision_backends.testing import FakeBackend
            >>> with Router([FakeBackend()]) as asked:  # in production a model that follows instructions
            ...     reply = asked.ask(["cat.jpg", "raccoon.jpg"], "Which of the two is a cat?")
            >>> reply.sources
            ('cat.jpg', 'raccoon.jpg')
        """
        several = images if isinstance(images, list | tuple) else [images]
        sources = tuple(cast("Sequence[ImageSource]", several))
        form, reader = (None, None) if schema is None else form_of(schema)
        request = AskRequest(
            prompt=prompt,
            system=system,
            schema=form,
            images=len(sources),
            form=None if reader is None else f"{reader.__module__}.{reader.__qualname__}",
            reader=reader,
        )
        return self._calls.one(sources, request, Reply, options)

    def warm_up(
        self,
        tasks: Iterable[Task | Request] = TASKS,
        *,
        backend: str | None = None,
        backends: Sequence[str] | None = None,
        model: str | None = None,
        wait_s: float = 0.0,
    ) -> WarmUpReport:
        """Make backends ready before they are needed: import, load, run once; a fetch of weights where it is allowed.

        It happens in the background, once however often it is asked for; calls are answered meanwhile. No server is
        asked for anything. The models stay in memory.

        Args:
            tasks: Tasks, or whole requests where options decide which model answers:
                ``DetectRequest(labels=("a scooter",))``.
            backend: Make only this rung ready.
            backends: Make only these rungs ready.
            model: Make only this model ready; as for `describe`.
            wait_s: Seconds to wait for it; then the rest goes on alone, and asking again tells how far it is.

        Returns:
            How each rung of each task stands; one that cannot be made ready says why.

        Raises:
            InvalidRequestError: A task, or a backend or model on their ladders, does not exist.

        Examples:
            >>> router.warm_up(["detect"], wait_s=30).done
            True
        """
        if isinstance(tasks, str):
            raise InvalidRequestError(f"tasks={tasks!r} is one string.", remedy=f"Pass a list: [{tasks!r}].")
        check_number("wait_s", wait_s, example=60)
        asked = iterate("tasks", tasks, remedy=f"Pass a list of tasks, such as {list(TASKS)}, or of requests.")
        requests = [task if isinstance(task, RequestTypes) else plain_request(task) for task in asked]
        options = CallOptions(backend=backend, backends=backends, model=model)
        pairs = options.choose_for_each(self._ladders, requests)
        jobs = [self._warm_ups.begin(rung, request) for rung, request in pairs]
        self._warm_ups.wait(jobs, timeout_s=wait_s)
        return WarmUpReport(warm_ups=tuple(job.report() for job in jobs))

    def explain(
        self,
        task: Task,
        *,
        prompt: str | None = None,
        language: str | None = None,
        labels: Sequence[str] | None = None,
        space: str | None = None,
        backend: str | None = None,
        backends: Sequence[str] | None = None,
        model: str | None = None,
        local_only: bool = False,
    ) -> Explanation:
        """Return what would happen if this were asked now, rung by rung, without asking any backend.

        Raises:
            InvalidRequestError: The task or an option has no meaning.

        Examples:
            >>> print(router.explain("detect"))
            detect: embedded would answer
              embedded  answers: nanodet-g-416...
        """
        requests: dict[Task, Callable[[], Request]] = {
            "describe": lambda: DescribeRequest(prompt=prompt, language=language),
            "embed": lambda: EmbedRequest(space=space),
            "embed_text": lambda: EmbedTextRequest(space=space),
            "detect": lambda: DetectRequest(labels=_labels(labels)),
            "ask": lambda: AskRequest(prompt="What is this?" if prompt is None else prompt),
        }
        plain_request(task)
        request = requests[task]()
        options = CallOptions(backend=backend, backends=backends, model=model, local_only=local_only)
        return explain(options.choose(self._ladders[task], request), request, self._attempts)

    def status(self) -> list[RungStatus]:
        """Return how each backend stands now for each task that has it on its ladder.

        Examples:
            >>> [(rung.backend, rung.local, rung.tasks["detect"].ready) for rung in router.status()]
            [('embedded', True, True)]
        """
        explained = {task: explain(self._ladders[task], plain_request(task), self._attempts) for task in TASKS}
        return [
            RungStatus(
                backend=backend.name,
                local=backend.local,
                tasks={
                    task: verdict
                    for task, explanation in explained.items()
                    for verdict in explanation.verdicts
                    if verdict.backend == backend.name
                },
                facts=backend.status(),
            )
            for backend in self._all_backends()
        ]

    def diagnose(self, *, timeout_s: float = DIAGNOSIS_S) -> dict[str, VisionError | None]:
        """Return by name of each backend what is wrong with what it needs outside of this process, such as its server.

        Servers are asked for what costs nothing.

        Args:
            timeout_s: Seconds for each backend.

        Examples:
            >>> router.diagnose()
            {'embedded': None}
        """
        seconds = positive_seconds(timeout_s)
        found: dict[str, VisionError | None] = {}
        for backend in self._all_backends():
            found[backend.name] = None
            try:
                backend.diagnose(timeout_s=seconds)
            except VisionError as error:
                tell_rung(error, backend)
                found[backend.name] = error
        return found

    def probe(self, backend: str | None = None, *, timeout_s: float = PROBE_S) -> dict[str, ProbeReport | VisionError]:
        """Find out by name of each backend with a server whether its model sees, and how it has to be asked.

        It is sent two or three small pictures of one colour, which may cost money, counts towards its limits and
        budgets, and stands in the ledger as ``"probe"``. Servers on this machine that nobody pays for are probed by
        themselves, before they are asked for the first time.

        Args:
            backend: Only this one.
            timeout_s: Seconds for each backend.

        Returns:
            What was found out, which is remembered for a week, or why nothing was.

        Raises:
            InvalidRequestError: There is no such backend with a server.
        """
        seconds = positive_seconds(timeout_s)
        probed = [each for each in self._all_backends() if isinstance(each, AsyncBackend) and each.probing != "never"]
        chosen = [each for each in probed if backend in {None, each.name}]
        if backend is not None and not chosen:
            names = ", ".join(each.name for each in probed) or "none"
            message = f"The backend {shown(backend)} has no server that can be probed."
            raise InvalidRequestError(message, remedy=f"Those that have: {names}.")
        return self._calls.wait(partial(self._probe_each, chosen, timeout_s=seconds))

    async def _probe_each(
        self, backends: Sequence[AsyncBackend], *, timeout_s: float
    ) -> dict[str, ProbeReport | VisionError]:
        found: dict[str, ProbeReport | VisionError] = {}
        for backend in backends:
            try:
                found[backend.name] = await self._probing.probe(backend, timeout_s=timeout_s)
            except VisionError as error:
                tell_rung(error, backend)
                found[backend.name] = error
        return found

    def reset(self, backend: str | None = None) -> int:
        """Let the gates pass that a backend, or any for None, has blocked: after topping up or correcting a key.

        What blocks its account passes as well if another backend of the same account has met it.
        What was learned about its server, such as fields that it refuses, is forgotten.

        Returns:
            How many gates were blocked.

        Raises:
            StoreError: That cannot be written now.
        """
        accounts = [each.credential for each in self._all_backends() if each.name == backend]
        count = self._health.reset(backend, account=accounts[0] if accounts else None)
        for each in self._all_backends():
            if backend in {None, each.name}:
                self._notes[each.name].forget()
                each.forget()
        self._events.wait_until_delivered()
        return count

    def gates(self) -> list[GateReport]:
        """Return every gate that is blocked or probing now, the oldest trouble first.

        Examples:
            >>> from vision_backends import QuotaExhaustedError
            >>> from vision_backends.testing import FakeBackend
            >>> paid = FakeBackend("paid")
            >>> paid.play(QuotaExhaustedError("The account has no quota left."))
            >>> with Router([paid, FakeBackend("free")]) as two:
            ...     print(two.describe("cat.jpg").trace.backend, [gate.backend for gate in two.gates()])
            ...     print(two.reset("paid"), two.describe("coffee.jpg").trace.backend)
            free ['paid']
            1 paid
        """
        return self._health.gates()

    def spending(self) -> list[Spending]:
        """Return how far each configured budget is spent."""
        return self._health.spending()

    def ledger(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerRow]:
        """Return the booked attempts that ended in ``since <= at < until`` (seconds since 1970 UTC), oldest first.

        Examples:
            >>> import time
            >>> begun = time.time()
            >>> _ = router.describe("flower.jpg")
            >>> [(row.task, row.backend, row.outcome) for row in router.ledger(since=begun)]
            [('describe', 'embedded', 'answered')]
        """
        check_number("since", since, example=1_795_435_200)
        check_number("until", until, example=1_795_521_600)
        self._stores.written()
        with self._open_store():
            yield from self._stores.ledger.rows(since=since, until=until)

    def ledger_totals(self, *, since: float = 0.0, until: float = float("inf")) -> list[LedgerTotal]:
        """Return what the attempts of `ledger` add up to, by day of UTC, task, backend, outcome, model and error.

        A million attempts take about a second, and far less than one by one.

        Examples:
            >>> sum(total.cost_usd for total in router.ledger_totals())
            0.0
        """
        check_number("since", since, example=1_795_435_200)
        check_number("until", until, example=1_795_521_600)
        self._stores.written()
        with self._open_store():
            return list(self._stores.ledger.totals(since=since, until=until))

    def cache_info(self) -> CacheInfo:
        """Return how full the cache is.

        Examples:
            >>> _ = router.describe("temple.jpg")
            >>> router.cache_info().entries > 0
            True
        """
        self._stores.written()
        with self._open_store():
            return self._stores.answers.cache_info()

    def clear_cache(self) -> int:
        """Forget every cached answer and return how many there were.

        Examples:
            >>> _ = router.describe("rocket.jpg")
            >>> router.clear_cache() > 0, router.cache_info().entries
            (True, 0)
        """
        self._stores.written()
        with self._open_store():
            return self._stores.answers.clear_cache()

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call a listener with every event from now on: attempts, calls, gates.

        All listeners are called in one thread, in order, with the context variables of the call, and may call the
        router. A call waits until its listeners have heard of it, for at most 1 s. What they raise is logged.

        Args:
            listener: Takes an `AttemptEvent`, `CallEvent`, `Transition` (of a gate) or `Alert` (of a budget).

        Returns:
            A function that ends the subscription.

        Examples:
            >>> events = []
            >>> unsubscribe = router.subscribe(events.append)
            >>> _ = router.detect("coffee.jpg")
            >>> unsubscribe()
            >>> [type(event).__name__ for event in events]
            ['AttemptEvent', 'CallEvent']
        """
        if not callable(listener):
            raise InvalidRequestError(f"The listener {shown(listener)} cannot be called.", remedy="Pass a function.")
        return self._events.subscribe(listener)

    def close(self) -> None:
        """Refuse new calls, give those that run a second, then cancel them and book what they have cost.

        Releases the backends, the threads and the store, and sends the last alerts, whatever one of them raises;
        harmless twice. What a backend raises is logged.
        """
        with ExitStack() as ends:  # called from the last to the first
            ends.callback(self._alerts.close)
            ends.callback(self._release)
            ends.callback(self._stores.close)  # before their threads end, each of which would close its own connection
            ends.callback(self._health.close)
            for backend in reversed(self._all_backends()):
                ends.callback(_close_backend, backend)
            ends.callback(self._running.close, engine_loop(), self._close_on_loop)
            ends.callback(self._warm_ups.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _awaiting(self) -> Self:
        """Return the same router, whose calls return what is to be awaited instead of waiting for it."""
        twin = copy(self)
        twin._calls = self._calls.awaited()  # noqa: SLF001 — its own
        return twin

    async def _close_on_loop(self) -> None:
        """Release what backends have on the engine's loop."""
        for backend in self._all_backends():
            if isinstance(backend, AsyncBackend):
                try:
                    await backend.aclose()
                except Exception:  # noqa: BLE001 — the others are closed all the same
                    _log.exception("The %s backend failed to close.", backend.name)

    @contextmanager
    def _open_store(self) -> Iterator[None]:
        """Say that the router is closed, where its store is for that reason."""
        try:
            yield
        except StoreError:
            self._running.check()
            raise

    def _report_to_opentelemetry(self) -> None:
        """Make spans and metrics for an application that uses OpenTelemetry, which is never imported otherwise."""
        try:
            from vision_backends.observability.otel import Telemetry

            self._events.subscribe(Telemetry(self._all_backends()))
        except Exception:  # noqa: BLE001 — one that is too old or broken is no reason to refuse service
            _log.warning("Nothing is reported to OpenTelemetry.", exc_info=True)

    def _all_backends(self) -> list[Backend]:
        """Return every backend once, in the order in which the ladders name them."""
        unique = {id(backend): backend for ladder in self._ladders.values() for backend in ladder}
        return list(unique.values())


def _close_backend(backend: Backend) -> None:
    """Close a backend, and log what it raises: others still have to be closed."""
    try:
        backend.close()
    except Exception:  # noqa: BLE001 — a backend may raise anything
        _log.exception("The %s backend failed to close.", backend.name)


def _tell(standby: Standby | None, events: Events, alerts: Alerts, event: Transition | Alert) -> None:
    """Tell listeners, people and the standby."""
    if standby is not None:
        standby(event)
    events.publish(event)
    events.call_later(partial(alerts, event))


class _Closable(Protocol):
    def close(self) -> None: ...


def _release(engine: EventLoop, health: AdmissionControl, stores: GuardedStores, pools: Sequence[_Closable]) -> None:
    """Write what is left and let the threads end; when a router is closed, dropped or left to the interpreter's end."""
    health.close()
    stores.write_rest()
    for pool in pools:
        pool.close()
    engine.detach()


def _labels(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(labels, str):
        raise InvalidRequestError(f"labels={labels!r} is one string.", remedy=f"Pass a list: labels=[{labels!r}].")
    return None if labels is None else tuple(iterate("labels", labels, remedy='Pass a list: labels=["a dog"].'))
