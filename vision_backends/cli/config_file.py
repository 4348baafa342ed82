"""Writing a vision.toml: as a whole or not at all, and never over another one by accident.

This module decides where a file of the user belongs and who may read it. It must not know what it says.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from vision_backends.config.loading import CONFIG_FILE
from vision_backends.config.trusted_files import TrustedFiles
from vision_backends.config.user_folders import user_folder
from vision_backends.errors import ConfigError, InvalidRequestError

__all__ = ["own_config_file", "write_config_file"]


def own_config_file() -> Path:
    """Return the place of the user's configuration for all folders, whether it exists or not.

    Raises:
        ConfigError: The user has no home.
    """
    folder = user_folder("config")
    if folder is None:
        raise ConfigError("There is no home folder for a configuration.", remedy="Set HOME, or pass --here or --out.")
    return folder / CONFIG_FILE


def write_config_file(path: Path, text: str, *, replace: bool, is_secret: bool) -> None:
    """Write a file as a whole, and trust it as long as it says just this.

    Args:
        path: The file; behind a symbolic link, the file that it leads to.
        text: What it says.
        replace: Whether it may take the place of another one.
        is_secret: Whether nobody else may read it.

    Raises:
        InvalidRequestError: There is another one, which may not be replaced.
        ConfigError: It cannot be written.
    """
    place, content = Path(os.path.realpath(path)), text.encode()
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(
            dir=place.parent, prefix=f".{place.name}."
        )  # which only the user reads
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if not is_secret:
                Path(unfinished).chmod(0o644 & ~_umask())
            _put(Path(unfinished), place, replace=replace)
        finally:
            with suppress(FileNotFoundError):
                Path(unfinished).unlink()
    except FileExistsError:
        raise exists(path) from None
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror}.") from error
    TrustedFiles().add(path, hashlib.sha256(content).hexdigest())


def exists(path: Path) -> InvalidRequestError:
    """Return the error for a file that may not be replaced."""
    return InvalidRequestError(
        f"{str(path)!r} exists, and is not replaced unasked.", remedy="Pass --replace, or another place: --out FILE"
    )


def _put(unfinished: Path, place: Path, *, replace: bool) -> None:
    """Give a file its name, in one step.

    Raises:
        FileExistsError: There is one of this name, which may not be replaced.
    """
    if replace:
        unfinished.replace(place)
        return
    try:
        os.link(unfinished, place)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if place.exists():
            raise FileExistsError from None
        unfinished.replace(place)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
