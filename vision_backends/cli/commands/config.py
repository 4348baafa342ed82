"""``vision config``: the settings that are in force, where each came from, and the schema of the file.

This module decides what is said about where settings come from. It must not know what any of them means.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vision_backends.cli.options import JsonOptions, command
from vision_backends.cli.rendering.exits import tell
from vision_backends.cli.rendering.text import dump_json, one_line, short_path
from vision_backends.cli.rendering.toml import Line, dotted, to_toml, toml_value, wrapped
from vision_backends.errors import InvalidRequestError
from vision_backends.foreign_text import printable

if TYPE_CHECKING:
    from vision_backends.cli.settings_in_force import Setting
    from vision_backends.config.loading import Configuration

__all__ = ["config"]


@command
def config(
    *,
    path: Annotated[bool, typer.Option("--path", help="Print only the path of the file.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of vision.toml, which editors check it by.")
    ] = False,
    options: JsonOptions,
) -> None:
    """Print every setting in force as TOML for vision.toml, without secrets, with its default and its origin."""
    if path and schema:
        raise InvalidRequestError("--path and --schema do not go together.", remedy="Pass one of them.")
    if path:
        _print_path(options.config)
        return
    if schema:
        from vision_backends.cli.config_schema import config_schema

        typer.echo(dump_json(config_schema(), indent=2))
        return
    from vision_backends.cli.settings_in_force import settings_in_force
    from vision_backends.config.loading import read_configuration

    configuration = read_configuration(options.config)
    settings = settings_in_force(configuration)
    if options.as_json:
        typer.echo(dump_json(_as_json(configuration, settings)))
        return
    for line in [*_about(configuration), "", *to_toml(map(_line, settings))]:
        typer.echo(line)


def _print_path(named: Path | None) -> None:
    from vision_backends.config.loading import CONFIG_FILE, find_config

    target = (find_config(named) or Path(CONFIG_FILE)).absolute()
    if not target.exists():
        tell(f"{target} does not exist; the defaults are in force")
    typer.echo(printable(str(target)))


def _about(configuration: "Configuration") -> Iterator[str]:
    """Yield the comments above the settings."""
    sources = [short_path(place.path) for place in configuration.places if place.path]
    variables = configuration.variables
    for own in (False, True):  # ours win
        names = [name for name in variables if name.upper().startswith("VISION_") is own]
        sources += [", ".join(names)] if names else []
    if sources:
        yield from wrapped("In force now. What has no comment is a default; of these, the later wins:")
        yield from (f"#   {printable(each)}" for each in sources)
    else:
        yield "# In force now: nothing is configured, these are the defaults."
    state = configuration.settings.state_file
    yield from wrapped(f"The state is kept in {printable(short_path(state) if state else 'memory')}.")
    for withheld in configuration.withheld:
        yield from wrapped(f"{one_line(configuration.told_of(withheld))}.")


def _line(setting: "Setting") -> Line:
    from vision_backends.cli.settings_in_force import is_masked

    comment = ""
    if setting.origin is not None:
        place = short_path(Path(setting.origin)) if os.sep in setting.origin else setting.origin
        comment = printable(f"{place}:{setting.line}" if setting.line else place)
        if setting.default not in (None, {}, setting.value):
            comment += f"; by default {printable(toml_value(setting.default))}"
    return Line(setting.keys, setting.value, comment, hidden=is_masked(setting.value))


def _as_json(configuration: "Configuration", settings: "list[Setting]") -> Mapping[str, Any]:
    files = [str(place.path.absolute()) for place in configuration.places if place.path]
    values: dict[str, Any] = {}
    for setting in settings:
        within = values
        for key in setting.keys[:-1]:
            within = within.setdefault(key, {})
        within[setting.keys[-1]] = setting.value
    about = {
        dotted(each.keys): {
            "value": each.value,
            "default": each.default,
            "origin": each.origin or "default",
            "line": each.line,
        }
        for each in settings
    }
    state = configuration.settings.state_file
    return {
        "file": configuration.file and str(configuration.file.absolute()),
        "files": files,
        "state_file": state and str(state),
        "variables": configuration.variables,
        "keys": about,
        "settings": values,
    }
