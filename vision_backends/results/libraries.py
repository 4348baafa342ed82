"""Libraries that only some callers have: imported when they are asked for, or a word on how to install them.

This module decides what is said where one is missing. It must not know what it is used for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vision_backends.errors import ConfigError
from vision_backends.installing import pip_command

__all__ = ["load"]


def load(name: str, *, purpose: str) -> Any:  # noqa: ANN401 — a module
    """Return a module.

    Args:
        name: The module; the package that has it is called by its first part.
        purpose: What needs it, as the subject of a sentence.

    Raises:
        ConfigError: It is not installed, or cannot be imported.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        state = "is not installed" if missing else f"cannot be imported: {error}"
        raise ConfigError(
            f"{purpose} needs {package}, which {state}.", remedy=f"Run: {pip_command(package)}"
        ) from error
