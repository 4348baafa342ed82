"""From settings to the parts of a router: its backends, its limits, its store, and who is told of trouble.

This module decides which key of the configuration becomes which part. It must not know where the keys have come from,
nor what a router does with its parts.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vision_backends.backends.registry import make_backend, section_of
from vision_backends.config.settings import TaskLadders
from vision_backends.config.validation import parse_table
from vision_backends.errors import ConfigError
from vision_backends.health.budgets import ACCOUNTS, Limits
from vision_backends.images import ImageLimits
from vision_backends.observability.alerts import Alerts
from vision_backends.observability.webhook import Webhook
from vision_backends.storage import open_store
from vision_backends.types import TASKS

if TYPE_CHECKING:
    from vision_backends.backends.base import Backend
    from vision_backends.config.settings import Settings

__all__ = ["parts_of"]


def parts_of(settings: Settings) -> dict[str, Any]:
    """Return the arguments of a `Router`; nothing has been sent then, and no model is loaded.

    Raises:
        ConfigError: A key, value or backend name has no meaning.
    """
    made, limits = _rungs(settings)
    names = settings.ladder
    ladders = names.by_task if isinstance(names, TaskLadders) else dict.fromkeys((*TASKS, "ask"), names)
    webhook = settings.alerts.webhook
    return {
        "ladder": {task: [made[name] for name in ladder if name in made] for task, ladder in ladders.items()},
        "deadline_s": settings.deadline_s,
        "store": open_store(
            settings.state_file, max_cache_bytes=settings.cache.max_bytes, is_ours=settings.state == "auto"
        ),
        "caching": settings.cache.enabled,
        "tenant": settings.cache.tenant,
        "hedge_after_s": settings.hedge_after_s,
        "warm_standby": settings.warm_standby,
        "limits": limits | _limits_of_accounts(settings),
        "alerts": Alerts(webhook=Webhook(webhook.get_secret_value()) if webhook else None),
        "image_limits": ImageLimits(**settings.images.model_dump()),
    }


def _rungs(settings: Settings) -> tuple[dict[str, Backend], dict[str, Limits]]:
    """Return the backends on any ladder, by the names of their rungs, and the limits of those that have some."""
    limit_keys = [spec.name for spec in fields(Limits)]
    made: dict[str, Backend] = {}
    limits: dict[str, Limits] = {}
    for name in sorted(set(settings.on_ladders)):
        table = settings.table(name)
        own = {key: table.pop(key) for key in limit_keys if key in table}
        backend = made[name] = make_backend(name, table, beside=limit_keys, known=settings.backends)
        allowed = Limits(**parse_table(Limits, own, section=section_of(name)))
        if allowed.are_any or allowed.account:
            limits[backend.name] = allowed
    if settings.local_only:
        _close_remote(made)
    return made, limits


def _limits_of_accounts(settings: Settings) -> dict[str, Limits]:
    return {
        ACCOUNTS + name: Limits(**parse_table(Limits, table, section=f"[{ACCOUNTS}{name}]"))
        for name, table in settings.accounts.items()
    }


def _close_remote(made: dict[str, Backend]) -> None:
    """Leave out the backends that send images elsewhere.

    Raises:
        ConfigError: No other is left.
    """
    for name in [name for name, backend in made.items() if not backend.is_private]:
        made.pop(name).close()
    if not made:
        raise ConfigError("local_only = true leaves no backend on any ladder.", remedy='Add "embedded" to a ladder.')
