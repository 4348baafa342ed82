"""The router behind a command.

This module decides how commands get a router and its settings. It must not know what they do with them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vision_backends.config.settings import Settings
    from vision_backends.router import Router

__all__ = ["open_router"]


@contextmanager
def open_router(config: Path | None) -> Iterator[tuple[Router, Settings]]:
    """Open a router with its settings, which cost most of a command's start and are imported here only.

    A command ends with its answers, so nothing is loaded for later ones.

    Args:
        config: The configuration file; None takes the usual one, if it is there.

    Raises:
        ConfigError: A file, key, value or backend name has no meaning.
    """
    from vision_backends.config.settings import load_settings
    from vision_backends.router import Router

    settings = load_settings(config)
    with Router.from_config(settings.model_copy(update={"warm_standby": False})) as router:
        yield router, settings
