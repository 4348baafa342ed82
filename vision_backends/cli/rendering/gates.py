"""How gates read on a terminal.

This module decides how a gate reads. It must not know what blocks one.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vision_backends.cli.rendering.text import print_table

if TYPE_CHECKING:
    from vision_backends.health.policy import GateReport

__all__ = ["print_gates", "stands_before"]


def print_gates(gates: Iterable["GateReport"]) -> None:
    """Print what each gate stands before, what it is blocked by, since when, and when it is probed next."""
    now = time.time()
    rows = [(stands_before(gate), gate.gate, _utc(gate.since), _next_probe(gate, now=now)) for gate in gates]
    print_table(("gate", "blocked by", "since (UTC)", "next probe"), rows)


def stands_before(gate: "GateReport") -> str:
    """Return what a gate stands before: ``openai``, ``openai/gpt-x`` or ``openai/gpt-x/describe``."""
    return "/".join(part for part in (gate.backend, gate.model, gate.task) if part)


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


def _next_probe(gate: "GateReport", *, now: float) -> str:
    from vision_backends.health.policy import duration

    if gate.until > now:
        return f"in {duration(gate.until - now)}"
    return "running" if gate.state == "probing" else "with the next call"
