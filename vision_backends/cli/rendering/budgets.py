"""Budgets as bars.

This module decides how far a budget looks spent. It must not know what was bought.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vision_backends.cli.rendering.text import dollars, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vision_backends.health.budgets import Spending

__all__ = ["is_spent", "print_budgets"]

WIDTH = 16
"""Characters of a bar; plain ones, which every terminal has."""


def print_budgets(budgets: Iterable[Spending]) -> None:
    """Print a bar for each budget: ``#`` is spent, ``+`` is reserved for calls that are running."""
    rows = [(f"{each.backend}.{each.budget}", _bar(each), _percent(each), _amounts(each)) for each in budgets]
    print_table(("budget (in UTC)", "", "spent", ""), rows)


def is_spent(budget: Spending) -> bool:
    """Return whether nothing is left."""
    return budget.spent >= budget.limit


def _bar(budget: Spending) -> str:
    spent = min(WIDTH, math.floor(WIDTH * budget.spent / budget.limit))
    taken = min(WIDTH, math.floor(WIDTH * (budget.spent + budget.reserved) / budget.limit))
    return f"[{'#' * spent}{'+' * (taken - spent)}{'.' * (WIDTH - taken)}]"


def _percent(budget: Spending) -> str:
    """Return the part that is spent, rounded down: 100 % is what is spent in full."""
    return f"{math.floor(100 * budget.spent / budget.limit)} %"


def _amounts(budget: Spending) -> str:
    if budget.budget.endswith("_usd"):
        return f"{dollars(budget.spent)} of {dollars(budget.limit)}"
    return f"{budget.spent:,.0f} of {budget.limit:,.0f} tokens"
