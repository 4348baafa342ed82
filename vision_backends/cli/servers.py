"""Which server a person is told of, before anything is sent there.

This module decides in which words a server is named that is not OpenAI's own. It must not know who asks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vision_backends.cli.rendering.exits import tell

if TYPE_CHECKING:
    from vision_backends.config.settings import Settings

__all__ = ["tell_server"]


def tell_server(settings: Settings) -> None:
    """Say on standard error which server the ``openai`` rung asks, where that is not OpenAI's own."""
    from vision_backends.config.credentials import server_of

    server = server_of(settings.openai)
    if server is not None and not server.is_openai:
        tell(f"openai is {server}, not a server of OpenAI")
