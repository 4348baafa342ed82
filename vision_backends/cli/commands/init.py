"""``vision init``: from what is here to a vision.toml, with the reason for every rung.

This module decides what a person is shown and asked, and that nothing is written before they have agreed. It must not
know where anything was found, nor which rungs suit it.
"""

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vision_backends.cli.options import ReportOptions, Yes, command
from vision_backends.cli.rendering.exits import agreed, answer, at_terminal, tell, tell_error
from vision_backends.cli.rendering.text import bytes_text, dump_json, one_line, short_path
from vision_backends.errors import InvalidRequestError, VisionError
from vision_backends.foreign_text import printable

if TYPE_CHECKING:
    from vision_backends.cli.proposal import ProposedRung
    from vision_backends.cli.surroundings import Served, Surroundings
    from vision_backends.config.presets import Preset

__all__ = ["init"]

WIDTH = 80

STDOUT = Path("-")

MOST_MODELS = 8
"""How many models of a server are named on the screen."""


@command
def init(
    *,
    here: Annotated[bool, typer.Option("--here", help="Write ./vision.toml, for this folder only.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write this file; - is standard output.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a file that exists.")] = False,
    server: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Look at this server on this machine as well; can be repeated."),
    ] = None,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Write keys into the file, not the names of their variables.")
    ] = False,
    yes: Yes = False,
    options: ReportOptions,
) -> None:
    """Look at what is available, propose a ladder with the reason for every rung, and write it to a file."""
    from vision_backends.cli.config_file import exists, write_config_file
    from vision_backends.cli.proposal import to_file, unused
    from vision_backends.cli.surroundings import look_around

    path, asks = _target(here=here, out=out), not yes
    if asks and not at_terminal():
        raise InvalidRequestError(
            "vision init asks before it writes, and this is not a terminal.",
            remedy="Pass --yes to accept what it proposes.",
        )
    if path.exists() and not (asks or replace):
        raise exists(path)
    found = look_around(server or ())
    _say("What is here", *_findings(found))
    rungs = _proposal(found, asks=asks, with_keys=with_keys)
    typer.echo(err=True)
    left_out = [*unused(found, rungs)]
    _say("Proposed ladder, best first", *_ladder(rungs))
    if left_out:
        typer.echo(err=True)
        _say("Without a rung", *_hanging("-", left_out, width=1))
    typer.echo(err=True)
    if asks and not agreed("Take this ladder (n: choose rung by rung)?", yes=False, otherwise=True):
        rungs = [*_chosen(rungs, found)]
    if asks:
        rungs = _seeing(rungs)
    text = to_file(rungs, about=_about(), left_out=left_out)
    if path == STDOUT:
        typer.echo(text, nl=False)
        return
    may_replace = _is_wanted(path, asks=asks, replace=replace)
    write_config_file(path, text, replace=may_replace, is_secret=any("api_key" in rung.table for rung in rungs))
    _report(path, rungs, as_json=options.as_json)


def _target(*, here: bool, out: Path | None) -> Path:
    from vision_backends.cli.config_file import own_config_file
    from vision_backends.config.loading import CONFIG_FILE

    if here and out is not None:
        raise InvalidRequestError("--here and --out do not go together.", remedy="Pass one of them.")
    if here:
        return Path(CONFIG_FILE)
    return own_config_file() if out is None else out


def _findings(found: "Surroundings") -> Iterator[str]:
    """Yield what was found, a line or more for each kind of thing."""
    keys = [variable for _, variable in found.keys]
    yield from _hanging("keys", [", ".join(keys) or "no variable holds one"])
    servers = [f"{_title(each)} at {each.url}: {_some(each.models)}" for each in found.servers]
    silent = [f"nothing at {', '.join(url.split('/')[2] for url in found.silent)}"] if found.silent else []
    yield from _hanging("servers", [*servers, *silent])
    free = "unknown memory" if found.free_bytes is None else f"{bytes_text(found.free_bytes)} of memory free"
    yield from _hanging("machine", [f"{found.gpu or 'no GPU'}, {free}"])
    extras = [f"{name} {'installed' if is_here else 'not installed'}" for name, is_here in found.extras.items()]
    yield from _hanging("extras", [", ".join(extras)])
    yield from _hanging("models", [", ".join(card.name for card in found.cached) or "none fetched so far"])


def _proposal(found: "Surroundings", *, asks: bool, with_keys: bool) -> "list[ProposedRung]":
    """Return the ladder that suits what was found; a person is asked for models that nobody else can name."""
    from vision_backends.cli.proposal import embedded_rung, local_rung, remote_rung, served_rung

    rungs: list[ProposedRung] = []
    for preset, variable in found.keys:
        model = None if preset.has_default_models else _model_of(preset, variable, asks=asks)
        key = os.environ[variable] if with_keys and variable != "OPENAI_BASE_URL" else None
        if preset.has_default_models or model:
            rungs.append(remote_rung(preset, variable, model=model, key=key))
    for served in found.servers:
        if served.seeing:
            taken = {rung.name for rung in rungs}
            stem = served.preset.name if served.preset else "server"
            names = (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3)))
            rungs.append(served_rung(served, name=next(name for name in names if name not in taken)))
    local = local_rung(found)
    return [*rungs, *([local] if local else []), embedded_rung()]


def _some(models: Sequence[str]) -> str:
    """Return the first models, and how many more there are."""
    more = [f"{len(models) - MOST_MODELS} more"] if len(models) > MOST_MODELS else []
    return ", ".join([*map(one_line, models[:MOST_MODELS]), *more])


def _model_of(preset: "Preset", variable: str, *, asks: bool) -> str | None:
    if not asks:
        return None
    what = "deployment" if preset.base_url is None else "model"
    typer.echo(f"{variable} is set. Which {what} of {preset.title} sees images?", err=True)
    said = answer("Its name, or Enter to leave it out")
    if not said.isprintable():
        raise InvalidRequestError(f"{said!r} is not the name of a model.", remedy="Type it in plain characters.")
    return said or None


def _chosen(rungs: "Sequence[ProposedRung]", found: "Surroundings") -> "Iterator[ProposedRung]":
    """Yield the rungs that a person wants to keep, with the models that they want; the last one stays."""
    from vision_backends.cli.proposal import served_rung

    for rung in rungs[:-1]:
        if not agreed(f"Keep {rung.name}?", yes=False, otherwise=True):
            continue
        served = next((each for each in found.servers if rung.table.get("model") in each.models[: each.seeing]), None)
        if served is None or len(served.models) == 1:
            yield rung
            continue
        yield served_rung(served, name=rung.name, model=_one_of(served.models))
    yield rungs[-1]


def _one_of(models: Sequence[str]) -> str:
    while True:
        said = answer(f"Its model, one of {_some(models)} [{models[0]}]") or models[0]
        if said in models:
            return said
        tell(f"there is no {said} there")


def _seeing(rungs: "list[ProposedRung]") -> "list[ProposedRung]":
    """Return the rungs without those that were shown a picture and saw none, if a person lets them be shown one."""
    own = [rung for rung in rungs if rung.server == "own"]
    paid = [rung for rung in rungs if rung.server == "paid"]
    asked = []
    if own and agreed(f"Show {_names(own)} a small picture, to be sure of it?", yes=False, otherwise=True):
        asked += own
    if paid and agreed(f"Show {_names(paid)} one, for a fraction of a cent?", yes=False):
        asked += paid
    blind = _blind(asked) if asked else set()
    return [rung for rung in rungs if rung.name not in blind]


def _blind(rungs: "Sequence[ProposedRung]") -> set[str]:
    """Return the names of the rungs that see no images, after telling what was found out about each."""
    from vision_backends.router import Router

    others = {rung.name: rung.table for rung in rungs if "kind" in rung.table}
    own = next((rung.table for rung in rungs if "kind" not in rung.table), {})
    try:
        with Router.from_config(
            os.devnull, ladder=[rung.name for rung in rungs], openai=own, backends=others
        ) as router:
            reports = router.probe()
    except VisionError as error:  # for instance, of the file that is to be replaced
        tell_error(error)
        return set()
    for name, report in reports.items():
        tell(f"{name}: {report.message if isinstance(report, VisionError) else report}")
    return {name for name, report in reports.items() if not isinstance(report, VisionError) and report.sees is False}


def _names(rungs: "Sequence[ProposedRung]") -> str:
    return " and ".join(rung.name for rung in rungs)


def _ladder(rungs: "Sequence[ProposedRung]") -> Iterator[str]:
    width = max(len(rung.name) for rung in rungs)
    for number, rung in enumerate(rungs, start=1):
        yield from _hanging(f"{number} {rung.name}", [rung.reason], width=width + 2)


def _is_wanted(path: Path, *, asks: bool, replace: bool) -> bool:
    """Return whether the file takes the place of another one, once a person has agreed to it.

    Raises:
        typer.Exit: They have not.
    """
    is_there = path.exists()
    question = f"{short_path(path)} exists. Replace it?" if is_there else f"Write {short_path(path)}?"
    if not asks or (is_there and replace) or agreed(question, yes=False, otherwise=not is_there):
        return is_there
    tell("nothing was written")
    raise typer.Exit


def _report(path: Path, rungs: "Sequence[ProposedRung]", *, as_json: bool) -> None:
    from vision_backends.config.loading import find_config

    if as_json:
        ladder = [{"name": rung.name, "reason": rung.reason} for rung in rungs]
        typer.echo(dump_json({"file": str(path.absolute()), "ladder": ladder}))
    else:
        typer.echo(printable(str(path.absolute())))
    tell("it is trusted until it changes")
    other = find_config()
    if other is not None and os.path.realpath(other) != os.path.realpath(path):
        tell(f"{other} is read here as well, and wins key by key")
    tell("next: vision describe photo.jpg; what stands in the way: vision doctor")


def _about() -> str:
    from datetime import UTC, datetime

    return (
        f"Written by vision init on {datetime.now(UTC):%Y-%m-%d}. Every key is optional; vision config shows all of "
        "them, with their defaults."
    )


def _title(served: "Served") -> str:
    return served.preset.title if served.preset else "a server"


def _hanging(name: str, texts: Sequence[str], *, width: int = 8) -> Iterator[str]:
    """Yield texts beside a name, each in lines that fit a terminal."""
    margin = " " * (width + 4)
    for number, text in enumerate(texts):
        first = f"  {name if number == 0 or name == '-' else '':<{width}}  "
        yield from textwrap.wrap(
            printable(text), WIDTH, initial_indent=first, subsequent_indent=margin, break_on_hyphens=False
        )


def _say(title: str, *lines: str) -> None:
    """Show what is no answer yet; standard output is for the file."""
    for line in (f"{title}:", *lines):
        typer.echo(line, err=True)
