"""Options that several commands share, so that they are called and explained alike.

This module decides their names and help. It must not know what any command does with them: an option is called like
the field of `plan.Plan` that it sets.
"""

from pathlib import Path
from typing import Annotated

import typer

from vision_backends.cli.options import backend_names, several_of

from .datasets import SAMPLE
from .plan import TASKS

__all__ = [
    "Backends",
    "BudgetUsd",
    "Concurrency",
    "Dataset",
    "DayS",
    "Examples",
    "Folder",
    "InstallPeers",
    "Limit",
    "LoadS",
    "Out",
    "Peers",
    "Processes",
    "RandomWeights",
    "Resamples",
    "Resume",
    "Rounds",
    "Sandbox",
    "Seed",
    "Tasks",
]

Backends = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        autocompletion=several_of(backend_names),
        help="Rungs, best first, as openai,embedded; those of the configuration if left out.",
    ),
]
Tasks = Annotated[
    str,
    typer.Option(metavar="NAMES", autocompletion=several_of(lambda: TASKS), help="In which tasks they are compared."),
]
Dataset = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=lambda: [SAMPLE],
        help="Folder of images (captions and boxes in a .jsonl, COCO, Flickr), hf:ID#SPLIT, or the bundled sample.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Take this many images, drawn by the seed.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of every random choice.")]
BudgetUsd = Annotated[float | None, typer.Option(metavar="USD", help="Stop before the run costs more than this.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the run here; a new file if left out.")]
Resume = Annotated[Path | None, typer.Option(metavar="FILE", help="Resume an interrupted run with its own options.")]
Examples = Annotated[int, typer.Option(min=0, metavar="N", help="Keep this many images with what each rung said.")]
Resamples = Annotated[int, typer.Option(min=1, metavar="N", help="Bootstrap samples of each interval.")]
RandomWeights = Annotated[
    bool,
    typer.Option("--random-weights", help="Run models of the true sizes without their weights: only time is real."),
]
Sandbox = Annotated[
    bool, typer.Option("--sandbox", help="Measure the openai rung against a server on this machine, for free.")
]
Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="Time this many warm calls of each rung.")]
Processes = Annotated[int, typer.Option(min=1, metavar="N", help="Time the first answer of this many processes.")]
Concurrency = Annotated[str, typer.Option(metavar="NUMBERS", help="Numbers of concurrent callers.")]
LoadS = Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long each number of callers keeps asking.")]
DayS = Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Play the day of the failover in this time.")]
Peers = Annotated[bool, typer.Option("--peers", help="Play the day to other libraries, too; needs a checkout.")]
InstallPeers = Annotated[
    bool, typer.Option("--install-peers", help="Install them first, each in an environment of its own.")
]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="FOLDER", help="Write the report here; into a new folder if left out."),
]
