"""Gates that are not open: ``vision reset``, and what ``vision status`` says of them.

This module decides how a gate reads. It must not know what closes one.
"""

from typing import TYPE_CHECKING

import typer

from vision_backends.cli.options import ConfigFile, Debug, OptionalBackend
from vision_backends.cli.rendering.budgets import is_spent
from vision_backends.cli.rendering.exits import exit_codes, tell
from vision_backends.cli.session import open_router
from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from vision_backends.observability.events import Event
    from vision_backends.router import Router

__all__ = ["reset"]


def reset(backend: OptionalBackend = None, *, config: ConfigFile = None, debug: Debug = False) -> None:
    """Ask a backend again at once, or all of them: after topping up, or correcting a key."""
    with exit_codes(debug=debug), open_router(config) as (router, _):
        _check_name(router, backend)
        opened = _open_gates(router, backend)
        for line in opened:
            typer.echo(line)
        if not opened:
            typer.echo(f"No gate {f'of {backend} ' if backend else ''}is closed.")
        for budget in router.spending():
            if backend in {None, budget.backend} and is_spent(budget):
                name = f"{budget.backend}.{budget.budget}"
                tell(f"{name} = {budget.limit:g} is spent for {budget.period} (UTC): raise it in vision.toml, or wait")


def _check_name(router: "Router", backend: str | None) -> None:
    """Refuse a backend that is on no ladder and has closed no gate."""
    known = dict.fromkeys([*(rung.backend for rung in router.status()), *(gate.backend for gate in router.gates())])
    if backend is not None and backend not in known:
        raise InvalidRequestError(f"There is no backend {backend!r}.", remedy=f"There are: {', '.join(known)}.")


def _open_gates(router: "Router", backend: str | None) -> list[str]:
    """Open the gates of a backend and return a line about each."""
    from vision_backends.health.scopes import Transition

    opened: list[str] = []

    def note(event: "Event") -> None:
        if isinstance(event, Transition):
            opened.append(f"{event.scope}: opened the {event.gate} gate ({event.reason})")

    unsubscribe = router.subscribe(note)
    router.reset(backend)
    unsubscribe()
    return opened
