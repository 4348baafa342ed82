"""What a router is made of, checked before anything is opened: its ladders, its limits and its other parts.

This module decides what such parts have to be, and what stands in their place where one is left out. It must not know
what a router does with them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vision_backends.arguments import did_you_mean, iterate, shown
from vision_backends.backends.base import Backend
from vision_backends.backends.conformance import defect_of
from vision_backends.backends.requests import (
    AskRequest,
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    Request,
)
from vision_backends.errors import ConfigError, InvalidRequestError
from vision_backends.health.budgets import ACCOUNTS, Limits
from vision_backends.images import ImageLimits
from vision_backends.observability.alerts import Alerts
from vision_backends.types import TASKS, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["check_parts", "check_prices", "ladders_of", "limits_of", "plain_request"]

PLAIN_REQUESTS: dict[Task, Request] = {
    "describe": DescribeRequest(),
    "embed": EmbedRequest(),
    "embed_text": EmbedTextRequest(),
    "detect": DetectRequest(),
    "ask": AskRequest(prompt="What is this?"),
}


def ladders_of(
    ladder: Sequence[Backend] | Mapping[Task, Sequence[Backend]],
) -> dict[Task, Sequence[Backend]]:
    """Return one ladder per task; a task that a mapping leaves out has no backends."""
    if isinstance(ladder, Mapping):
        for task in ladder:
            plain_request(task)
        ladders: dict[Task, Sequence[Backend]] = {task: _rungs(ladder.get(task, ())) for task in (*TASKS, *ladder)}
    else:
        ladders = dict.fromkeys(TASKS, _rungs(ladder))
    if "ask" not in ladders:
        ladders["ask"] = ladders["describe"]
    if not any(ladders.values()):
        raise InvalidRequestError("The ladder is empty.", remedy="Pass at least one backend.")
    for task, backends in ladders.items():
        names = [backend.name for backend in backends]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            message = f"The ladder for {task} names {sorted(twice)} twice."
            raise InvalidRequestError(message, remedy='Give each a name: OpenAIBackend(…).named("second").')
    rungs = {id(backend): backend for backends in ladders.values() for backend in backends}.values()
    names = [backend.name for backend in rungs]
    alike = sorted({name for name in names if names.count(name) > 1})
    if alike:
        message = f"Two backends, on ladders of different tasks, are named {alike[0]!r}."
        raise InvalidRequestError(message, remedy='Give each a name: OpenAIBackend(…).named("second").')
    return ladders


def _rungs(ladder: Iterable[object]) -> tuple[Backend, ...]:
    """Return the backends of a ladder.

    Raises:
        InvalidRequestError: One is something else, or lacks what a backend must have.
    """
    remedy = 'Pass backends, as Router([EmbeddedBackend()]); for names, write ladder = ["embedded"] in vision.toml.'
    rungs: list[Backend] = []
    for rung in iterate("The ladder", ladder, remedy=remedy):
        if not isinstance(rung, Backend):
            raise InvalidRequestError(f"{shown(rung)} on the ladder is not a backend.", remedy=remedy)
        defect = defect_of(rung)
        if defect is not None:
            raise InvalidRequestError(f"A {type(rung).__name__} on the ladder {defect.words}.", remedy=defect.remedy)
        rungs.append(rung)
    return tuple(rungs)


def check_parts(
    *,
    store: object,
    limits: Mapping[str, object] | None,
    alerts: object,
    image_limits: object,
) -> None:
    """Return if the parts of a router are what their names say.

    Raises:
        InvalidRequestError: One is something else.
    """
    if store is not None and (isinstance(store, str | os.PathLike) or not hasattr(store, "close")):
        remedy = "Pass open_store(path), of vision_backends.storage."
        raise InvalidRequestError(f"store={shown(store)} is not a store.", remedy=remedy)
    for backend, allowed in (limits or {}).items():
        if not isinstance(allowed, Limits):
            remedy = f"Pass limits={{{backend!r}: Limits(requests_per_minute=60)}}."
            raise InvalidRequestError(f"The limits of {backend!r} are {shown(allowed)}.", remedy=remedy)
    for name, value, kind in (("alerts", alerts, Alerts), ("image_limits", image_limits, ImageLimits)):
        if value is not None and not isinstance(value, kind):
            raise InvalidRequestError(
                f"{name}={shown(value)} is not {kind.__name__}.", remedy=f"Pass {kind.__name__}(…)."
            )


def limits_of(limits: Mapping[str, Limits]) -> dict[str, dict[str, Limits]]:
    """Return what limits each backend, by whose it is: its own name, and that of its account.

    Raises:
        ConfigError: It names an account that is not there, or an account names another.
    """
    found: dict[str, dict[str, Limits]] = {}
    for name, allowed in limits.items():
        found[name] = {name: allowed}
        if allowed.account is None:
            continue
        if name.startswith(ACCOUNTS):
            message = f"[{name}] names an account, and is one."
            raise ConfigError(message, remedy="Write account into the tables of rungs.")
        account = ACCOUNTS + allowed.account
        if account not in limits:
            known = [each.removeprefix(ACCOUNTS) for each in limits if each.startswith(ACCOUNTS)]
            near = did_you_mean(allowed.account, known).rstrip()
            message = f"{name}.account = {shown(allowed.account)} is not an account: there is no table [{account}]."
            otherwise = f"Write [{account}], with the limits that its rungs share."
            raise ConfigError(message, remedy=near or otherwise)
        found[name][account] = limits[account]
    return found


def check_prices(ladders: Mapping[Task, Sequence[Backend]], limits: Mapping[str, Mapping[str, Limits]]) -> None:
    """Return if budgets in US dollars can count what the plain request of each task costs.

    Raises:
        ConfigError: The price of a model is unknown.
    """
    for backend in {id(each): each for ladder in ladders.values() for each in ladder}.values():
        requests = [PLAIN_REQUESTS[task] for task, ladder in ladders.items() if backend in ladder]
        for name, allowed in limits.get(backend.name, {}).items():
            allowed.check_priced(backend, requests, name=name, error=ConfigError)


def plain_request(task: object) -> Request:
    """Return the request of a task without options.

    Raises:
        InvalidRequestError: There is no such task.
    """
    if not isinstance(task, str) or task not in PLAIN_REQUESTS:
        raise InvalidRequestError(f"There is no task {task!r}.", remedy=f"Tasks: {', '.join(TASKS)}.")
    return PLAIN_REQUESTS[task]
