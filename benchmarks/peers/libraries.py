"""The libraries that are tried beside this package, and the environment that each has to itself.

This module decides which versions are compared. It must not know what is measured. Only the standard library is
imported here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "LIBRARIES", "Library", "install"]

FOLDER = Path(tempfile.gettempdir()) / "vision-backends-peers"
"""Where the environments are, outside of this repository."""


@dataclass(frozen=True)
class Library:
    """One of the libraries.

    Attributes:
        name: What the table calls it.
        module: The module that asks it.
        requirement: What is installed for it; None for this package, which runs in the present environment.
        loosened: Names of requirements of it whose versions are not insisted on: where an index does not have a
            release that new, the library would not install at all.
        settings: The settings that are tried.
    """

    name: str
    module: str
    requirement: str | None = None
    loosened: tuple[str, ...] = ()
    settings: tuple[str, ...] = ("defaults", "best")

    @property
    def distribution(self) -> str:
        """What package registries call it."""
        return re.split(r"[\[=]", self.requirement or "vision-backends")[0]

    def python(self, folder: Path) -> Path:
        """Return the interpreter of its environment, which may not be there."""
        return Path(sys.executable) if self.requirement is None else folder / self.module / "bin" / "python"


LIBRARIES = (
    Library("vision-backends", "ask_vision_backends", settings=("defaults",)),
    Library("LiteLLM Router", "ask_litellm", "litellm==1.109.*", loosened=("certifi",)),
    Library("pydantic-ai FallbackModel", "ask_pydantic_ai", "pydantic-ai-slim[openai]==2.68.*"),
    Library("LangChain with_fallbacks", "ask_langchain", "langchain-openai==1.7.*"),
)


def install(library: Library, folder: Path) -> None:
    """Make an environment with one library; what cannot be installed is said, and left out."""
    if library.requirement is None:
        return
    python = str(library.python(folder))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    venv.create(folder / library.module, with_pip=True, clear=True)
    try:
        if not library.loosened:
            subprocess.run([*pip, library.requirement], check=True)
            return
        subprocess.run([*pip, "--no-deps", library.requirement], check=True)
        show = f"from importlib.metadata import requires; print(*requires({library.distribution!r}), sep='\\n')"
        listed = subprocess.run([python, "-c", show], check=True, capture_output=True, text=True).stdout
        wanted = [line for line in listed.splitlines() if "extra ==" not in line]
        loose = [next((name for name in library.loosened if line.startswith(name)), line) for line in wanted]
        subprocess.run([*pip, *loose], check=True)
    except subprocess.CalledProcessError as error:
        print(f"{library.name} cannot be installed: {error}", file=sys.stderr)
