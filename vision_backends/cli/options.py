"""Options that several commands share, so that they are called and explained alike.

This module decides their names and help. It must not know what any command does with them.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "BackendName",
    "Batch",
    "ConfigFile",
    "Deadline",
    "Debug",
    "Images",
    "Json",
    "Label",
    "Language",
    "LocalOnly",
    "MaxWait",
    "ModelName",
    "ModelNames",
    "OptionalBackend",
    "OptionalImages",
    "Prompt",
    "Space",
    "TaskName",
    "Yes",
]


def _backend_names() -> list[str]:
    from vision_backends.backends.registry import BUILT_IN  # only when a shell asks

    return list(BUILT_IN)


def _model_names(begun: str) -> list[str]:
    from vision_backends.cli.inventory import complete_names

    return complete_names(begun)


Images = Annotated[
    list[str],
    typer.Argument(metavar="PATHS", help="Images, folders of images, patterns, or - for standard input."),
]
OptionalImages = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATHS", help="Images, folders of images, patterns, or - for standard input."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
BackendName = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME", autocompletion=_backend_names, help="Ask only this backend."),
]
OptionalBackend = Annotated[
    str | None,
    typer.Argument(metavar="BACKEND", autocompletion=_backend_names, help="Which backend; all of them if left out."),
]
ModelName = Annotated[
    str,
    typer.Argument(metavar="NAME", autocompletion=_model_names, help="A name as in the list, short, or on the hub."),
]
ModelNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAMES", autocompletion=_model_names, help="Names as in the list, short, or on the hub."),
]
LocalOnly = Annotated[bool, typer.Option("--local-only", help="Ask only backends that keep images on this machine.")]
Deadline = Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop after so many seconds altogether.")]
Batch = Annotated[
    bool, typer.Option("--batch", help="Rather wait for the best backend than take the next one at once.")
]
MaxWait = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="With --batch: wait so long for each; 600 if left out.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Read this instead of ./vision.toml.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether to.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the log.")]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="A question or an instruction.")]
Language = Annotated[str | None, typer.Option(metavar="TAG", help='Language of the text, such as "de".')]
Label = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="What to look for; can be repeated.")]
Space = Annotated[str | None, typer.Option(metavar="NAME", help="Accept only vectors of this space.")]
TaskName = Annotated[
    Literal["describe", "embed", "embed_text", "detect"] | None,
    typer.Option("--task", help="Explain what would happen if this were asked now."),
]
