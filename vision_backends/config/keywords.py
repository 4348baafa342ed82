"""What a program may set in place of files and variables, as a type checker sees it.

This module decides which keywords `Router.from_config` takes: one for each key of `Settings`. It must not know what is
a valid value, which `Settings` does, and imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from vision_backends.types import Task

__all__ = ["ConfigKeywords"]


class ConfigKeywords(TypedDict, total=False):
    """The keywords of `Router.from_config`. They win over every file and variable, key by key.

    Attributes:
        ladder: The rungs, best first, or one such list per task.
        deadline_s: Seconds that one input may take, however many backends are asked.
        hedge_after_s: When a call also asks the next rung: seconds, ``"p95"``, or None for never.
        local_only: Whether backends that send images elsewhere are left out of every ladder.
        warm_standby: Whether the first sign of trouble with a rung warms up the next one.
        state: Where cache, ledger and gates live: ``"auto"``, ``"memory"`` or a path.
        cache: Keys of the ``[cache]`` table.
        images: Keys of the ``[images]`` table.
        alerts: Keys of the ``[alerts]`` table.
        logs: Keys of the ``[logs]`` table.
        openai: Keys of the ``[openai]`` table.
        local: Keys of the ``[local]`` table.
        embedded: Keys of the ``[embedded]`` table.
        backends: The tables of other rungs, by name; a table has a ``kind``.
        accounts: Limits that the rungs share whose tables name an account, by its name.
    """

    ladder: Sequence[str] | Mapping[Task, Sequence[str]]
    deadline_s: float
    hedge_after_s: float | Literal["p95"] | None
    local_only: bool
    warm_standby: bool
    state: str | os.PathLike[str]
    cache: Mapping[str, Any]
    images: Mapping[str, Any]
    alerts: Mapping[str, Any]
    logs: Mapping[str, Any]
    openai: Mapping[str, Any]
    local: Mapping[str, Any]
    embedded: Mapping[str, Any]
    backends: Mapping[str, Mapping[str, Any]]
    accounts: Mapping[str, Mapping[str, Any]]
