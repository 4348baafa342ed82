"""``vision usage``: what was asked, answered, missed and spent, from the ledger.

This module decides which part of the ledger is looked at, and how its sums read. It must not know how they are made.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer

from vision_backends.cli.options import JsonOptions, command
from vision_backends.cli.rendering.status import print_begun_anew, print_budgets, print_unpriced
from vision_backends.cli.rendering.text import dollars, dump_json, print_table
from vision_backends.cli.usage_totals import KEYS, Key, Sums, sum_up, utc_day
from vision_backends.errors import InvalidRequestError
from vision_backends.reports import RungStatus
from vision_backends.storage.base import DAY_S, LedgerTotal

__all__ = ["since_of", "usage"]

COLUMNS = ("calls", "cached", "fallbacks", "tokens in", "out", "cost", "mean")

_DAYS = re.compile(r"([1-9]\d{0,3})d")


@command
def usage(
    *,
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="First day: a date such as 2026-11-01, or days ago such as 7d.")
    ] = "30d",
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            autocompletion=lambda: list(KEYS),
            help=f"Group by {', '.join(KEYS[:-1])} or {KEYS[-1]}; can be repeated. Day and model by default.",
        ),
    ] = None,
    options: JsonOptions,
) -> None:
    """Show calls, tokens, cost, cache hits and fallbacks by day (UTC) and model, and how far budgets are spent."""
    begin = since_of(since, now=time.time())
    keys = _keys(by or ("day", "model"))
    with options.open_router() as (router, settings):
        totals = router.ledger_totals(since=begin)
        groups = sum_up(totals, by=keys)
        if options.as_json:
            for group, sums in groups.items():
                typer.echo(dump_json({**dict(zip(keys, group, strict=True)), **sums.to_dict()}))
            return
        if groups:
            typer.echo(f"Since {utc_day(begin)} (days of UTC):")
            _print_groups(keys, groups)
            _print_unpriced(router.status(), totals)
        else:
            typer.echo(f"Nothing was asked since {utc_day(begin)} (UTC).")
        if settings.state_file is None:
            typer.echo('Calls of other processes are not known: state = "memory" keeps nothing.')
        spending = router.spending()
        if spending:
            typer.echo()
            print_budgets(spending)
            print_begun_anew(router, spending)


def since_of(text: str, *, now: float) -> float:
    """Return when a period begins, in seconds since 1970 UTC.

    Args:
        text: A number of days, of which today is the last, as ``7d``; or a day, as ``2026-11-01``.
        now: The time.

    Raises:
        InvalidRequestError: It is neither.
    """
    days = _DAYS.fullmatch(text)
    if days is not None:
        return (math.floor(now / DAY_S) - int(days[1]) + 1) * DAY_S
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise InvalidRequestError(
            f"--since {text} is not a period.",
            remedy="Write a number of days, such as 7d, or a day, such as 2026-11-01.",
        ) from None


def _keys(names: Sequence[str]) -> list[Key]:
    """Return what to group by, each key once."""
    for name in names:
        if name not in KEYS:
            raise InvalidRequestError(
                f"--by {name} is not a key to group by.", remedy=f"Choose from: {', '.join(KEYS)}."
            )
    return [key for key in dict.fromkeys(names) if key in KEYS]


def _print_groups(keys: Sequence[Key], groups: Mapping[tuple[str | None, ...], Sums]) -> None:
    """Print a row for each group, one for all of them together, and why others had to be asked."""
    total = Sums()
    for sums in groups.values():
        total.include(sums)
    asked = {group: sums for group, sums in groups.items() if sums.calls or sums.cached or "error" in keys} or groups
    rows = [[*(part or "-" for part in group), *_cells(sums)] for group, sums in asked.items()]
    if len(asked) > 1:
        rows.append(["total", *("" for _ in keys[1:]), *_cells(total)])
    print_table((*keys, *COLUMNS), rows)
    if total.missed:
        missed = ", ".join(f"{kind} {count:,}" for kind, count in total.missed.most_common())
        typer.echo(f"Rungs that did not answer: {missed}")


def _print_unpriced(rungs: Sequence[RungStatus], totals: Sequence[LedgerTotal]) -> None:
    """Say why costs of some backends are unknown, where that is because nobody has named a price."""
    unknown = {total.backend for total in totals if total.unknown_cost}
    for rung in rungs:
        if rung.backend in unknown:
            print_unpriced(rung, costs="what its calls have cost")


def _cells(sums: Sums) -> list[str]:
    return [
        f"{sums.calls:,}",
        f"{sums.cached:,}",
        sums.fallbacks.show("{:,}".format),
        sums.input_tokens.show("{:,}".format),
        sums.output_tokens.show("{:,}".format),
        sums.cost_usd.show(partial(dollars, decimals=4)),
        "-" if sums.mean_s is None else _duration(sums.mean_s),
    ]


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
