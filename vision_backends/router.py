"""What an application calls.

The way of an image: here its options become a request → `pipeline` opens it → `ladder` asks cache, gate and
backend of one rung after the other → `trace` completes the trace → it is returned, or the error raised.

This module decides what callers can ask for and what they get back. It must not know any concrete backend,
nor what a blocked gate or a cache key is made of.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Self, TypeVar, cast

from vision_backends.backends.requests import (
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    Request,
)
from vision_backends.clock import SYSTEM_CLOCK, Deadline
from vision_backends.errors import InvalidRequestError, VisionError
from vision_backends.health.admission import AdmissionControl
from vision_backends.health.limits import Limits
from vision_backends.images import DEFAULT_LIMITS, ImageLimits
from vision_backends.observability.alerts import Alerts
from vision_backends.observability.events import Events
from vision_backends.reports import RungStatus, WarmUpReport
from vision_backends.routing.attempts import Attempts
from vision_backends.routing.call import Call, Item
from vision_backends.routing.explain import explain, survey
from vision_backends.routing.hedging import Hedges
from vision_backends.routing.ladder import Ladder
from vision_backends.routing.options import Wishes, positive_seconds
from vision_backends.routing.pipeline import Batches
from vision_backends.routing.recorder import Journal
from vision_backends.routing.standby import Standby
from vision_backends.routing.streaming import DescriptionStream, stream
from vision_backends.routing.warm_up import WarmUps
from vision_backends.routing.workers import Workers
from vision_backends.storage.base import Stores
from vision_backends.storage.memory import MemoryStore
from vision_backends.types import TASKS, Description, Detections, Embedding, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from random import Random
    from types import TracebackType

    from vision_backends.backends.base import Backend
    from vision_backends.clock import Clock
    from vision_backends.config.settings import Settings
    from vision_backends.health.limits import Alert, Spending
    from vision_backends.health.scopes import GateReport, Transition
    from vision_backends.images import ImageSource
    from vision_backends.observability.events import Event
    from vision_backends.reports import Explanation
    from vision_backends.routing.hedging import HedgeAfter
    from vision_backends.routing.options import Priority
    from vision_backends.storage.base import CacheInfo, LedgerRow, Store

    Progress = Callable[[int, int], None]

__all__ = ["Router"]

_log = logging.getLogger(__name__)

A = TypeVar("A", Description, Embedding, Detections)

PLAIN_REQUESTS: dict[Task, Request] = {
    "describe": DescribeRequest(),
    "embed": EmbedRequest(),
    "embed_text": EmbedTextRequest(),
    "detect": DetectRequest(),
}


class Router:
    """Answers with the best backend that can answer right now. Safe to share between threads.

    Args:
        ladder: Backends, best first; or one such list per task.
        deadline_s: Seconds that one input may take, however many backends are asked.
        store: Where the cache, the ledger and the states of gates and budgets live: one store for all of them, or
            `Stores` that names one for each; by default this process's memory.
        caching: Whether answers are kept and asked for.
        hedge_after_s: When a single call also asks the next rung, while the better one still thinks: seconds, or
            ``"p95"`` for what 95 % of its answers did not need. At most one call in twenty is hedged.
        warm_standby: Whether the first sign of trouble with a rung makes the next one ready in the background: it
            loads the models of what this process has asked for so far, which take their memory from then on.
        limits: What the user allows, by name of the backend: calls and tokens per minute, budgets.
        alerts: Who tells people of trouble and recovery; by default only the log ``vision_backends.alerts``.
        image_limits: What images may cost to read.
        clock: Where time comes from.
        random: Jitter of the gates; pass a seeded one to repeat a run.

    Raises:
        InvalidRequestError: The ladder is empty, names two backends alike or the deadline is not positive.
    """

    def __init__(
        self,
        ladder: Sequence[Backend] | Mapping[Task, Sequence[Backend]],
        *,
        deadline_s: float = 60.0,
        store: Store | Stores | None = None,
        caching: bool = True,
        hedge_after_s: HedgeAfter = None,
        warm_standby: bool = True,
        limits: Mapping[str, Limits] | None = None,
        alerts: Alerts | None = None,
        image_limits: ImageLimits = DEFAULT_LIMITS,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
    ) -> None:
        self._ladders = _ladders(ladder)
        self._clock = clock
        self._deadline_s = positive_seconds(deadline_s)
        self._stores = store if isinstance(store, Stores) else Stores.of(store or MemoryStore())
        self._events = Events()
        self._alerts = alerts or Alerts()
        self._workers = Workers(clock=clock)
        self._warm_ups = WarmUps(clock=clock)
        self._standby = Standby(self._ladders, self._warm_ups.begin)
        self._health = AdmissionControl(
            self._stores.states,
            clock=clock,
            random=random,
            limits=limits,
            on_transition=self._tell,
            on_alert=self._tell,
        )
        self._attempts = Attempts(
            health=self._health,
            workers=self._workers,
            warm_ups=self._warm_ups,
            answers=self._stores.answers,
            ledger=self._stores.ledger,
            caching=caching,
            clock=clock,
        )
        self._ladder = Ladder(self._attempts, hedges=Hedges(hedge_after_s))
        self._journal = Journal(ledger=self._stores.ledger, events=self._events, clock=clock)
        self._batches = Batches(
            self._ladder, journal=self._journal, clock=clock, limits=image_limits, deadline_s=self._deadline_s
        )
        if warm_standby:
            self._events.subscribe(self._standby)
        if "opentelemetry.trace" in sys.modules:
            self._report_to_opentelemetry()

    @classmethod
    def from_config(cls, config: str | os.PathLike[str] | Settings | None = None) -> Self:
        """Make a router from vision.toml, ``VISION_*`` and ``OPENAI_*``; all of them are optional.

        Args:
            config: Path of the file, or settings already read; by default ``VISION_CONFIG`` or ./vision.toml.

        Raises:
            ConfigError: A file, key, value or backend name has no meaning.
        """
        from vision_backends.backends.registry import make_backend, section_of
        from vision_backends.config.settings import Settings as SettingsType
        from vision_backends.config.settings import TaskLadders, load_settings
        from vision_backends.config.validation import parse_table
        from vision_backends.observability.webhook import Webhook
        from vision_backends.storage import open_store

        settings = config if isinstance(config, SettingsType) else load_settings(config)
        names = settings.ladder
        if not isinstance(names, TaskLadders):
            names = TaskLadders(describe=names, embed=names, embed_text=names, detect=names)
        wanted = sorted({name for task in TASKS for name in getattr(names, task)})
        limit_keys = [spec.name for spec in fields(Limits)]
        made: dict[str, Backend] = {}
        limits: dict[str, Limits] = {}
        for name in wanted:
            table = settings.table(name)
            allowed = {key: table.pop(key) for key in limit_keys if key in table}
            made[name] = make_backend(name, table, beside=limit_keys)
            limits[made[name].name] = Limits(**parse_table(Limits, allowed, section=section_of(name)))
        webhook = settings.alerts.webhook
        return cls(
            {task: [made[name] for name in getattr(names, task)] for task in TASKS},
            deadline_s=settings.deadline_s,
            store=open_store(settings.state_file, max_cache_bytes=settings.cache.max_bytes),
            caching=settings.cache.enabled,
            hedge_after_s=settings.hedge_after_s,
            warm_standby=settings.warm_standby,
            limits={name: allowed for name, allowed in limits.items() if allowed != Limits()},
            alerts=Alerts(webhook=Webhook(webhook.get_secret_value()) if webhook else None),
            image_limits=ImageLimits(**settings.images.model_dump()),
        )

    def describe(
        self,
        image: ImageSource,
        *,
        prompt: str | None = None,
        language: str | None = None,
        max_words: int | None = None,
        backend: str | None = None,
        local_only: bool = False,
        deadline_s: float | None = None,
        priority: Priority = "interactive",
        max_wait_s: float | None = None,
    ) -> Description:
        """Return a text about an image.

        Args:
            image: Path, bytes, binary file, PIL image, array (H×W, H×W×3 or H×W×4) or data URL.
            prompt: A question or instruction; then only backends that follow instructions are asked.
            language: BCP 47 tag of the wanted language.
            max_words: About how long the text may be.
            backend: Ask only this rung.
            local_only: Ask only backends that keep the image on this machine.
            deadline_s: Seconds for this call, instead of the router's.
            priority: ``"batch"`` waits for a rate limit, an empty account or an outage to pass, first come first
                served, instead of taking the next rung; ``"interactive"`` never stands behind those who wait.
            max_wait_s: Seconds that a batch call waits at most, on top of the deadline; 600 by default.

        Raises:
            CallerError: The image or an option is at fault.
            AllBackendsFailedError: Nothing could answer; says why, rung by rung.
        """
        request = DescribeRequest(prompt=prompt, language=language, max_words=max_words)
        wishes = Wishes(
            backend=backend, local_only=local_only, deadline_s=deadline_s, priority=priority, max_wait_s=max_wait_s
        )
        return _only(self._run([image], request, Description, wishes))

    def describe_stream(
        self,
        image: ImageSource,
        *,
        prompt: str | None = None,
        language: str | None = None,
        max_words: int | None = None,
        backend: str | None = None,
        local_only: bool = False,
        deadline_s: float | None = None,
    ) -> DescriptionStream:
        """Return a text about an image piece by piece, as it is written.

        The next rung takes over as long as nothing has been said; after the first piece a failure is a
        `StreamInterruptedError` with the text so far. ``stream.description`` is the whole record at the end.
        Arguments as for `describe`; errors of the image come at once, all others while iterating.
        """
        request = DescribeRequest(prompt=prompt, language=language, max_words=max_words)
        self._standby.remember(request)
        rungs = survey(self._backends("describe", Wishes(backend=backend, local_only=local_only)), request)
        item = self._batches.open(image, request, rungs)
        seconds = self._deadline_s if deadline_s is None else positive_seconds(deadline_s)
        call = Call(request=request, deadline=Deadline(self._clock, seconds), each_s=seconds, tick=lambda _count: None)
        return DescriptionStream(stream(self._ladder, self._journal, rungs, call, item))

    def describe_many(
        self,
        images: Iterable[ImageSource],
        *,
        prompt: str | None = None,
        language: str | None = None,
        max_words: int | None = None,
        backend: str | None = None,
        local_only: bool = False,
        deadline_s: float | None = None,
        priority: Priority = "interactive",
        max_wait_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[Description | VisionError]:
        """Return a text or an error for each image, in order; one that fails leaves the others alone.

        Args:
            images: As for `describe`, each.
            prompt: As for `describe`.
            language: As for `describe`.
            max_words: As for `describe`.
            backend: As for `describe`.
            local_only: As for `describe`.
            deadline_s: Seconds for all of them together; by default each has the router's.
            priority: As for `describe`.
            max_wait_s: Seconds that a batch call waits at most for each of its inputs.
            progress: Called with how many are done and how many there are.

        Raises:
            InvalidRequestError: An option has no meaning.
        """
        request = DescribeRequest(prompt=prompt, language=language, max_words=max_words)
        wishes = Wishes(
            backend=backend, local_only=local_only, deadline_s=deadline_s, priority=priority, max_wait_s=max_wait_s
        )
        return self._run(images, request, Description, wishes, progress)

    def embed(
        self,
        image: ImageSource,
        *,
        space: str | None = None,
        backend: str | None = None,
        local_only: bool = False,
        deadline_s: float | None = None,
        priority: Priority = "interactive",
        max_wait_s: float | None = None,
    ) -> Embedding:
        """Return the vector of an image: float32 [D], L2-normalised, with the name of its space.

        Args:
            image: As for `describe`.
            space: Accept only vectors of this space, as an earlier ``embedding.space`` named it.
            backend: Ask only this rung.
            local_only: Ask only backends that keep the image on this machine.
            deadline_s: Seconds for this call, instead of the router's.
            priority: As for `describe`.
            max_wait_s: As for `describe`.

        Raises:
            CallerError: The image or an option is at fault.
            SpaceUnavailableError: A space was asked for and no rung can produce it now.
            AllBackendsFailedError: Nothing could answer.
        """
        wishes = Wishes(
            backend=backend, local_only=local_only, deadline_s=deadline_s, priority=priority, max_wait_s=max_wait_s
        )
        return _only(self._run([image], EmbedRequest(space=space), Embedding, wishes))

    def embed_many(
        self,
        images: Iterable[ImageSource],
        *,
        space: str | None = None,
        backend: str | None = None,
        local_only: bool = False,
        deadline_s: float | None = None,
        priority: Priority = "interactive",
        max_wait_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[Embedding | VisionError]:
        """Return a vector or an error for each image, in order; all vectors are of one space.

        When a backend fails in the middle, the next one starts over, since two spaces cannot be mixed; what
        was already answered stays in the cache. Arguments and errors as for `embed` and `describe_many`.
        """
        wishes = Wishes(
            backend=backend, local_only=local_only, deadline_s=deadline_s, priority=priority, max_wait_s=max_wait_s
        )
        return self._run(images, EmbedRequest(space=space), Embedding, wishes, progress)

    def embed_text(
        self,
        text: str,
        *,
        space: str | None = None,
        backend: str | None = None,
        local_only: bool = False,
        deadline_s: float | None = None,
        priority: Priority = "interactive",
        max_wait_s: float | None = None,
    ) -> Embedding:
        """Return the vector of a text; pass ``space=image_embedding.space`` to compare it with an image.

        Arguments and errors as for `embed`.
        """
        wishes = Wishes(
            backend=backend, local_only=local_only, deadline_s=deadline_s, priority=priority, max_wait_s=max_wait_s
        )
        return _only(self._run([text], EmbedTextRequest(space=space), Embedding, wishes))

    def embed_text_many(
        self,
        texts: Iterable[str],
        *,
        space: str | None = None,
        backend: str | None = None,
        local_only: bool = False,
        deadline_s: float | None = None,
        priority: Priority = "interactive",
        max_wait_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[Embedding | VisionError]:
        """Return a vector or an error for each text, in order and in one space, as `embed_many` does."""
        wishes = Wishes(
            backend=backend, local_only=local_only, deadline_s=deadline_s, priority=priority, max_wait_s=max_wait_s
        )
        return self._run(texts, EmbedTextRequest(space=space), Embedding, wishes, progress)

    def detect(
        self,
        image: ImageSource,
        *,
        labels: Sequence[str] | None = None,
        min_score: float | None = None,
        backend: str | None = None,
        local_only: bool = False,
        deadline_s: float | None = None,
        priority: Priority = "interactive",
        max_wait_s: float | None = None,
    ) -> Detections:
        """Return the objects of an image, in pixels of the upright image, best score first.

        Args:
            image: As for `describe`.
            labels: What to look for; by default what the backend knows (COCO's 80 objects).
            min_score: Lowest score to report, in [0, 1]; the backend's own choice by default.
            backend: Ask only this rung.
            local_only: Ask only backends that keep the image on this machine.
            deadline_s: Seconds for this call, instead of the router's.
            priority: As for `describe`.
            max_wait_s: As for `describe`.

        Raises:
            CallerError: The image or an option is at fault.
            AllBackendsFailedError: Nothing could answer.
        """
        request = DetectRequest(labels=_labels(labels), min_score=min_score)
        wishes = Wishes(
            backend=backend, local_only=local_only, deadline_s=deadline_s, priority=priority, max_wait_s=max_wait_s
        )
        return _only(self._run([image], request, Detections, wishes))

    def detect_many(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Sequence[str] | None = None,
        min_score: float | None = None,
        backend: str | None = None,
        local_only: bool = False,
        deadline_s: float | None = None,
        priority: Priority = "interactive",
        max_wait_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[Detections | VisionError]:
        """Return the objects or an error for each image, in order; arguments as for `detect`."""
        request = DetectRequest(labels=_labels(labels), min_score=min_score)
        wishes = Wishes(
            backend=backend, local_only=local_only, deadline_s=deadline_s, priority=priority, max_wait_s=max_wait_s
        )
        return self._run(images, request, Detections, wishes, progress)

    def warm_up(
        self, tasks: Iterable[Task | Request] = TASKS, *, backend: str | None = None, wait_s: float = 0.0
    ) -> WarmUpReport:
        """Make backends ready before they are needed: import, load, run once; a fetch of weights where it is allowed.

        It happens in the background, once however often it is asked for; calls are answered meanwhile. No server is
        asked for anything. The models stay in memory.

        Args:
            tasks: Tasks, or whole requests where options decide which model answers:
                ``DetectRequest(labels=("a scooter",))``.
            backend: Make only this rung ready.
            wait_s: Seconds to wait for it; then the rest goes on alone, and asking again tells how far it is.

        Returns:
            How each rung of each task stands; one that cannot be made ready says why.

        Raises:
            InvalidRequestError: A task, or a backend on their ladders, does not exist.
        """
        if isinstance(tasks, str):
            raise InvalidRequestError(f"tasks={tasks!r} is one string.", remedy=f"Pass a list: [{tasks!r}].")
        requests = [_plain_request(task) if isinstance(task, str) else task for task in tasks]
        pairs = [
            (rung, request)
            for request in requests
            for rung in self._ladders[request.task]
            if backend in {None, rung.name}
        ]
        if backend is not None and not pairs:
            names = ", ".join(sorted({rung.name for rung in self._all_backends()}))
            message = f"There is no backend {backend!r} for {', '.join(request.task for request in requests)}."
            raise InvalidRequestError(message, remedy=f"The ladders have: {names}.")
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
        local_only: bool = False,
    ) -> Explanation:
        """Return what would happen if this were asked now, rung by rung, without asking anybody.

        Raises:
            InvalidRequestError: The task or an option has no meaning.
        """
        requests: dict[Task, Callable[[], Request]] = {
            "describe": lambda: DescribeRequest(prompt=prompt, language=language),
            "embed": lambda: EmbedRequest(space=space),
            "embed_text": lambda: EmbedTextRequest(space=space),
            "detect": lambda: DetectRequest(labels=_labels(labels)),
        }
        if task not in requests:
            raise InvalidRequestError(f"There is no task {task!r}.", remedy=f"Tasks: {', '.join(TASKS)}.")
        backends = self._backends(task, Wishes(backend=backend, local_only=local_only))
        return explain(backends, requests[task](), self._attempts)

    def status(self) -> list[RungStatus]:
        """Return how each backend stands now for each task that has it on its ladder."""
        explained = {task: explain(self._ladders[task], PLAIN_REQUESTS[task], self._attempts) for task in TASKS}
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

    def reset(self, backend: str | None = None) -> int:
        """Let the gates pass that a backend, or any for None, has blocked: after topping up or correcting a key.

        Returns:
            How many gates were blocked.
        """
        return self._health.reset(backend)

    def gates(self) -> list[GateReport]:
        """Return every gate that is blocked or probing now, the oldest trouble first."""
        return self._health.gates()

    def spending(self) -> list[Spending]:
        """Return how far each configured budget is spent."""
        return self._health.spending()

    def ledger(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerRow]:
        """Return the booked attempts that ended in ``since <= at < until`` (seconds since 1970 UTC), oldest first."""
        return self._stores.ledger.rows(since=since, until=until)

    def cache_info(self) -> CacheInfo:
        """Return how full the cache is."""
        return self._stores.answers.cache_info()

    def clear_cache(self) -> int:
        """Forget every cached answer and return how many there were."""
        return self._stores.answers.clear_cache()

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call a listener with every event from now on: attempts, calls, gates.

        It is called in the thread in which it happened, and should be quick; what it raises is logged.

        Args:
            listener: Takes an `AttemptEvent`, `CallEvent`, `Transition` (of a gate) or `Alert` (of a budget).

        Returns:
            A function that ends the subscription.
        """
        return self._events.subscribe(listener)

    def close(self) -> None:
        """Release the backends, the worker threads and the store, and send the last alerts; harmless twice."""
        self._warm_ups.close()
        for backend in self._all_backends():
            backend.close()
        self._workers.close()
        self._stores.close()
        self._alerts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(
        self,
        sources: Iterable[ImageSource] | Iterable[str],
        request: Request,
        kind: type[A],  # noqa: ARG002 — says which records come back, for the type checker
        wishes: Wishes,
        progress: Progress | None = None,
    ) -> list[A | VisionError]:
        if isinstance(sources, str | bytes | bytearray | os.PathLike):
            raise InvalidRequestError(
                "A _many method takes a list of inputs, not a single one.",
                remedy="Put it in brackets, or call the method without _many.",
            )
        self._standby.remember(request)
        outcomes = self._batches.run(
            [Item(source=source) for source in sources],
            request,
            survey(self._backends(request.task, wishes), request),
            deadline_s=wishes.deadline_s,
            patience_s=wishes.patience_s,
            progress=progress,
        )
        return cast("list[A | VisionError]", outcomes)

    def _backends(self, task: Task, wishes: Wishes) -> Sequence[Backend]:
        """Return the backends that a caller's wishes leave on the ladder of a task."""
        return wishes.choose(self._ladders[task], task)

    def _tell(self, event: Transition | Alert) -> None:
        """Tell whoever listens, and people."""
        self._events.publish(event)
        self._alerts(event)

    def _report_to_opentelemetry(self) -> None:
        """Make spans and metrics for an application that uses OpenTelemetry, which is never imported otherwise."""
        try:
            from vision_backends.observability.otel import Telemetry

            self._events.subscribe(Telemetry(self._all_backends()))
        except Exception:  # noqa: BLE001 — one that is too old or broken is no reason to answer nothing
            _log.warning("Nothing is reported to OpenTelemetry.", exc_info=True)

    def _all_backends(self) -> list[Backend]:
        """Return every backend once, in the order in which the ladders name them."""
        unique = {id(backend): backend for ladder in self._ladders.values() for backend in ladder}
        return list(unique.values())


def _plain_request(task: Task) -> Request:
    """Return the request of a task without options.

    Raises:
        InvalidRequestError: There is no such task.
    """
    if task not in PLAIN_REQUESTS:
        raise InvalidRequestError(f"There is no task {task!r}.", remedy=f"Tasks: {', '.join(TASKS)}.")
    return PLAIN_REQUESTS[task]


def _only(outcomes: list[A | VisionError]) -> A:
    """Return the answer of a list of one, or raise its error."""
    (outcome,) = outcomes
    if isinstance(outcome, VisionError):
        raise outcome
    return outcome


def _labels(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(labels, str):
        raise InvalidRequestError(f"labels={labels!r} is one string.", remedy=f"Pass a list: labels=[{labels!r}].")
    return None if labels is None else tuple(labels)


def _ladders(
    ladder: Sequence[Backend] | Mapping[Task, Sequence[Backend]],
) -> dict[Task, Sequence[Backend]]:
    """Return one ladder per task; a task that a mapping leaves out has nobody to ask."""
    ladders: dict[Task, Sequence[Backend]] = (
        {task: tuple(ladder.get(task, ())) for task in TASKS}
        if isinstance(ladder, Mapping)
        else dict.fromkeys(TASKS, tuple(ladder))
    )
    if not any(ladders.values()):
        raise InvalidRequestError("The ladder is empty.", remedy="Pass at least one backend.")
    for task, backends in ladders.items():
        names = [backend.name for backend in backends]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InvalidRequestError(f"The ladder for {task} names {sorted(twice)} twice.")
    return ladders
