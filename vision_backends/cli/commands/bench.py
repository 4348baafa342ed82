"""``vision bench``: how much worse, slower and cheaper is the fallback?

This module decides where the benchmark is found: the wheel carries it inside the package, a checkout has it beside the
package. It must not know what it measures, nor its options.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from vision_backends.cli.rendering.exits import exit_codes
from vision_backends.errors import ConfigError
from vision_backends.installing import pip_command

__all__ = ["bench"]

NAME = "vision_backends.benchmarks"


class Benchmark(TyperGroup):
    """Stands for the benchmark's commands until one of them is run, completed or asked for its help."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:  # noqa: ANN401 — Typer's types have no public name
        """Let the benchmark itself read the words; a shell that completes is told nothing where there is none."""
        try:
            found = _find_benchmark()
        except ConfigError:
            if extra.get("resilient_parsing"):
                return super().make_context(info_name, args, parent, **extra)
            with exit_codes(debug=False):
                raise
        return get_command(found).make_context(info_name, args, parent, **extra)


bench = Benchmark(name="bench")


def _find_benchmark() -> typer.Typer:
    package = Path(__file__).parents[2]
    beside = package.parent / "benchmarks"
    if not (package / "benchmarks").is_dir():
        if not (beside / "command.py").is_file():
            raise ConfigError("The benchmark is not installed.", remedy=f"Run: {pip_command('vision-backends[bench]')}")
        _import_from(beside)
    app: typer.Typer = importlib.import_module(f"{NAME}.command").app
    return app


def _import_from(folder: Path) -> None:
    """Import the benchmark of a checkout under the name that it has in a wheel, whatever else is called benchmarks."""
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if NAME in sys.modules or spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
