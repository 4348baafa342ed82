"""Which server a person is told of, before anything is sent there.

This module decides in which words a server is named that is not OpenAI's own. It must not know who asks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vision_backends.cli.rendering.exits import tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vision_backends.config.settings import Settings

__all__ = ["tell_servers"]


def tell_servers(settings: Settings, names: Iterable[str]) -> None:
    """Say on standard error which servers some rungs ask that are not OpenAI's own."""
    for name in names:
        server = settings.server_of(name)
        if server is not None and not server.is_openai:
            tell(f"{name} is {server}, not a server of OpenAI")
