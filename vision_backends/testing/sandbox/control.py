"""``/_sandbox/…``: controlling a running sandbox over HTTP, as can be done in Python.

This module decides the paths and the JSON of the control API. It must not know sockets, nor how anything is played.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.testing.sandbox.fault_table import FAULTS
from vision_backends.testing.sandbox.limits import Limits
from vision_backends.testing.sandbox.script import parse_plan
from vision_backends.testing.sandbox.wire import HttpReply

if TYPE_CHECKING:
    from vision_backends.testing.sandbox.server import SandboxServer
    from vision_backends.testing.sandbox.wire import HttpRequest

__all__ = ["PREFIX", "control"]

PREFIX = "/_sandbox"


def control(call: HttpRequest, server: SandboxServer) -> HttpReply:
    """Return the reply to a call whose path starts with ``/_sandbox``.

    ``POST play {"play": fault or script or chaos, "times": n}`` · ``POST limits {"rpm": …}`` · ``POST heal`` ·
    ``POST release`` · ``POST reset`` · ``GET requests`` · ``GET counts`` · ``GET script`` · ``GET faults``
    """
    if "origin" in call.headers:  # no web page has any business here
        return _error(403, "The control API is not open to browsers.")
    action = f"{call.method} {call.path.removeprefix(PREFIX).strip('/')}"
    try:
        return _act(action, call.body if isinstance(call.body, dict) else {}, server)
    except (TypeError, ValueError) as exc:
        return _error(400, str(exc))


def _act(action: str, body: dict[str, Any], server: SandboxServer) -> HttpReply:
    match action:
        case "GET requests":
            return HttpReply(body={"requests": [request.to_dict() for request in server.requests]})
        case "GET counts":
            return HttpReply(body=dict(server.counts))
        case "GET script":
            return HttpReply(body=server.recorded.to_dict())
        case "GET faults":
            return HttpReply(body={"faults": list(FAULTS)})
        case "POST play":
            server.play(parse_plan(body.get("play"), times=body.get("times")))
        case "POST limits":
            server.limit(Limits(**body))
        case "POST heal":
            server.heal()
        case "POST release":
            server.release()
        case "POST reset":
            server.reset()
        case _:
            return _error(404, f"The sandbox's control API has no {action!r}.")
    return HttpReply(body={"done": True})


def _error(status: int, message: str) -> HttpReply:
    return HttpReply(status=status, body={"error": {"message": message, "type": "sandbox_control", "code": None}})
