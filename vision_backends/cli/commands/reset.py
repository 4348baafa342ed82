"""``vision reset``: let blocked gates pass again.

This module decides what a reset reports. It must not know what blocks a gate.
"""

from typing import TYPE_CHECKING

import typer

from vision_backends.arguments import did_you_mean
from vision_backends.cli.options import CommonOptions, OptionalBackend, command
from vision_backends.cli.rendering.exits import tell
from vision_backends.cli.rendering.status import is_spent
from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from vision_backends.observability.events import Event
    from vision_backends.router import Router

__all__ = ["reset"]


@command
def reset(backend: OptionalBackend = None, *, options: CommonOptions) -> None:
    """Ask a backend, or all of them, again immediately: after topping up or correcting a key."""
    with options.open_router() as (router, _):
        _check_name(router, backend)
        lines = _reset_gates(router, backend)
        for line in lines:
            typer.echo(line)
        if not lines:
            typer.echo(f"No gate {f'of {backend} ' if backend else ''}is blocked.")
        for budget in router.spending():
            if (backend is None or backend in budget.backends) and is_spent(budget):
                name = f"{budget.backend}.{budget.budget}"
                tell(f"{name} = {budget.limit:g} is spent for {budget.period} (UTC): raise it in vision.toml, or wait")


def _check_name(router: "Router", backend: str | None) -> None:
    """Refuse a backend that is on no ladder and has blocked no gate."""
    known = dict.fromkeys([*(rung.backend for rung in router.status()), *(gate.backend for gate in router.gates())])
    if backend is not None and backend not in known:
        raise InvalidRequestError(
            f"There is no backend {backend!r}.", remedy=f"{did_you_mean(backend, known)}There are: {', '.join(known)}."
        )


def _reset_gates(router: "Router", backend: str | None) -> list[str]:
    """Let the gates of a backend pass and return a line about each."""
    from vision_backends.health.policy import Transition

    lines: list[str] = []

    def note(event: "Event") -> None:
        if isinstance(event, Transition):
            lines.append(f"{event.scope}: reset the {event.gate} gate ({event.reason})")

    unsubscribe = router.subscribe(note)
    router.reset(backend)
    unsubscribe()
    return lines
