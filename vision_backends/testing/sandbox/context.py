"""What an endpoint receives with a request, and what it returns.

This module decides nothing; it holds the two records that pass between `service` and the endpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vision_backends.testing.sandbox.faults import HEALTHY, Fault

if TYPE_CHECKING:
    from vision_backends.testing.sandbox.pictures import Album, Picture
    from vision_backends.testing.sandbox.wire import HttpReply

__all__ = ["Context", "Draft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an endpoint works with.

    Attributes:
        album: Decodes images.
        ident: Unique part of the ids in the reply.
        created: Time of the reply, in seconds since 1970 UTC.
        fault: The fault being played; the endpoint applies its corruption.
    """

    album: Album
    ident: str
    created: int
    fault: Fault = HEALTHY


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An answer that is ready, but not yet admitted by the limits.

    Attributes:
        pictures: The images that arrived.
        tokens: What it would cost.
        reply: What would be sent.
    """

    pictures: tuple[Picture, ...] = ()
    tokens: int = 0
    reply: HttpReply
