"""The file that a run is written to, while it goes on.

Results are in ``run.json``, replaced as a whole each time. What led to them so far stands in
``run.partial.jsonl`` beside it, one line per answer, so that a run that was killed goes on where it was and asks
nothing twice. This module decides how that is kept, and when the money is spent. It must not know what is measured.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, cast

from vision_backends import InvalidRequestError

from .machine import commit_of_checkout, look_at_machine
from .records import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .plan import Plan
    from .records import Example, FailoverResult, LatencyResult, QualityResult

__all__ = ["BudgetReached", "RunFile", "read_run"]


class BudgetReached(Exception):  # noqa: N818 — it ends a measurement, nothing is wrong
    """What the run may cost is spent, or the next call could cost more than is left."""


class RunFile:
    """One run on disk; for one process and thread.

    Args:
        path: The run's file.
        run: What is in it.

    Attributes:
        path: The run's file.
        run: What is in it.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.run = run
        self._budget_usd: float | None = self.options["budget_usd"]
        self._spent_usd = 0.0
        self._notes: dict[str, Any] = {}
        self._partial = path.with_suffix(".partial.jsonl")
        self._read_partial()

    @classmethod
    def begin(
        cls,
        path: Path,
        plan: Plan,
        *,
        command: Sequence[str],
        configuration: Mapping[str, object],
        program: str = "vision bench",
    ) -> Self:
        """Begin a run in a new file.

        Args:
            path: The file.
            plan: The options.
            command: The arguments as the user gave them.
            configuration: The settings in force without secrets.
            program: What the user typed to start it.

        Raises:
            InvalidRequestError: The file exists already, or cannot be written.
        """
        run = Run(
            started_at=_now(),
            commit=commit_of_checkout(),
            program=program,
            command=tuple(command),
            seed=plan.seed,
            settings={"options": plan.model_dump(mode="json"), "configuration": dict(configuration)},
            machine=look_at_machine(),
        )
        if path.exists():
            raise InvalidRequestError(f"{str(path)!r} already exists.", remedy="Name another --out, or --resume it.")
        path.with_suffix(".partial.jsonl").unlink(missing_ok=True)
        run_file = cls(path, run)
        try:
            run_file.write()
        except OSError as error:
            raise InvalidRequestError(f"{str(path)!r} cannot be written: {error.strerror}.") from error
        return run_file

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Go on with a run that was interrupted.

        Raises:
            InvalidRequestError: There is no such run, or it is finished.
        """
        run = read_run(path)
        if run.finished_at is not None:
            raise InvalidRequestError(f"{str(path)!r} is finished.", remedy="Begin a new run without --resume.")
        return cls(path, run.model_copy(update={"stopped": None}))

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of the run's plan."""
        return cast("Mapping[str, Any]", self.run.settings["options"])

    def name_photos(self, photos: str) -> None:
        """Write which photos are asked about, as `Dataset.fingerprint` has it."""
        self._change(photos=photos)

    def add_quality(self, result: QualityResult) -> None:
        """Write a result; one of the same rung, task and data set is replaced."""

        def key(each: QualityResult) -> object:
            return each.contestant.backend, each.contestant.task, each.dataset

        self._change(quality=_replaced(self.run.quality, result, key))

    def add_latency(self, result: LatencyResult) -> None:
        """Write a result; one of the same rung and task is replaced."""

        def key(each: LatencyResult) -> object:
            return each.contestant.backend, each.contestant.task

        self._change(latency=_replaced(self.run.latency, result, key))

    def add_failover(self, result: FailoverResult) -> None:
        """Write a result; one of the same library and settings is replaced."""

        def key(each: FailoverResult) -> object:
            return each.library, each.settings

        self._change(failover=_replaced(self.run.failover, result, key))

    def add_example(self, example: Example) -> None:
        """Write an example; one of the same image is replaced."""
        self._change(examples=_replaced(self.run.examples, example, lambda each: each.image))

    def done(self, key: str) -> bool:
        """Tell whether something was noted under a key, now or before the run was interrupted."""
        return key in self._notes

    def note(self, key: str, value: object, *, usd: float = 0.0) -> None:
        """Keep a JSON value for the case that the run is interrupted, and add up what it has cost.

        It is on disk when this returns, so that even a killed process does not pay for it again.
        """
        self._notes[key] = value
        self._spent_usd += usd
        self._append({"key": key, "value": value, "usd": usd})

    def recall(self, key: str) -> Any:  # noqa: ANN401 — whatever was noted
        """Return what was noted under a key.

        Raises:
            KeyError: Nothing was.
        """
        return self._notes[key]

    @property
    def spent_usd(self) -> float:
        """What the run has cost so far."""
        return self._spent_usd

    @property
    def left_usd(self) -> float | None:
        """What the run may still cost; None without limit."""
        return None if self._budget_usd is None else max(0.0, self._budget_usd - self._spent_usd)

    def spend(self, usd: float) -> None:
        """RunFile what a call has cost that is not noted.

        Raises:
            BudgetReached: Nothing is left for another call.
        """
        if usd:
            self._spent_usd += usd
            self._append({"usd": usd})
        self.check_budget()

    def check_budget(self) -> None:
        """Return if there is money left for another call.

        Raises:
            BudgetReached: There is none; says so in a sentence.
        """
        if self._budget_usd is not None and self._spent_usd >= self._budget_usd:
            raise BudgetReached(f"The budget of ${self._budget_usd:.4g} is spent.")

    def stop(self, reason: str) -> None:
        """Write why something ended early."""
        reasons = [each for each in (self.run.stopped, reason) if each]
        self._change(stopped=" ".join(dict.fromkeys(reasons)))

    def finish(self) -> None:
        """Write that all is measured; what was kept for the case of an interruption goes away."""
        self._change(finished_at=_now(), machine=look_at_machine())  # by now the accelerators are known
        self._partial.unlink(missing_ok=True)

    def forget_if_empty(self) -> None:
        """Remove the files of a run that could not even begin."""
        run = self.run
        if not (self._notes or self._spent_usd or run.quality or run.latency or run.failover):
            self.path.unlink(missing_ok=True)
            self._partial.unlink(missing_ok=True)

    def write(self) -> None:
        """Replace the file, as a whole or not at all."""
        self.run = self.run.model_copy(update={"spent_usd": self._spent_usd})
        beside = self.path.with_suffix(".writing")
        with beside.open("w", encoding="utf-8") as file:
            file.write(self.run.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)

    @contextmanager
    def progress(self, label: str, *, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar on standard error, if that is a terminal.

        Args:
            label: What is being done.
            total: Of how many steps.

        Yields:
            A function that says that one more step is done.
        """
        if not sys.stderr.isatty():
            yield lambda: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda: bar.advance(task)

    def _change(self, **fields: object) -> None:
        self.run = self.run.model_copy(update=fields)
        self.write()

    def _append(self, line: Mapping[str, object]) -> None:
        with self._partial.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_partial(self) -> None:
        """Read what was noted; a last line that was cut off by a kill is dropped."""
        if not self._partial.exists():
            return
        whole, _, rest = self._partial.read_text(encoding="utf-8").rpartition("\n")
        if rest:
            self._partial.write_text(whole + "\n" if whole else "", encoding="utf-8")
        for text in filter(None, whole.split("\n")):
            line = json.loads(text)
            self._spent_usd += line["usd"]
            if "key" in line:
                self._notes[line["key"]] = line["value"]


def read_run(path: Path) -> Run:
    """Read a run's file.

    Raises:
        InvalidRequestError: It is missing, or no run of this version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    try:
        return Run.model_validate_json(text)
    except ValueError as error:
        raise InvalidRequestError(f"{str(path)!r} is not a run of this benchmark: {error}.") from error


def _replaced(results: Sequence[Any], result: Any, key: Callable[[Any], object]) -> tuple[Any, ...]:  # noqa: ANN401
    return (*(each for each in results if key(each) != key(result)), result)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
