"""Alerts for people: a budget is nearly or fully spent, a backend is lost to trouble that needs them, or is back.

Short blocks, such as rate limits, raise no alert. Every event is reported once, as it happens once among all processes:
this module keeps no state. It decides which events matter to people and how they are worded. It must not know how a
message travels.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from vision_backends.health.budgets import Alert
from vision_backends.health.policy import Transition, duration
from vision_backends.serialization import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.health.policy import GateKind
    from vision_backends.observability.events import Event
    from vision_backends.observability.webhook import Webhook

__all__ = ["Alerts", "Notice", "NoticeKind", "Severity", "notice_of"]

NoticeKind = Literal[
    "budget_warning",
    "budget_spent",
    "quota_ended",
    "authentication_failed",
    "model_not_found",
    "refused",
    "outage",
    "recovery",
]
"""What a notice is about."""

Severity = Literal["info", "warning", "error"]

LEVELS: dict[Severity, int] = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

SPENT_PERCENT = 100

ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
"""Slack reads <…> as links and mentions, and a reason may be any text that a server sent."""

_log = logging.getLogger("vision_backends.alerts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Record):
    """An event that concerns people, worded for them. Holds no key, prompt, text or image.

    Attributes:
        at: When it happened, in seconds since 1970 UTC.
        kind: What it is about.
        severity: How bad it is: ``"info"`` for good news.
        backend: Which backend it is about.
        scope: How much of that backend: ``openai``, ``openai/gpt-x`` or ``openai/gpt-x/describe``.
        reason: The provider's code, the kind of the error or the key of the budget.
        message: All of this in a sentence.
        remedy: What the reader can do about it; None when there is nothing to do.
        until: When the backend is asked again, in seconds since 1970 UTC; None where that does not apply.
    """

    at: float
    kind: NoticeKind
    severity: Severity
    backend: str
    scope: str
    reason: str
    message: str
    remedy: str | None = None
    until: float | None = None

    @property
    def text(self) -> str:
        """Message and remedy in one line."""
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class _Words(NamedTuple):
    kind: NoticeKind
    severity: Severity
    trouble: str
    remedy: str | None = None


TROUBLES: dict[GateKind, _Words] = {
    "quota": _Words(
        "quota_ended",
        "error",
        "The account of {backend} has no quota left",
        "Top it up, then run `vision reset {backend}`.",
    ),
    "authentication": _Words(
        "authentication_failed",
        "error",
        "{backend} does not accept the key",
        "Correct the key, then run `vision reset {backend}`.",
    ),
    "model": _Words(
        "model_not_found",
        "error",
        "{backend} does not know the model {model}",
        "Configure a model that this account may use, then run `vision reset {backend}`.",
    ),
    "refusal": _Words(
        "refused",
        "warning",
        "{scope} is not offered there",
        "Take {backend} off this task's ladder, or run `vision reset {backend}` once it is.",
    ),
    "outage": _Words("outage", "warning", "{scope} is out of order"),
}
"""The gates that raise alerts."""


class Alerts:
    """Sends notices to the log ``vision_backends.alerts`` and to the channels that are configured.

    Trouble is logged as a warning or an error, recovery as information. No channel can fail a call.

    Args:
        webhook: Receives each notice as JSON, with a ``text`` as Slack's incoming webhooks expect it.
        on_alert: Called with each notice, in the thread that delivers events; should be quick.
    """

    def __init__(self, *, webhook: Webhook | None = None, on_alert: Callable[[Notice], object] | None = None) -> None:
        self._webhook = webhook
        self._on_alert = on_alert

    def __call__(self, event: Event) -> None:
        """Report an event if it concerns people."""
        notice = notice_of(event)
        if notice is None:
            return
        fields = {f"vision_{name}": value for name, value in notice.to_dict().items() if value is not None}
        _log.log(LEVELS[notice.severity], "%s", notice.text, extra=fields)
        if self._webhook is not None:
            self._webhook.post(notice.to_dict() | {"text": f"vision-backends: {notice.text}".translate(ESCAPED)})
        if self._on_alert is not None:
            try:
                self._on_alert(notice)
            except Exception:  # noqa: BLE001 — a callback may raise anything
                _log.exception("The callback failed on an alert of kind %s.", notice.kind)

    def close(self) -> None:
        """Wait briefly for notices that are still being sent; may be called twice."""
        if self._webhook is not None:
            self._webhook.close()


def notice_of(event: Event) -> Notice | None:
    """Return the notice about an event of the router; None when it does not concern people."""
    if isinstance(event, Alert):
        return _of_budget(event)
    if not isinstance(event, Transition) or event.gate not in TROUBLES:
        return None
    if event.after == "passing":
        return _recovery(event)
    if event.before == "passing" and event.after == "blocked":
        return _trouble(event, TROUBLES[event.gate])
    return None  # a probe, or the same trouble going on after one


def _of_budget(alert: Alert) -> Notice:
    spent = alert.percent >= SPENT_PERCENT
    return Notice(
        at=alert.at,
        kind="budget_spent" if spent else "budget_warning",
        severity="error" if spent else "warning",
        backend=alert.backend,
        scope=alert.backend,
        reason=alert.budget,
        message=alert.message,
        remedy=f"Raise {alert.budget} to go on before the period ends." if spent else None,
    )


def _trouble(event: Transition, words: _Words) -> Notice:
    known = {"backend": event.backend, "model": event.model, "scope": event.scope}
    again = "" if event.until is None else f"; it is asked again in {duration(event.until - event.at)}"
    return Notice(
        at=event.at,
        kind=words.kind,
        severity=words.severity,
        backend=event.backend,
        scope=known["scope"],
        reason=event.reason,
        message=f"{words.trouble.format(**known)} ({event.reason}){again}.",
        remedy=words.remedy.format(**known) if words.remedy else None,
        until=event.until,
    )


def _recovery(event: Transition) -> Notice:
    news = "answers again" if event.before == "probing" else "was reset and is asked again with the next call"
    return Notice(
        at=event.at,
        kind="recovery",
        severity="info",
        backend=event.backend,
        scope=event.scope,
        reason=event.reason,
        message=f"{event.scope} {news}; its trouble was {TROUBLES[event.gate].kind} ({event.reason}).",
    )
