"""Every fault by name: errors, broken deliveries, and answers whose content is wrong.

This module decides which faults there are, and how one is written in JSON. It must not know when they are played.
"""

from __future__ import annotations

from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vision_backends.arguments import did_you_mean
from vision_backends.testing.sandbox.api_errors import ERRORS
from vision_backends.testing.sandbox.faults import HEALTHY, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FAULTS", "dump_fault", "parse_fault"]

_CHAT = ("/v1/chat/completions",)
_RESPONSES = ("/v1/responses",)
_TALK = (*_CHAT, *_RESPONSES)
_EMBEDDINGS = ("/v1/embeddings",)
_HTML = {"content-type": "text/html; charset=utf-8"}
_JSON = {"content-type": "application/json"}

_DELIVERIES = (
    Fault(name="slow", delay_s=1.0),
    Fault(name="slow_drip", drip_s=0.1),
    Fault(name="stall", sends="nothing", then="stall"),
    Fault(name="stall_midway", sends="half", then="stall"),
    Fault(name="half_body", sends="half", then="close"),
    Fault(name="reset_midway", sends="half", then="reset"),
    Fault(name="connection_reset", sends="nothing", then="reset"),
    Fault(name="connection_closed", sends="nothing", then="close"),
    Fault(name="closed_after_reply", then="close"),
)

_NOT_JSON = (
    Fault(name="html_200", status=200, body="<!doctype html><title>Sign in to the network</title>", headers=_HTML),
    Fault(name="empty_200", status=200, body="", headers=_JSON),
    Fault(name="null_200", status=200, body="null", headers=_JSON),
    Fault(name="error_200", status=200, body={"error": {"message": "Provider returned error", "code": 502}}),
    Fault(name="invalid_json", corruption="invalid_json"),
)

_STREAMS = (
    Fault(name="no_done", corruption="no_done", paths=_CHAT),
    Fault(name="no_finish", corruption="no_finish", paths=_TALK),
    Fault(name="error_event", corruption="error_event", code="server_error", paths=_TALK),
    Fault(name="quota_event", corruption="error_event", code="insufficient_quota", paths=_TALK),
    Fault(name="early_usage", corruption="early_usage", paths=_CHAT),
    Fault(name="streamed", corruption="streamed", paths=_TALK),
)

_TEXTS = (
    Fault(name="refusal", corruption="refusal", paths=_TALK),
    Fault(name="content_filter", corruption="content_filter", paths=_TALK),
    Fault(name="length", corruption="length", paths=_TALK),
    Fault(name="empty_answer", corruption="empty_answer", paths=_TALK),
    Fault(name="not_json", corruption="not_json", paths=_TALK),
    Fault(name="fenced_json", corruption="fenced_json", paths=_TALK),
    Fault(name="schema_broken", corruption="schema_broken", paths=_TALK),
    Fault(name="boxes_out_of_range", corruption="boxes_out_of_range", paths=_TALK),
    Fault(name="boxes_inside_out", corruption="boxes_inside_out", paths=_TALK),
    Fault(name="unknown_label", corruption="unknown_label", paths=_TALK),
    Fault(name="no_choices", corruption="no_choices", paths=_TALK),
    Fault(name="response_failed", corruption="failed", code="server_error", paths=_RESPONSES),
    Fault(name="response_failed_rate", corruption="failed", code="rate_limit_exceeded", paths=_RESPONSES),
    Fault(name="response_failed_policy", corruption="failed", code="image_content_policy_violation", paths=_RESPONSES),
)

_VECTORS = (
    Fault(name="too_few_vectors", corruption="too_few_vectors", paths=_EMBEDDINGS),
    Fault(name="too_many_vectors", corruption="too_many_vectors", paths=_EMBEDDINGS),
    Fault(name="wrong_dimension", corruption="wrong_dimension", paths=_EMBEDDINGS),
    Fault(name="nan_vector", corruption="nan_vector", paths=_EMBEDDINGS),
    Fault(name="zero_vector", corruption="zero_vector", paths=_EMBEDDINGS),
)

_QUIRKS = (
    Fault(name="no_usage", corruption="no_usage"),
    Fault(name="no_limit_headers", headers={"x-ratelimit-*": None, "x-request-id": None}),
    Fault(name="list_content", corruption="list_content", paths=_CHAT),
    Fault(name="renamed_model", corruption="renamed_model"),
    Fault(name="shuffled_vectors", corruption="shuffled_vectors", paths=_EMBEDDINGS),
    Fault(name="floats_for_base64", corruption="floats_for_base64", paths=_EMBEDDINGS),
)

_ROWS = (HEALTHY, *ERRORS, *_DELIVERIES, *_NOT_JSON, *_STREAMS, *_TEXTS, *_VECTORS, *_QUIRKS)

FAULTS: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ROWS})
"""Every fault by its name, ``"healthy"`` first; vary one with `dataclasses.replace`."""


def parse_fault(value: object) -> Fault:
    """Return the fault that a name, or JSON such as ``{"name": "slow", "delay_s": 0.2}``, stands for.

    With a name from the table, the row's fields are the defaults; those that are given override them.

    Raises:
        ValueError: The name or a field is unknown, or a value is not valid.
    """
    if isinstance(value, Fault):
        return value
    if isinstance(value, str):
        if value not in FAULTS:
            near = did_you_mean(value, FAULTS)
            raise ValueError(f"There is no fault {value!r}. {near}The faults are {', '.join(FAULTS)}.")
        return FAULTS[value]
    if not isinstance(value, dict):
        raise ValueError(f"A fault is a name or an object, not {value!r}.")  # noqa: TRY004 — one error for all bad JSON
    known = {spec.name for spec in fields(Fault)}
    if unknown := sorted(set(value) - known):
        raise ValueError(f"A fault has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
    try:
        return replace(_base(value.get("name", "custom")), **value)
    except TypeError as exc:
        raise ValueError(f"{value!r} is not a fault: {exc}.") from exc


def dump_fault(fault: Fault) -> str | dict[str, Any]:
    """Return the JSON that `parse_fault` reads: the name, and the fields that differ from its row."""
    base = _base(fault.name)
    changed = {
        spec.name: _plain(getattr(fault, spec.name))
        for spec in fields(Fault)
        if getattr(fault, spec.name) != getattr(base, spec.name)
    }
    if not changed and fault.name in FAULTS:
        return fault.name
    return {"name": fault.name, **changed}


def _base(name: str) -> Fault:
    return FAULTS.get(name) or Fault(name=name)


def _plain(value: Any) -> Any:  # noqa: ANN401 — any field of a fault
    return list(value) if isinstance(value, tuple) else value
