"""``vision bench``: how much worse, slower and cheaper is the fallback?

This module decides where the benchmark is found: the wheel carries it inside the package, a checkout has it beside the
package. It must not know what it measures, nor its options.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from vision_backends.cli.rendering.exits import exit_codes
from vision_backends.errors import ConfigError
from vision_backends.installing import pip_command

__all__ = ["bench"]

NAME = "vision_backends.benchmarks"

ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Settings of the command: all its words are the benchmark's."""


bench = typer.Typer(add_completion=False)


@bench.command("bench", context_settings=ANYTHING)
def run_benchmark(context: typer.Context) -> None:
    """Measure how much worse, slower and cheaper the fallback is, on your own images."""
    with exit_codes(debug=False):
        run = _find_benchmark()
    run(context.args, name=context.command_path)


def _find_benchmark() -> Callable[..., Any]:
    package = Path(__file__).parents[2]
    beside = package.parent / "benchmarks"
    if not (package / "benchmarks").is_dir():
        if not (beside / "command.py").is_file():
            raise ConfigError("The benchmark is not installed.", remedy=f"Run: {pip_command('vision-backends[bench]')}")
        _import_from(beside)
    main: Callable[..., Any] = importlib.import_module(f"{NAME}.command").main
    return main


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
