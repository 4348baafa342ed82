"""One rung's turn: admission, backend, and what is noted of each outcome.

This module decides what every outcome of one attempt means. It must not know which rung comes next, any concrete
backend, or how images are decoded.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, TypeVar

from vision_backends.engine.cancellation import reason_of, wait_for_end
from vision_backends.errors import (
    ABOUT_ONE_INPUT,
    BackendError,
    CallCancelledError,
    CallerError,
    InvalidReplyError,
    NotReadyError,
    TimedOutError,
    UnavailableError,
    VisionError,
    without_frames,
)
from vision_backends.health.budget_state import BudgetReservedError
from vision_backends.routing.lines import Settlements
from vision_backends.routing.single_flight import SingleFlight
from vision_backends.routing.trace import note, settle
from vision_backends.storage.cache import decode, encode
from vision_backends.types import FREE, Description, Detections, Embedding, Reply, Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from vision_backends.clock import Clock
    from vision_backends.engine.pools import Pool
    from vision_backends.health.admission import AdmissionControl, GateSnapshot, Permit
    from vision_backends.routing.call import Answer, Item, Rung, Turn
    from vision_backends.routing.callers import Caller
    from vision_backends.routing.cold_starts import ColdStarts
    from vision_backends.routing.recorder import CallRecorder
    from vision_backends.routing.single_flight import Flight
    from vision_backends.routing.warm_up import WarmUps
    from vision_backends.types import Attempt, Outcome, Task

__all__ = ["Attempts"]

ANSWER_TYPES: dict[Task, type[Answer]] = {
    "describe": Description,
    "embed": Embedding,
    "embed_text": Embedding,
    "detect": Detections,
    "ask": Reply,
}

GRACE_S = 0.1
"""An answer that is there this soon after its time is still taken: it has been paid for."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Attempts:
    """Makes single attempts; all of it runs on the event loop.

    Args:
        health: The gates that every rung stands behind.
        callers: What calls each backend, by its name.
        warm_ups: Makes a rung ready that had to be passed by, or may soon be needed.
        cold_starts: Knows how long rungs take.
        recorder: Where answers and their costs are written down.
        store_pool: Threads for what may have to wait for a store.
        clock: Where time comes from.

    Attributes:
        blocking: Whether looking at gates may block.
        cold_starts: As given.
        clock: As given.
    """

    def __init__(
        self,
        *,
        health: AdmissionControl,
        callers: Mapping[str, Caller],
        warm_ups: WarmUps,
        cold_starts: ColdStarts,
        recorder: CallRecorder,
        store_pool: Pool,
        clock: Clock,
    ) -> None:
        self._health = health
        self._callers = callers
        self._warm_ups = warm_ups
        self.cold_starts = cold_starts
        self.blocking = health.blocking
        self._recorder = recorder
        self._store_pool = store_pool
        self._flights = SingleFlight()
        self._settlements = Settlements(clock=clock)
        self.clock = clock

    def most_running(self, rung: Rung) -> int | None:
        """Return how many calls of a rung may run concurrently before one more would be refused; None for any."""
        return self._health.most_running(rung.scope)

    def look(self, rungs: Sequence[Rung]) -> GateSnapshot:
        """Return what the gates of some rungs are now; may block."""
        self.cold_starts.look(rungs)
        return self._health.look([rung.scope for rung in rungs])

    async def look_again(self, rungs: Sequence[Rung]) -> GateSnapshot:
        """Do as `look`, without blocking the loop."""
        return await self._in_store(partial(self.look, rungs), may_block=self._health.blocking)

    def blocked(self, rung: Rung, gates: GateSnapshot) -> BackendError | None:
        """Return why a rung would not be asked now, or None when it would."""
        return rung.refusal or self._health.peek(rung.scope, gates)

    def refusal(self, turn: Turn, items: Sequence[Item]) -> BackendError | None:
        """Return why a rung is not asked about some items, where that is known before anything is begun; else None.

        A blocked gate keeps nobody from the answer that another call has just got, or is about to.
        """
        rung = turn.rung
        blocked = rung.refusal or self._health.refusal(rung.scope, turn.call.gates)
        if blocked is None or blocked is rung.refusal or len(items) > 1:
            return blocked
        key = items[0].keys.get(rung.backend.name)
        is_shared = key is not None and (self._recorder.was_just_kept(key) or self._flights.is_under_way(key))
        return None if is_shared else blocked

    def recall(self, turn: Turn, items: Sequence[Item]) -> list[Item]:
        """Settle the items that this rung has answered before; return the others."""
        name = turn.rung.backend.name
        settled: list[Item] = []
        pending: list[Item] = []
        for item in items:
            if item.settled:
                continue
            kept = item.recalled.pop(name, None)
            answer = None if kept is None else decode(kept)
            if isinstance(answer, ANSWER_TYPES[turn.call.request.task]):
                settle(item, turn.rung, answer, "cached", at=self.clock.time())
                settled.append(item)
            else:
                pending.append(item)
        if settled:
            turn.call.on_settled(settled)
        return pending

    def pass_by(self, items: Sequence[Item], turn: Turn, refusal: BackendError) -> None:
        """Note why a rung is not asked; one that is not ready is made so for the next time, if it can be."""
        self.note(items, turn, "skipped", refusal)
        if isinstance(refusal, NotReadyError):
            self._warm_ups.begin_unless_tried(turn.rung.backend, turn.call.request)

    async def make(self, turn: Turn, items: Sequence[Item], *, waits: bool = True) -> BackendError | None:
        """Ask a backend once, or join an identical call that is under way; settle the items, or note why not.

        Args:
            turn: Whose turn it is.
            items: What it is asked about.
            waits: Whether to wait while calls under way have reserved the rest of a budget.

        Returns:
            What it failed with; None when it answered, was not asked, or the fault was the caller's. Without waiting
            also what says that a budget is reserved, of which nothing is noted.

        Raises:
            CancelledError: The caller was cancelled; what was tried is noted all the same.
        """
        timeout_s = turn.timeout_s(items)
        if timeout_s <= 0:
            self.note(items, turn, "skipped", TimedOutError("The deadline had already passed."))
            return None
        key = items[0].keys.get(turn.rung.backend.name) if len(items) == 1 else None
        if key is not None and await self._was_answered_meanwhile(turn, items[0], key):
            return None
        flight = self._flights.join(key, items, partial(self._ask, turn, timeout_s))
        try:
            ended = await flight.wait(self.clock, self.clock.monotonic() + timeout_s)
        except asyncio.CancelledError as cancelled:
            if flight.task.done():
                _take_over(items, flight)
            else:
                self.note(items, turn, "failed", reason_of(cancelled), usage=FREE)
            raise
        if not ended:  # another caller, who has more time, still waits for it
            late = self._late(turn, timeout_s)
            self.note(items, turn, "failed", late, elapsed_s=timeout_s, usage=FREE)
            return late
        _take_over(items, flight)
        error = None if flight.task.cancelled() else flight.task.result()
        if error is not None:
            return await self._failed(turn, items, error, waits=waits)
        if turn.call.on_admitted is not None:
            turn.call.on_admitted()
        if flight.task.cancelled() and not flight.items[0].attempts:  # at the deadline
            self.note(items, turn, "skipped", self._late(turn, timeout_s))
        turn.call.on_settled([item for item in items if item.settled])
        return None

    async def _failed(
        self, turn: Turn, items: Sequence[Item], error: VisionError, *, waits: bool
    ) -> BackendError | None:
        """Go on after an attempt that has failed with an error; otherwise as `make`."""
        if isinstance(error, BudgetReservedError):
            if not waits:
                return error
            return await self.once_it_fits(turn, items, partial(self.make, items=items, waits=False), error)
        if turn.call.on_admitted is not None:
            turn.call.on_admitted()
        if _concerns_one(error) and len(items) > 1:
            # One is at fault: each is asked for again, alone, or in halves where a batch may be of hundreds of texts.
            size = 1 if isinstance(error, CallerError) else (len(items) + 1) // 2
            for start in range(0, len(items), size):
                await self.make(turn, items[start : start + size])
            return None
        turn.call.on_settled([item for item in items if item.settled])
        return error if isinstance(error, BackendError) else None

    async def once_it_fits(
        self,
        turn: Turn,
        items: Sequence[Item],
        ask: Callable[[Turn], Awaitable[BackendError | None]],
        refused: BudgetReservedError,
    ) -> BackendError | None:
        """Ask once enough of a reserved budget is settled; note why not when that would leave too little time.

        Args:
            turn: Whose turn it is.
            items: What it is asked about.
            ask: Asks in such a turn, and returns what `make` does without waiting.
            refused: What it has returned.
        """
        needed_s = self.cold_starts.expected_s(turn.rung, turn.call.request)
        until = self.clock.monotonic() + turn.call.deadline.share(turn.kept_s) - needed_s
        on_admitted = turn.call.on_admitted

        async def ask_in_turn(leave: Callable[[], None]) -> BackendError | None:
            def admitted() -> None:
                leave()
                if on_admitted is not None:
                    on_admitted()

            return await ask(replace(turn, call=replace(turn.call, on_admitted=admitted)))

        name = turn.rung.backend.name
        error = await self._settlements.until_it_fits(name, ask_in_turn, refused, until=until)
        if not isinstance(error, BudgetReservedError):
            return error
        self.note(items, turn, "skipped", error)
        return None

    async def _was_answered_meanwhile(self, turn: Turn, item: Item, key: str) -> bool:
        """Settle an item whose answer another call has kept after this one had looked for it."""
        if not self._recorder.was_just_kept(key):
            return False
        kept = await self._in_store(partial(self._recorder.recall, [key]), may_block=self._recorder.blocking)
        if key not in kept:
            return False
        item.recalled[turn.rung.backend.name] = kept[key]
        return not self.recall(turn, [item])

    async def admit(self, turn: Turn, items: Sequence[Item], *, timeout_s: float) -> tuple[Permit, Usage] | None:
        """Return leave to ask and what that is estimated to cost, or note on the items why there is none.

        Raises:
            BudgetReservedError: There is none only because of calls under way; that is not noted.
        """
        scope, backend, gates = turn.rung.scope, turn.rung.backend, turn.call.gates
        estimate = backend.estimate(turn.call.request, [item.opened for item in items])  # type: ignore[arg-type]
        admit = partial(
            self._health.admit,
            scope,
            timeout_s=timeout_s,
            expected_s=backend.expected_s(turn.call.request),
            estimate=estimate,
            snapshot=gates,
        )
        try:
            permit = await self._in_store(admit, may_block=self._health.may_block(scope, gates), on_late=_release)
        except BudgetReservedError:
            raise
        except BackendError as blocked:
            self.note(items, turn, "skipped", blocked)
            return None
        if turn.call.on_admitted is not None:
            turn.call.on_admitted()
        return permit, estimate

    async def ended(self, permit: Permit, end: Callable[[], object], *, error: VisionError | None = None) -> None:
        """End a permit, before the next call is let in; with an error where it is one that may move a gate.

        It is ended also if the caller is cancelled meanwhile.
        """
        if self._health.end_may_block(permit, error):
            ending = self._store_pool.start(end)
            await wait_for_end(ending)
            ending.result()
        else:
            end()
        if self._settlements.awaited:
            self._settlements.tell()

    def ended_by_cancelling(self, end: Callable[[], object]) -> None:
        """End a permit without awaiting, as a coroutine must that is being cancelled."""
        if self._health.blocking:
            self._store_pool.submit(end)
        else:
            end()

    async def _ask(self, turn: Turn, timeout_s: float, flight: Flight) -> VisionError | None:
        """Ask once, for all callers who wait for the flight, and note on its items what became of it."""
        items = flight.items
        try:
            admitted = await self.admit(turn, items, timeout_s=timeout_s)
        except BudgetReservedError as reserved:
            return without_frames(reserved)
        if admitted is None:
            return None
        permit, estimate = admitted
        started = self.clock.monotonic()
        try:
            answers = await self._answers(turn, flight, permit, estimate, timeout_s=timeout_s)
        except CallerError as error:
            without_frames(error)
            if len(items) == 1:
                self.note(items, turn, "failed", error)
                items[0].error = error
            await self.ended(permit, partial(permit.released, usage=error.usage))
            return error
        except BackendError as error:
            without_frames(error)
            if _concerns_one(error) and len(items) > 1:
                await self.ended(permit, partial(permit.released, usage=error.usage))
                return error
            elapsed_s = self.clock.monotonic() - started
            self.note(items, turn, "failed", error, elapsed_s=elapsed_s)
            end = partial(permit.failed, error, elapsed_s=elapsed_s, usage=error.usage)
            await self.ended(permit, end, error=error)
            return error
        elapsed_s = self.clock.monotonic() - started
        self.cold_starts.note_first(turn.rung, turn.call.request, elapsed_s)
        for item, answer in zip(items, answers, strict=True):
            self.settle(item, turn, answer, elapsed_s=elapsed_s)
        limits = turn.rung.backend.rate_limits(turn.call.request)
        each_s = elapsed_s / len(items)  # a batch is no slow call
        await self.ended(permit, partial(permit.succeeded, usage=_usage(answers), elapsed_s=each_s, limits=limits))
        return None

    async def _answers(
        self, turn: Turn, flight: Flight, permit: Permit, estimate: Usage, *, timeout_s: float
    ) -> Sequence[Answer]:
        """Return what the backend answers while a caller waits for it.

        Raises:
            BackendError: It did not answer, or not in time.
            CallerError: The request is at fault.
            CancelledError: No caller waits any more; this is noted and booked.
        """
        started = self.clock.monotonic()
        keep_late = partial(self._keep_late, turn, flight.items, permit)
        backend, inputs = turn.rung.backend, [item.opened for item in flight.items]
        asked = self._callers[backend.name].start(
            backend, inputs, turn.call.request, timeout_s=timeout_s, on_late=keep_late
        )
        try:
            await wait_for_end(asked)
        except asyncio.CancelledError:
            if not asked.done() or self._is_late(flight):
                self._give_up(turn, flight, permit, estimate, elapsed_s=self.clock.monotonic() - started)
                if not asked.cancel() and not asked.cancelled() and asked.exception() is None:
                    keep_late(asked.result())
                raise
        answers = self._verified(asked, turn, len(flight.items))
        if self._is_late(flight):
            keep_late(answers)
            raise self._late(turn, timeout_s)
        return answers

    def _give_up(self, turn: Turn, flight: Flight, permit: Permit, estimate: Usage, *, elapsed_s: float) -> None:
        """Note and book that a call was cancelled, or left behind; a server may charge for it all the same."""
        backend = turn.rung.backend
        error = flight.left_because or CallCancelledError("The event loop has ended.")
        if isinstance(error, TimedOutError):
            error = self._late(turn, elapsed_s)
            self.ended_by_cancelling(partial(permit.failed, error, elapsed_s=elapsed_s))
        else:
            self.ended_by_cancelling(partial(permit.released, usage=None if backend.local else estimate))
        # What is left behind in a thread books its true cost itself, when it comes.
        is_over = self._callers[backend.name].gives_up and not backend.local and estimate != FREE
        self.note(
            flight.items,
            turn,
            "failed",
            error,
            elapsed_s=elapsed_s,
            usage=_share(estimate, flight.items) if is_over else None,
        )

    def _late(self, turn: Turn, timeout_s: float) -> TimedOutError:
        cold = turn.rung.backend.local and not self.cold_starts.was_well(turn.rung)
        return TimedOutError(
            f"No answer within {timeout_s:.3g} s.",
            remedy="It may still be loading: call router.warm_up() before, or allow more time." if cold else None,
        )

    def _is_late(self, flight: Flight) -> bool:
        """Tell whether the time of all who wait is over, by a clock that was moved or a loop that was held up."""
        return self.clock.monotonic() > flight.until + GRACE_S

    def _keep_late(self, turn: Turn, items: Sequence[Item], permit: Permit, answers: Sequence[Answer]) -> None:
        """Keep answers that no caller waited for any more: they were paid for, and the next call gets them."""
        late = [item.twin() for item in items]
        for item, answer in zip(late, answers, strict=True):
            self.settle(item, turn, answer, elapsed_s=0.0)
        self.ended_by_cancelling(partial(permit.corrected, _usage(answers)))
        attempts = [
            replace(
                twin.attempts[-1],
                outcome="failed",
                error=TimedOutError.kind,
                code="came_late",
                at=(item if item.attempts else twin).attempts[-1].at,  # in whose day it is billed
            )
            for item, twin in zip(items, late, strict=True)
        ]
        self._recorder.book(attempts, task=turn.call.request.task)

    def _verified(self, asked: asyncio.Future[Sequence[Answer]], turn: Turn, count: int) -> Sequence[Answer]:
        """Return the answers if they are what the contract promises; a backend is not trusted blindly.

        Raises:
            BackendError: It did not answer, or not so; a bug in it counts as an outage.
            CallerError: The request is at fault.
        """
        try:
            answers = asked.result()
        except (BackendError, CallerError):
            raise
        except BaseException as crash:  # also SystemExit: no signal of the process is raised where backends run
            raise self.crashed(turn, crash) from crash
        rung, kind = turn.rung, ANSWER_TYPES[turn.call.request.task]
        is_list = hasattr(answers, "__len__")  # and no generator, nor a record without a list
        if not is_list or len(answers) != count or [answer for answer in answers if not isinstance(answer, kind)]:
            raise _broken_promise(answers, count, kind, task=turn.call.request.task)
        space = rung.model.space if rung.model else None
        for answer in answers:
            if isinstance(answer, Embedding) and answer.space != space:
                raise InvalidReplyError(f"It announced the space {space!r} and returned {answer.space!r}.")
        return answers

    def crashed(self, turn: Turn, crash: BaseException) -> UnavailableError:
        """Log a bug of a backend, and return it as the outage that it is to the caller."""
        name = turn.rung.backend.name
        _log.error("The %s backend crashed; the next rung is asked.", name, exc_info=crash)
        return UnavailableError(
            f"The backend crashed with {type(crash).__name__}: {crash}",
            remedy="This is a bug in the backend; the log has its traceback.",
            code=type(crash).__name__,
        )

    def settle(self, item: Item, turn: Turn, answer: Answer, *, elapsed_s: float) -> None:
        """Give an item a fresh answer, and keep it for the next time.

        The key names the revision that was there when the call began: what another one has answered is not kept.
        """
        key = item.keys.get(turn.rung.backend.name)
        announced, given = turn.rung.model.revision if turn.rung.model else None, answer.trace.revision
        if key is not None and (announced == given or None in {announced, given}):
            try:
                self._recorder.keep(key, encode(answer))
            except (TypeError, ValueError) as error:
                name = turn.rung.backend.name
                _log.warning("An answer of %s cannot be cached, as it is not plain JSON: %s", name, error)
        settle(item, turn.rung, answer, "answered", at=self.clock.time(), elapsed_s=elapsed_s)

    def note(
        self,
        items: Sequence[Item],
        turn: Turn,
        outcome: Outcome,
        error: VisionError,
        *,
        elapsed_s: float = 0.0,
        usage: Usage | None = None,
    ) -> None:
        """Note on each item why this rung has not answered it; ``usage`` where the error does not say."""
        note(items, turn.rung, outcome, error=error, at=self.clock.time(), elapsed_s=elapsed_s, usage=usage)

    async def _in_store(
        self, action: Callable[[], T], *, may_block: bool, on_late: Callable[[T], object] | None = None
    ) -> T:
        """Return what something returns that may read or write the store, without blocking the loop."""
        return await self._store_pool.start(action, on_late=on_late) if may_block else action()


def _concerns_one(error: VisionError) -> bool:
    """Return whether an error is about one of the inputs, so that the others can be answered without it."""
    return isinstance(error, CallerError) or getattr(error, "code", None) in ABOUT_ONE_INPUT


def _release(permit: Permit) -> None:
    permit.released()


def _take_over(items: Sequence[Item], flight: Flight) -> None:
    """Give the items what the flight's own have; only the first caller books what that has cost."""
    is_first = flight.take()
    for item, twin in zip(items, flight.items, strict=True):
        item.attempts += twin.attempts if is_first else map(_for_nothing, twin.attempts)
        item.answer, item.revision, item.error = twin.answer, twin.revision, twin.error


def _for_nothing(attempt: Attempt) -> Attempt:
    """Return what an attempt is to a caller who has only waited while another call made it."""
    return replace(attempt, outcome="cached" if attempt.outcome == "answered" else "skipped", usage=FREE)


def _usage(answers: Sequence[Answer]) -> Usage:
    return reduce(add, [answer.trace.usage for answer in answers])


def _share(usage: Usage, items: Sequence[Item]) -> Usage:
    """Return one item's part of what a call for several is estimated to take."""
    count = len(items)
    return Usage(
        input_tokens=None if usage.input_tokens is None else usage.input_tokens // count,
        output_tokens=None if usage.output_tokens is None else usage.output_tokens // count,
        cost_usd=None if usage.cost_usd is None else usage.cost_usd / count,
    )


def _broken_promise(answers: object, count: int, kind: type, *, task: str) -> InvalidReplyError:
    """Return the error that says what a backend returned in place of what it has to."""
    given = f"a {type(answers).__name__}"
    if isinstance(answers, (list, tuple)):
        given += f" of {len(answers)}"
        wrong = {type(each).__name__ for each in answers if not isinstance(each, kind)}
        given += f" with {', '.join(sorted(wrong))} in it" if wrong else ""
    message = f"The backend did not return {count} {kind.__name__} records, but {given}."
    return InvalidReplyError(message, remedy=f"Its {task} has to return a list with one record per input.")
