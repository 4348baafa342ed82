"""What the options and arguments of commands are called and explained, and the records of those that commands share.

This module decides that every command takes the same options alike: a command is a function with options of its own
and one parameter ``options``, whose type is a record of this module; `command` tells Typer of both. It must not know
what any command does with them.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vision_backends.cli.rendering.exits import exit_codes, tell
from vision_backends.cli.rendering.outputs import ROW_SUFFIXES
from vision_backends.errors import InvalidRequestError, VisionError

if TYPE_CHECKING:
    from vision_backends.config.settings import Settings
    from vision_backends.router import Router
    from vision_backends.routing.options import CallKeywords

__all__ = [
    "AskOptions",
    "BackendName",
    "BackendNames",
    "CommonOptions",
    "ConfigFile",
    "Debug",
    "Images",
    "JsonOptions",
    "Label",
    "Language",
    "ListOptions",
    "LocalOnly",
    "ModelName",
    "ModelNames",
    "OfModel",
    "OptionalBackend",
    "Prompt",
    "ReportOptions",
    "Space",
    "TaskName",
    "Truncate",
    "Yes",
    "backend_names",
    "command",
    "rungs_of",
    "several_of",
]


def backend_names() -> list[str]:
    """Return the names of backends that a shell completes: the built-in ones, and those of the configuration."""
    from vision_backends.config.loading import load_settings  # only when a shell asks
    from vision_backends.config.settings import BUILT_IN  # only when a shell asks

    try:
        return [*BUILT_IN, *load_settings().backends]
    except VisionError:
        return list(BUILT_IN)


def several_of(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes the last of several names that are separated by commas, none of them twice."""

    def complete(begun: str) -> list[str]:
        before, comma, _ = begun.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name not in before.split(",")]

    return complete


def _model_names(begun: str) -> list[str]:
    from vision_backends.cli.inventory import complete_names

    return complete_names(begun)


LAST = ("as_json", "quiet", "config", "debug")
"""The options that end every help text."""

_IMAGES = typer.Argument(metavar="PATHS", help="Images, folders of images, patterns, or - for standard input.")
_MODEL_HELP = "Short or full name of a model in the list, or any model on the hub."

Images = Annotated[list[str] | None, _IMAGES]
BackendName = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME", autocompletion=backend_names, help="Ask only this backend."),
]
BackendNames = Annotated[
    list[str] | None,
    typer.Option(
        "--backends",
        "--backend",
        metavar="NAME",
        autocompletion=several_of(backend_names),
        help="Ask only this backend; or several, separated by commas, in this order.",
    ),
]
OfModel = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help='Ask only this model, such as "gpt-x"; or "azure/gpt-x" of a backend.'
    ),
]
OptionalBackend = Annotated[
    str | None,
    typer.Argument(metavar="BACKEND", autocompletion=backend_names, help="A backend; all of them by default."),
]
ModelName = Annotated[str, typer.Argument(metavar="NAME", autocompletion=_model_names, help=_MODEL_HELP)]
ModelNames = Annotated[list[str] | None, typer.Argument(metavar="NAMES", autocompletion=_model_names, help=_MODEL_HELP)]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Of a folder, also the images of all folders below it.")
]
LocalOnly = Annotated[bool, typer.Option("--local-only", help="Ask only backends that keep images on this machine.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Read this file instead of ./vision.toml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the log.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="A question or an instruction.")]
Language = Annotated[str | None, typer.Option(metavar="TAG", help='Language of the text, such as "de".')]
Label = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="What to look for; can be repeated.")]
Space = Annotated[str | None, typer.Option(metavar="NAME", help="Accept only vectors in this vector space.")]
Truncate = Annotated[bool, typer.Option("--truncate", help="Cut a text or label that is longer than a model reads.")]
TaskName = Annotated[
    Literal["describe", "embed", "embed_text", "detect", "ask"] | None,
    typer.Option("--task", help="Explain what would happen if this task were asked for now."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """The options of a command that reads no configuration and whose output programs can read."""

    as_json: AsJson = False
    debug: Debug = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions:
    """The options of every command that reads the configuration."""

    config: ConfigFile = None
    debug: Debug = False

    @contextmanager
    def open_router(self, *, caching: bool = True) -> Iterator[tuple["Router", "Settings"]]:
        """Open a router with its settings, which cost most of a command's start and are imported here only.

        A command ends with its answers, so nothing is loaded or fetched for later ones. A key that is not sent is told.

        Args:
            caching: Whether answers may be kept for later, where the settings allow it.

        Raises:
            ConfigError: A file, key, value or backend name has no meaning.
        """
        from vision_backends.config.loading import read_configuration
        from vision_backends.router import Router

        configuration = read_configuration(self.config)
        for withheld in configuration.withheld:
            tell(configuration.told_of(withheld))
        settings = configuration.settings
        if not caching:
            cache = settings.cache.model_copy(update={"enabled": False})
            settings = settings.model_copy(update={"cache": cache})
        with Router.from_config(_for_one_command(settings)) as router:
            yield router, settings


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonOptions(CommonOptions):
    """The options of every command whose output programs can read."""

    as_json: AsJson = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions(JsonOptions):
    """The options of every command that asks about images."""

    recursive: Recursive = False
    paths_from: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also take the paths in FILE, one a line; - for standard input."),
    ] = None
    null: Annotated[
        bool, typer.Option("--null", "-0", help="With --paths-from: they end in NUL, as find -print0 writes them.")
    ] = False
    backends: BackendNames = None
    model: OfModel = None
    local_only: LocalOnly = False
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Stop after this many seconds in total.")
    ] = None
    batch: Annotated[bool, typer.Option("--batch", help="Wait for the best backend instead of falling back.")] = False
    max_wait: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="With --batch: wait at most this long for each input; 600 by default."),
    ] = None

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on standard error.")] = False

    def keywords(self) -> "CallKeywords":
        """Return the keywords of the router's methods that these options stand for, without the deadline.

        Raises:
            InvalidRequestError: There is a time to wait, but nothing to wait for.
        """
        if self.max_wait is not None and not self.batch:
            raise InvalidRequestError("--max-wait needs --batch.")
        return {
            "backends": rungs_of(self.backends),
            "model": self.model,
            "local_only": self.local_only,
            "priority": "batch" if self.batch else "interactive",
            "max_wait_s": self.max_wait,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions(AskOptions):
    """The options of every command that asks about each image by itself."""

    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write one row for each answer to FILE.jsonl, FILE.csv or FILE.parquet, and go on with what is there.",
        ),
    ] = None
    redo: Annotated[
        Literal["degraded"] | None,
        typer.Option(metavar="degraded", help="With --out: ask again about what has a degraded answer."),
    ] = None

    def check_out(self, *others: str) -> None:
        """Return if answers can be written where these options say, as far as that can be known of the name.

        Args:
            others: Endings that the command also knows.

        Raises:
            InvalidRequestError: They cannot.
        """
        if self.out is None:
            if self.redo:
                raise InvalidRequestError("--redo needs --out.", remedy="Name the file of an earlier run.")
            return
        if self.as_json:
            raise InvalidRequestError("--out and --json are two places for the answers.", remedy="Pass one of them.")
        endings = [*others, *ROW_SUFFIXES]
        if self.out.suffix.lower() not in endings:
            raise InvalidRequestError(
                f"--out {self.out} says no format.", remedy=f"End it in {', '.join(endings[:-1])} or {endings[-1]}."
            )


def rungs_of(given: list[str] | None) -> list[str] | None:
    """Return the names of backends that a command was given; None where it was given none."""
    return [name.strip() for each in given for name in each.split(",")] if given else None


def _for_one_command(settings: "Settings") -> "Settings":
    """Return settings with which nothing is loaded or fetched for later calls, as there are none."""
    tables = {name: settings.table(name) for name in settings.rungs_of("local")}
    for table in tables.values():
        if table.get("download", "background") in {"background", "wait"}:
            table["download"] = "never"
    own = {"local": tables.pop("local")}
    return settings.model_copy(update={"warm_standby": False, **own, "backends": {**settings.backends, **tables}})


def command(body: Callable[..., None]) -> Callable[..., None]:
    """Make a command for Typer of a function with a parameter ``options``, whose type is one of the records here.

    The command takes the function's own parameters and the fields of the record, and turns whatever the body raises
    into a message and an exit code.
    """
    own = dict(inspect.signature(body).parameters)
    kind = own.pop("options").annotation
    shared = sorted(fields(kind), key=lambda each: LAST.index(each.name) if each.name in LAST else -1)
    options = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=each.type,
        )
        for each in shared
    ]

    @wraps(body)
    def run(**given: Any) -> None:  # noqa: ANN401 — the signature is made below, for Typer
        options = kind(**{each.name: given.pop(each.name) for each in shared})
        with exit_codes(debug=options.debug):
            body(options=options, **given)

    parameters = [*own.values(), *options]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
