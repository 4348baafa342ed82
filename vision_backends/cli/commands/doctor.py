"""``vision doctor``: what is installed, what is missing, and the command that fixes it.

This module decides what a sound installation is made of. It must not judge any rung itself: the router does.
"""

import os
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vision_backends.backends.model_cards import ModelCard, asset, flaw_of_asset, model_cards
from vision_backends.cli.options import JsonOptions, command
from vision_backends.cli.rendering.exits import NOTHING_ANSWERED
from vision_backends.cli.rendering.status import print_reasons
from vision_backends.cli.rendering.text import dollars, dump_json, one_line
from vision_backends.config.credentials import SERVER_KEYS
from vision_backends.errors import NotReadyError, NotSupportedError, VisionError
from vision_backends.installing import pip_command
from vision_backends.reports import Explanation, RungStatus
from vision_backends.types import Task

if TYPE_CHECKING:
    from vision_backends.config.loading import Configuration
    from vision_backends.config.settings import Settings
    from vision_backends.router import Router

__all__ = ["doctor"]

REQUIRED = ("numpy", "onnxruntime", "openai", "pillow", "platformdirs", "pydantic-settings", "rich", "typer")
EXTRAS = {"local": ("torch", "transformers", "sentence-transformers"), "ocr": ("rapidocr",)}
"""Packages that a rung can do without, by the extra that brings them."""

CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name whom to trust."""

SERVER_OF = "server of "
"""How the names of the checks of servers begin."""

NOT_ASKED = frozenset({NotReadyError.kind, NotSupportedError.kind})
"""A rung that has nothing else to say of its tasks is asked nothing, so that the way to its server is not known."""

REINSTALL = pip_command("--force-reinstall", "vision-backends")

NEEDED: tuple[Task, ...] = ("describe", "embed", "detect")
"""The tasks that some backend must be able to do; texts are embedded only by rungs that are not always there."""


State = Literal["ok", "missing", "blocked", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        state: ``"missing"`` is a choice, ``"blocked"`` the provider's; only what is ``"broken"`` is repaired here.
        detail: What was found.
        remedy: What fixes it.
    """

    name: str
    state: State
    detail: str
    remedy: str | None = None


@command
def doctor(
    *,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Ask every server again whether its model sees; that may cost a fraction of a cent."
        ),
    ] = False,
    options: JsonOptions,
) -> None:
    """Check the installation, and name the command that fixes what is missing."""
    from vision_backends.config.loading import read_configuration

    checks = [_python(), *_packages(), *map(_model_file, _shipped())]
    rungs: list[RungStatus] = []
    answers: dict[Task, str | None] = dict.fromkeys(NEEDED)
    try:
        with options.open_router() as (router, settings):
            configuration = read_configuration(options.config)
            checks += [_configuration(configuration), _state(settings)]
            probes = [*_probes(router)] if probe else []
            rungs = router.status()
            for name in _servers(settings, rungs):
                checks += [*_server(configuration, name), _api_key(configuration, name)]
            checks += [*_certificates(), *_connections(router), *_accounts(router)]
            checks += [*(probes or _learned(rungs)), *_prices(rungs)]
            broken = {check.name for check in checks if check.state == "broken"}
            answers = {task: _who_answers(router.explain(task), broken=broken) for task in NEEDED}
    except VisionError as error:
        checks.append(Check(name="configuration", state="broken", detail=error.message, remedy=error.remedy))
    sound = all(check.state != "broken" for check in checks) and all(answers.values())
    if options.as_json:
        about = {"checks": [asdict(check) for check in checks], "rungs": [rung.to_dict() for rung in rungs]}
        typer.echo(dump_json({"ok": sound, **about, "answers": answers}))
    else:
        _print(checks, rungs, answers)
    if not sound:
        raise typer.Exit(NOTHING_ANSWERED)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check(name="Python", state="ok", detail=f"{found} at {sys.executable}")


def _packages() -> Iterator[Check]:
    yield _installed("packages", REQUIRED, absent="broken", remedy=REINSTALL)
    for extra, names in EXTRAS.items():
        yield _installed(f"extra {extra}", names, absent="missing", remedy=pip_command(f"vision-backends[{extra}]"))


def _installed(name: str, packages: Sequence[str], *, absent: State, remedy: str) -> Check:
    """Look packages up in their metadata: importing torch alone would take seconds."""
    versions = {package: _version(package) for package in packages}
    complete = all(versions.values())
    return Check(
        name=name,
        state="ok" if complete else absent,
        detail=", ".join(f"{package} {found or 'not installed'}" for package, found in versions.items()),
        remedy=None if complete else remedy,
    )


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _shipped() -> list[ModelCard]:
    return [card for card in model_cards() if card.file is not None]


def _model_file(card: ModelCard) -> Check:
    """Compare a shipped file with the checksum on its card."""
    flaw = flaw_of_asset(card)
    if flaw is not None:
        return Check(name=card.name, state="broken", detail=flaw, remedy=REINSTALL)
    return Check(name=card.name, state="ok", detail=f"{asset(card.file or '')}, sha256 is right")


def _configuration(configuration: "Configuration") -> Check:
    files = [str(place.path.absolute()) for place in configuration.places if place.path]
    if configuration.found not in {None, "trusted"}:
        files[-1] += f", which was found and may set little; run: vision trust {shlex.quote(files[-1])}"
    detail = " and ".join(files) or "defaults; there is no vision.toml here"
    return Check(name="configuration", state="ok", detail=detail)


def _servers(settings: "Settings", rungs: Sequence[RungStatus]) -> list[str]:
    """Return the names of the rungs that ask a server which speaks OpenAI's language, ``openai`` in any case."""
    others = [rung.backend for rung in rungs if rung.backend != "openai"]
    return ["openai", *filter(settings.asks_server, others)]


def _server(configuration: "Configuration", name: str) -> Iterator[Check]:
    """Name a server that is not OpenAI's, and who has named it."""
    server = configuration.settings.server_of(name)
    if server is not None and not server.is_openai:
        origins = (configuration.origins.get((*_table(name), key)) for key in SERVER_KEYS)
        origin = next(filter(None, origins), "the defaults")
        detail = f"{server}, which is not OpenAI's; set by {origin}"
        yield Check(name="OpenAI server" if name == "openai" else f"address of {name}", state="ok", detail=detail)


def _table(name: str) -> tuple[str, ...]:
    return (name,) if name == "openai" else ("backends", name)


def _state(settings: "Settings") -> Check:
    """Check whether the state's file, or the nearest folder above it that exists, can be written."""
    file = settings.state_file
    if file is None:
        return Check(name="state", state="ok", detail="in memory, gone when the process ends")
    nearest = next((place for place in (file, *file.parents) if place.exists()), Path())
    if os.access(nearest, os.W_OK) and nearest.is_dir() == (nearest != file):
        return Check(name="state", state="ok", detail=f"{file}, writable")
    remedy = f'Make {nearest} writable, or set state = "memory" in vision.toml.'
    return Check(name="state", state="broken", detail=f"{file} cannot be written", remedy=remedy)


def _api_key(configuration: "Configuration", rung: str) -> Check:
    name = "OpenAI key" if rung == "openai" else f"key of {rung}"
    table, keys = configuration.settings.table(rung), _table(rung)
    if table.get("api_key") or table.get("azure_ad_token_provider"):
        what = "set; it is never shown" if table.get("api_key") else "in its place, tokens of azure_ad_token_provider"
        return Check(name=name, state="ok", detail=what)
    if table.get("api_key_env"):
        return _key_in_variable(name, str(table["api_key_env"]))
    server, preset = configuration.settings.server_of(rung), configuration.settings.preset_of(rung)
    variable = "OPENAI_API_KEY" if rung == "openai" and preset is None else preset and preset.key_variable_for(server)
    if preset is not None and variable and os.environ.get(variable):
        return _key_in_variable(name, variable)
    prefix = "__".join(("VISION", *keys)).upper().replace("__", "_", 1)
    for withheld in configuration.withheld:
        if withheld.table == keys and withheld.keys in {("api_key",), ("api_key_env",)}:
            address = "endpoint" if configuration.settings.kind_of(rung) == "azure" else "base_url"
            both = f"{prefix}__API_KEY and {prefix}__{address.upper()}"
            remedy = f"Set api_key and {address} in the same place, or {both}."
            return Check(name=name, state="missing", detail=configuration.told_of(withheld), remedy=remedy)
    is_needed = preset.needs_key if preset is not None else rung == "openai" or server is None or server.is_openai
    if not is_needed:
        return Check(name=name, state="ok", detail="none; its server may need none")
    return Check(name=name, state="missing", detail="not set", remedy=f"export {variable or prefix + '__API_KEY'}=...")


def _key_in_variable(name: str, variable: str) -> Check:
    if os.environ.get(variable):
        return Check(name=name, state="ok", detail=f"set, in {variable}; it is never shown")
    return Check(name=name, state="missing", detail=f"{variable} is not set", remedy=f"export {variable}=...")


def _certificates() -> Iterator[Check]:
    """Look for variables that a removed environment has left behind; whoever opens https:// meets them."""
    for name in CERTIFICATES:
        path = os.environ.get(name)
        if path and not Path(path).exists():
            detail = f"{name} names {path}, which does not exist"
            yield Check(name="certificates", state="missing", detail=detail, remedy=f"unset {name}")


def _connections(router: "Router") -> Iterator[Check]:
    """Open the way to every server that is configured."""
    servers = {
        rung.backend
        for rung in router.status()
        if not rung.local and any(each.error not in NOT_ASKED for each in rung.tasks.values())
    }
    for backend, error in router.diagnose().items():
        name = f"{SERVER_OF}{backend}"
        if error is not None:
            yield Check(name=name, state="broken", detail=error.message, remedy=error.remedy)
        elif backend in servers:
            yield Check(name=name, state="ok", detail="nothing hinders the way to it")


def _probes(router: "Router") -> Iterator[Check]:
    """Find out anew what servers can do, and what that has cost."""
    for backend, found in router.probe().items():
        name = f"probe of {backend}"
        if isinstance(found, VisionError):
            yield Check(name=name, state="blocked", detail=found.message, remedy=found.remedy)
            continue
        cost = "a cost that is unknown" if found.usage.cost_usd is None else dollars(found.usage.cost_usd, decimals=6)
        detail = f"{found}, by {found.questions} {'question' if found.questions == 1 else 'questions'} for {cost}"
        remedy = None if found.sees is not False else f"Set a model that sees images for {backend}."
        yield Check(name=name, state="ok" if found.sees else "missing", detail=detail, remedy=remedy)


def _learned(rungs: "Sequence[RungStatus]") -> Iterator[Check]:
    """Tell what is remembered about how servers must be asked."""
    notes = {note: rung.backend for rung in rungs for verdict in rung.tasks.values() for note in verdict.notes}
    for note, backend in notes.items():
        yield Check(name=f"{SERVER_OF}{backend}", state="ok", detail=note)


def _who_answers(explanation: Explanation, *, broken: Collection[str]) -> str | None:
    """Return the first rung that would be asked, and whose server is there as far as is known."""
    names = [verdict.backend for verdict in explanation.verdicts if verdict.ready]
    return next((name for name in names if f"{SERVER_OF}{name}" not in broken), None)


def _prices(rungs: "Sequence[RungStatus]") -> Iterator[Check]:
    """Look for models whose costs nobody can tell."""
    from vision_backends.backends.registry import section_of
    from vision_backends.health.budgets import remedy_of_unpriced

    for rung in rungs:
        if rung.unpriced:
            detail = f"unknown for {', '.join(rung.unpriced)}, and so is the cost of every call"
            remedy = remedy_of_unpriced(section_of(rung.backend))
            yield Check(name=f"price of {rung.backend}", state="missing", detail=detail, remedy=remedy)


def _accounts(router: "Router") -> Iterator[Check]:
    """Look for the trouble that does not pass by itself: an empty account, a key that is not accepted."""
    for gate in router.gates():
        if gate.gate in {"quota", "authentication"}:
            yield Check(name=f"account of {gate.backend}", state="blocked", detail=gate.message, remedy=gate.remedy)


def _print(checks: Sequence[Check], rungs: Sequence[RungStatus], answers: Mapping[Task, str | None]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        typer.echo(f"{check.state:<7}  {check.name:<{width}}  {one_line(check.detail)}")
        if check.remedy:
            typer.echo(f"{'':<7}  {'':<{width}}  → {one_line(check.remedy)}")
    for rung in rungs:
        ready = [task for task, verdict in rung.tasks.items() if verdict.ready]
        typer.echo()
        typer.echo(f"{rung.backend}: {'ready for ' + ', '.join(ready) if ready else 'not ready'}")
        print_reasons(rung, named=False)
    typer.echo()
    for task, backend in answers.items():
        typer.echo(f"{task}: {f'{backend} answers' if backend else 'no backend can answer'}")
