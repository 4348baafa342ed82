"""What a person is told of servers before anything is sent there.

This module decides in which words a server is named that is not OpenAI's own, and one whose price is unknown. It must
not know who asks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vision_backends.cli.rendering.exits import tell
from vision_backends.cli.rendering.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vision_backends.config.settings import Settings
    from vision_backends.reports import Explanation

__all__ = ["tell_prices", "tell_servers"]


def tell_servers(settings: Settings, names: Iterable[str]) -> None:
    """Say on standard error which servers some rungs ask that are not OpenAI's own."""
    for name in names:
        server = settings.server_of(name)
        if server is not None and not server.is_openai:
            tell(f"{name} is {server}, not a server of OpenAI")


def tell_prices(explanation: Explanation) -> None:
    """Say on standard error which rungs may be asked whose costs nobody can tell."""
    from vision_backends.backends.registry import section_of
    from vision_backends.health.budgets import remedy_of_unpriced

    for verdict in explanation.verdicts:
        if verdict.ready and verdict.unpriced:
            models = ", ".join(map(one_line, verdict.unpriced))
            remedy = remedy_of_unpriced(section_of(verdict.backend))
            tell(f"{verdict.backend}: the price of {models} is unknown, and so is its cost. {remedy}.")
