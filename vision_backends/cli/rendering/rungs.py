"""How the state of the rungs reads on a terminal.

This module decides which reasons of a rung are told together. It must not judge any rung itself.
"""

from vision_backends.reports import RungStatus, Verdict
from vision_backends.types import Task

__all__ = ["reasons"]


def reasons(rung: RungStatus) -> list[tuple[list[Task], Verdict]]:
    """Return what stands in the way of a rung, each reason once, with the tasks that it applies to."""
    found: dict[tuple[str | None, str | None], tuple[list[Task], Verdict]] = {}
    for task, verdict in rung.tasks.items():
        if not verdict.ready:
            tasks, _ = found.setdefault((verdict.reason, verdict.remedy), ([], verdict))
            tasks.append(task)
    return list(found.values())
