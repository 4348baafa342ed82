"""Whether the sums of a run add up: traces, ledger and budget on our side, the server's own bill on the other.

What must be equal:

* attempts in traces and errors = attempts reported to a listener = rows of the ledger, each with the same numbers;
* for each call whose rows all have their tokens, not estimated: these = what the server has billed for it;
* tokens and money of the budget = those of the ledger, plus, for each row without them (the server may have charged
  something and did not say how much), the estimate of what the call would take at most. An answer that came after its
  caller had gone has a row of its own, which then counts instead of the estimate.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos_calls import make_question
from timing import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vision_backends import Backend, Usage
    from vision_backends.health.budgets import Spending
    from vision_backends.storage.base import LedgerRow

__all__ = ["Books", "compare"]

NAMELESS = frozenset({"length", "not_json", "schema_broken"})
"""Faults after which a caption no longer names its colour, so that the embedding that follows cannot be attributed."""

RESENT = frozenset({"connection_closed", "connection_reset"})
"""Faults before the first byte of a reply. On a connection that was used before, the request is sent once more, as the
server may have closed it while it was idle; what it billed for the first one is unknown."""

NANO_USD = 1_000_000_000

COLOUR = re.compile(r"#([0-9a-f]{6})")

REMOTE = "openai"

CAME_LATE = "came_late"
"""Code of the row of an answer that came after its caller had gone."""

TASKS_OF = {"describe_stream": "describe"}

ESTIMATED = "estimated"
"""Code of a call that was given up; its tokens are what it was estimated to take at most."""

LOGGED = ("backend", "outcome", "error", "code", "at", "input_tokens", "output_tokens", "cost_usd")


@dataclass
class Books:
    """The log of a run, call by call.

    Attributes:
        calls: The lines of the log.
        billed: Tokens that the server has billed, by call number.
        received: Requests that the server has received, by call number.
        played: Faults that these requests met, by call number.
    """

    calls: list[dict[str, Any]]
    billed: Counter[int] = field(default_factory=Counter)
    received: Counter[int] = field(default_factory=Counter)
    played: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, log: Path, requests: Iterable[Mapping[str, Any]]) -> Books:
        """Read the log of the calls and group the server's requests by call."""
        with log.open(encoding="utf-8") as lines:
            books = cls(calls=[json.loads(line) for line in lines])
        for request in requests:
            number = _number(request)
            books.billed[number] += request["tokens"]
            books.received[number] += 1
            books.played[number].append(request["fault"])
        return books

    def count(self, **wanted: object) -> int:
        """Return how many calls have these values in their lines."""
        return sum(all(call[key] == value for key, value in wanted.items()) for call in self.calls)

    def left_no_time(self) -> int:
        """Return how many calls had no time left for a rung when its turn came."""
        return sum(
            row["outcome"] == "skipped" and row["error"] == "timed_out"
            for call in self.calls
            for row in call["attempts"]
        )

    def late_ms(self) -> float:
        """Return by how many milliseconds the latest call missed its deadline."""
        return max(call["late_s"] for call in self.calls) * 1e3

    def later_than(self, seconds: float) -> int:
        """Return how many calls missed their deadline by more than that."""
        return sum(call["late_s"] > seconds for call in self.calls)


def compare(
    books: Books, *, ledger: Iterable[LedgerRow], spending: Iterable[Spending], backend: Backend
) -> list[Figure]:
    """Return how far each sum is from what it should be.

    Args:
        books: The log of the calls and the server's requests.
        ledger: The rows that were booked.
        spending: The budgets as they stand.
        backend: Estimates the tokens and cost of attempts that do not know theirs.
    """
    rows = list(ledger)
    late = [row for row in rows if row.code == CAME_LATE]
    in_log = Counter((call["call_id"], *row.values()) for call in books.calls for row in call["attempts"])
    in_ledger = Counter(_values(row) for row in rows if row.code != CAME_LATE)
    apart = (in_log - in_ledger) + (in_ledger - in_log)
    traced = [call for call in books.calls if not (NAMELESS | RESENT).intersection(books.played[call["number"]])]
    differences = [_tokens(call) - books.billed[call["number"]] for call in traced if _is_known(call)]
    tokens, nano_usd = _expected_spending(books, late, backend)
    spent = {each.budget: each.spent for each in spending}
    spent_nano_usd = round(spent["daily_budget_usd"] * NANO_USD)
    counts = {
        "rows of the ledger": len(rows),
        "rows of answers that came late": len(late),
        "tokens that the server has billed": books.billed.total(),
        "calls whose tokens are unknown": sum(not _is_known(call) for call in books.calls),
    }
    faults = {
        "answers and errors that do not list their attempts": books.count(told=False),
        "rows in either the ledger or the log, but not in both": apart.total(),
        "calls whose requests are not explained by their attempts": _unexplained(books, traced),
        "calls whose known tokens are not those billed": sum(map(bool, differences)),
        "tokens by which these are wrong": sum(map(abs, differences)),
        "budget against ledger and estimates, tokens": abs(spent["daily_budget_tokens"] - tokens),
        "budget against ledger and estimates, 10⁻⁹ USD": abs(spent_nano_usd - nano_usd),
    }
    return [
        *[Figure(name=name, value=value, unit="") for name, value in counts.items()],
        *[Figure(name=name, value=value, unit="", target=0) for name, value in faults.items()],
    ]


def _number(request: Mapping[str, Any]) -> int:
    """Return the number of the call that sent a request: the colour of its image or in its text."""
    if request["pictures"]:
        red, green, blue = request["pictures"][0]["mean_rgb"]
        return int((red << 16) + (green << 8) + blue)
    found = COLOUR.search(json.dumps(request["body"].get("input", "")))
    return int(found[1], 16) if found else -1


def _values(row: LedgerRow) -> tuple[object, ...]:
    """Return a row of the ledger in the form of a row of the log."""
    return (row.call_id, *(getattr(row, key) for key in LOGGED))


def _remote(call: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [row for row in call["attempts"] if row["backend"] == REMOTE and row["outcome"] in {"answered", "failed"}]


def _is_known(call: Mapping[str, Any]) -> bool:
    return all(row["input_tokens"] is not None and row["code"] != ESTIMATED for row in _remote(call))


def _tokens(call: Mapping[str, Any]) -> int:
    return sum((row["input_tokens"] or 0) + (row["output_tokens"] or 0) for row in _remote(call))


def _unexplained(books: Books, traced: Iterable[Mapping[str, Any]]) -> int:
    """Return how many calls sent more requests than they had attempts, or fewer than they had answers.

    Embedding an image takes two requests; an attempt may fail before the first one, or after it.
    """
    count = 0
    for call in traced:
        each = 2 if make_question(call["number"]).method == "embed" else 1
        rows = _remote(call)
        least = each * sum(row["outcome"] == "answered" for row in rows)
        count += not least <= books.received[call["number"]] <= each * len(rows)
    return count


def _expected_spending(books: Books, late: Iterable[LedgerRow], backend: Backend) -> tuple[int, int]:
    """Return the tokens and the billionths of a dollar that the budget should have booked."""
    estimates = {call["number"]: _estimate(call["number"], backend) for call in books.calls if _remote(call)}
    by_task = {TASKS_OF.get(method, method): usage for method, usage in estimates.values()}
    tokens = nano_usd = 0
    for call in books.calls:
        for row in _remote(call):
            _, most = estimates[call["number"]]
            tokens += _sum(row["input_tokens"], row["output_tokens"], most)
            nano_usd += _nano(most.cost_usd if row["cost_usd"] is None else row["cost_usd"])
    for row in late:
        if row.backend == REMOTE:
            most = by_task[row.task]
            tokens += _sum(row.input_tokens, row.output_tokens, most) - _sum(None, None, most)
            nano_usd += _nano(most.cost_usd if row.cost_usd is None else row.cost_usd) - _nano(most.cost_usd)
    return tokens, nano_usd


def _estimate(number: int, backend: Backend) -> tuple[str, Usage]:
    question = make_question(number)
    request, content = question.request()
    return question.method, backend.estimate(request, [content])


def _sum(sent: int | None, received: int | None, most: Usage) -> int:
    """Return the tokens of a row, or of its estimate if the row does not know them."""
    if sent is None or received is None:
        sent, received = most.input_tokens, most.output_tokens
    return (sent or 0) + (received or 0)


def _nano(cost_usd: float | None) -> int:
    return round((cost_usd or 0.0) * NANO_USD)
