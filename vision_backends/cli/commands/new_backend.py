"""``vision new-backend``: a package with a backend, and the tests that it has to pass.

This module decides what is written and where. What a backend must do is decided in ``backends/base.py``, and shown by
the templates.
"""

import importlib.util
import keyword
import re
import shlex
import sys
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from vision_backends.cli.options import ReportOptions, command
from vision_backends.cli.rendering.exits import tell
from vision_backends.cli.rendering.text import dump_json
from vision_backends.errors import InvalidRequestError

__all__ = ["new_backend"]

TEMPLATES = Path(__file__).parents[1] / "templates"

NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
"""A name that a rung, a module and a package can have."""


@command
def new_backend(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the ladder calls it, such as acme.")],
    *,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="Its tasks are coroutines: for one that asks a server.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where it is written; a new folder NAME by default.")
    ] = None,
    options: ReportOptions,
) -> None:
    """Write a backend of your own and its tests, as a package to begin with."""
    _check_name(name)
    folder = folder or Path(name)
    written = _write(name, folder, kind="asynchronous" if asynchronous else "plain")
    for path in written:
        typer.echo(dump_json({"path": str(path)}) if options.as_json else path)
    if not options.as_json:
        here, python = shlex.quote(str(folder)), shlex.quote(sys.executable)
        tell(f"test it:    {python} -m pytest {here}")
        tell(f"try it:     PYTHONPATH={here} vision describe photo.jpg --config {here}/vision.toml")
        tell(f"install it: {python} -m pip install {here}")


def _check_name(name: str) -> None:
    """Return if a rung and a module may have a name."""
    from vision_backends.config.settings import KINDS

    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise InvalidRequestError(
            f"{name!r} is not a valid name for a backend.",
            remedy='Use lower-case letters, digits, "-" and "_", beginning with a letter, such as acme or acme-vision.',
        )
    if name in KINDS:
        raise InvalidRequestError(f"{name!r} is a backend of this package.", remedy="Choose another name.")
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.origin is not None:  # a folder of that name is no module yet
        raise InvalidRequestError(
            f"There is a module {module!r} already.", remedy=f"Choose another name, such as {name}-backend."
        )


def _write(name: str, folder: Path, *, kind: str) -> list[Path]:
    """Write everything into a folder that has nothing of it yet, and return the paths."""
    module = name.replace("-", "_")
    words = {
        "name": name,
        "module": module,
        "cls": "".join(part.capitalize() for part in module.split("_")),
        "distribution": f"vision-backends-{name.replace('_', '-')}",
        "folder": str(folder),
    }
    templates = {
        f"{module}.py": kind,
        f"test_{module}.py": "test",
        "pyproject.toml": "pyproject",
        "vision.toml": "vision",
    }
    there = [file for file in templates if (folder / file).exists()]
    if there:
        raise InvalidRequestError(
            f"{folder / there[0]} exists.", remedy="Nothing was written. Name another folder: --folder FOLDER"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, template in templates.items():
            text = Template((TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")).substitute(words)
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(
            f"{folder} cannot be written: {error.strerror}.", remedy="Name another folder: --folder FOLDER"
        ) from error
    return [folder / file for file in templates]
