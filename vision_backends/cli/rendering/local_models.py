"""The models that a rung holds on this machine, as a table.

This module decides how the facts of a model read. It must not know which facts there are: a backend reports one mapping
for each of its models, and whatever is in it becomes a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from vision_backends.cli.rendering.text import print_table

if TYPE_CHECKING:
    from vision_backends.reports import RungStatus

__all__ = ["print_models"]

REVISION_LENGTH = 12
"""Characters of a commit that tell it from all others in practice."""


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
