"""How rungs, their models, gates and budgets read on a terminal.

This module decides which reasons of a rung are told together, and how a gate, a budget and the facts of a model look.
It must not judge any rung itself, nor know which facts there are: a backend reports one mapping for each of its models,
and whatever is in it becomes a column; what is left out of requests is a sentence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from vision_backends.cli.rendering.text import dollars, one_line, print_table
from vision_backends.cli.usage_totals import utc_day

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vision_backends.health.budgets import Spending
    from vision_backends.health.policy import GateReport
    from vision_backends.reports import RungStatus, Verdict
    from vision_backends.router import Router
    from vision_backends.storage.base import LedgerTotal
    from vision_backends.types import Task

__all__ = [
    "is_spent",
    "print_begun_anew",
    "print_budgets",
    "print_gates",
    "print_left_out",
    "print_models",
    "print_reasons",
    "print_unpriced",
]

REVISION_LENGTH = 12
"""Characters of a commit that tell it from all others in practice."""

BAR_WIDTH = 16
"""Characters of a bar; plain ones, which every terminal has."""


def print_reasons(rung: RungStatus, *, named: bool) -> None:
    """Print what stands in the way of a rung, each reason once, with the tasks that it applies to.

    Args:
        rung: How it stands.
        named: Whether each line begins with the name of the backend, or below a line that has it.
    """
    found: dict[tuple[str | None, str | None], tuple[list[Task], Verdict]] = {}
    for task, verdict in rung.tasks.items():
        if not verdict.ready:
            tasks, _ = found.setdefault((verdict.reason, verdict.remedy), ([], verdict))
            tasks.append(task)
    for tasks, verdict in found.values():
        about = f"{rung.backend} ({', '.join(tasks)})" if named else f"  {', '.join(tasks)}"
        typer.echo(f"{about}: {one_line(verdict.reason or 'no reason is given')}")
        if verdict.remedy:
            typer.echo(f"  → {one_line(verdict.remedy)}")


def print_models(rung: RungStatus) -> None:
    """Print a table with one row for each model that a rung reports facts of; nothing when there are none."""
    models = {name: facts for name, facts in rung.facts.items() if isinstance(facts, Mapping) and "state" in facts}
    if not models:
        return
    columns = list(dict.fromkeys(name for facts in models.values() for name in facts))
    typer.echo()
    print_table(
        (rung.backend, *(_heading(column) for column in columns)),
        [
            (name.replace("_", " "), *(_cell(column, facts.get(column)) for column in columns))
            for name, facts in models.items()
        ],
    )


def print_left_out(rung: RungStatus) -> None:
    """Print which fields the server of a rung refuses, and how it is asked again."""
    for about, fields in rung.facts.get("left_out", {}).items():
        names = ", ".join(fields)
        typer.echo(f"{rung.backend}: its server refuses {names} ({one_line(about)}), so requests are written without.")
        typer.echo(f"  → vision reset {rung.backend} asks it again")


def print_unpriced(rung: RungStatus, *, costs: str = "its cost") -> None:
    """Print which models of a rung have no known price, and how it is set; nothing where all have one.

    Args:
        rung: How it stands.
        costs: What is unknown because of that.
    """
    from vision_backends.backends.registry import section_of
    from vision_backends.health.budgets import remedy_of_unpriced

    if rung.unpriced:
        typer.echo(
            f"{rung.backend}: the price of {', '.join(map(one_line, rung.unpriced))} is unknown, and so is {costs}."
        )
        typer.echo(f"  → {remedy_of_unpriced(section_of(rung.backend))}")


def _heading(column: str) -> str:
    """Return the name of a fact without its unit, which stands in the cells."""
    return column.removesuffix("_bytes").removesuffix("_s").replace("_", " ")


def _cell(column: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int | float) and column.endswith("_bytes"):
        return f"{value / 1e6:,.0f} MB"
    if isinstance(value, int | float) and column.endswith("_s"):
        return f"{value:,.0f} s"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    if column == "revision":
        return str(value)[:REVISION_LENGTH]
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_gates(gates: Iterable[GateReport]) -> None:
    """Print what each gate blocks, what it is blocked by, since when, and when it is probed next."""
    now = time.time()
    rows = [
        (
            "/".join(filter(None, (gate.backend, gate.model, gate.task))),
            gate.gate,
            f"{datetime.fromtimestamp(gate.since, UTC):%Y-%m-%d %H:%M}",
            _next_probe(gate, now=now),
        )
        for gate in gates
    ]
    print_table(("gate", "blocked by", "since (UTC)", "next probe"), rows)


def _next_probe(gate: GateReport, *, now: float) -> str:
    from vision_backends.health.policy import duration

    if gate.until > now:
        return f"in {duration(gate.until - now)}"
    return "running" if gate.state == "probing" else "with the next call"


def print_budgets(budgets: Iterable[Spending]) -> None:
    """Print a bar for each budget: ``#`` is spent, ``+`` is reserved; the percentage is rounded down."""
    rows = [
        (f"{each.backend}.{each.budget}", _bar(each), f"{math.floor(100 * each.spent / each.limit)} %", _amounts(each))
        for each in budgets
    ]
    print_table(("budget (in UTC)", "", "spent", ""), rows)


def print_begun_anew(router: Router, budgets: Iterable[Spending]) -> None:
    """Print what no budget counts: calls of rungs that are none now, or from before a budget had its name."""
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    totals = router.ledger_totals(since=month)
    for name, cost_usd, tokens in _booked_for_others(router, totals):
        typer.echo(
            f"{one_line(name)} has used {dollars(cost_usd)} and {tokens:,} tokens this month and is not a rung any "
            "more. If it was renamed, its own budgets start at zero under the new name."
        )
    for each in budgets:
        missing = _booked_for(each, totals) - each.spent
        if missing > each.limit / 100:
            typer.echo(
                f"{each.backend}.{each.budget} does not count {_amount(each, missing)} that "
                f"{' and '.join(map(one_line, each.backends))} used in {each.period} before it was set or got its name."
            )


def _booked_for_others(router: Router, totals: Iterable[LedgerTotal]) -> Iterator[tuple[str, float, int]]:
    """Yield what was booked for each backend that is no rung of a router."""
    rungs = {rung.backend for rung in router.status()}
    others = [each for each in totals if each.backend not in rungs]
    for name in sorted({each.backend for each in others}):
        own = [each for each in others if each.backend == name]
        tokens = sum(each.input_tokens + each.output_tokens for each in own)
        cost_usd = sum(each.cost_usd for each in own)
        if tokens or cost_usd:
            yield name, cost_usd, tokens


def _booked_for(budget: Spending, totals: Iterable[LedgerTotal]) -> float:
    """Return what was booked in a budget's period for the rungs that it counts."""
    own = [each for each in totals if each.backend in budget.backends and utc_day(each.at).startswith(budget.period)]
    if budget.budget.endswith("_usd"):
        return sum(each.cost_usd for each in own)
    return sum(each.input_tokens + each.output_tokens for each in own)


def is_spent(budget: Spending) -> bool:
    """Return whether nothing is left."""
    return budget.spent >= budget.limit


def _bar(budget: Spending) -> str:
    spent = min(BAR_WIDTH, math.floor(BAR_WIDTH * budget.spent / budget.limit))
    taken = min(BAR_WIDTH, math.floor(BAR_WIDTH * (budget.spent + budget.reserved) / budget.limit))
    return f"[{'#' * spent}{'+' * (taken - spent)}{'.' * (BAR_WIDTH - taken)}]"


def _amounts(budget: Spending) -> str:
    return f"{_amount(budget, budget.spent).removesuffix(' tokens')} of {_amount(budget, budget.limit)}"


def _amount(budget: Spending, amount: float) -> str:
    return dollars(amount) if budget.budget.endswith("_usd") else f"{amount:,.0f} tokens"
