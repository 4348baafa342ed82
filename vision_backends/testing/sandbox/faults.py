"""A fault: one way in which a reply can go wrong, as a frozen record.

This module decides what a fault can specify: what is answered, how the healthy answer is corrupted, how the bytes are
delivered, and which requests it applies to. It must not know which faults there are (`fault_table`), when they are
played (`script`), nor how any of it is done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from vision_backends.testing.sandbox.corruptions import CORRUPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HEALTHY", "Ending", "Fault", "Portion"]

Portion = Literal["all", "half", "nothing"]
"""How much of a reply is sent before its ending."""

Ending = Literal["keep", "close", "reset", "stall"]
"""What happens to the connection: kept, closed, reset (RST), or silent until released."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way in which a reply goes wrong; with nothing but a name it is a healthy reply.

    Attributes:
        name: What the log calls it.
        status: Answer with this status and ``body`` instead of the healthy answer; None means the healthy one.
        body: JSON, or a string that is sent as it is.
        headers: Added to the reply; None removes a header, ``"x-ratelimit-*": None`` all that start like this.
        corruption: Name of a change to the healthy answer, one of ``corruptions.CORRUPTIONS``.
        code: Inner error code, for the corruptions that put an error inside a reply.
        delay_s: Seconds before the first byte.
        drip_s: Seconds between the pieces of the body (sixteenths of a document, events of a stream).
        sends: How much is sent.
        then: What happens to the connection afterwards.
        stall_s: Seconds after which a stalled connection is closed, unless it is released before.
        paths: Only requests to these paths; empty means all.
        models: Only requests for these models; empty means all.

    Raises:
        ValueError: A value is not one of its kind, or a time is negative.
    """

    name: str = "custom"
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    corruption: str | None = None
    code: str | None = None
    delay_s: float = 0.0
    drip_s: float = 0.0
    sends: Portion = "all"
    then: Ending = "keep"
    stall_s: float = 60.0
    paths: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sends not in get_args(Portion) or self.then not in get_args(Ending):
            raise ValueError(f"A fault sends one of {Portion} and ends with one of {Ending}.")
        if self.corruption is not None and self.corruption not in CORRUPTIONS:
            raise ValueError(
                f"There is no corruption {self.corruption!r}; the corruptions are {', '.join(sorted(CORRUPTIONS))}."
            )
        if min(self.delay_s, self.drip_s, self.stall_s) < 0:
            raise ValueError("A fault's times must not be negative.")
        if self.sends != "all" and self.then == "keep":
            raise ValueError("A reply that is not sent in full must end with close, reset or stall.")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"A reply's status must be from 200 to 599, not {self.status}.")
        for name in ("paths", "models"):
            value: object = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise ValueError(f"A fault's {name} must be a list of strings.")  # noqa: TRY004 — one error for all
            object.__setattr__(self, name, tuple(value))

    def matches(self, path: str, model: str | None) -> bool:
        """Return whether the fault applies to such a request."""
        return (not self.paths or path in self.paths) and (not self.models or model in self.models)


HEALTHY = Fault(name="healthy")
"""Nothing goes wrong."""
