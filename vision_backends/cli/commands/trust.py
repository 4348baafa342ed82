"""``vision trust``: which vision.toml may set everything, although it was only found.

This module decides how trust is given, shown and taken back. It must not know what a file may set without it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vision_backends.cli.options import ReportOptions, command
from vision_backends.cli.rendering.exits import tell
from vision_backends.cli.rendering.text import dump_json, print_table
from vision_backends.errors import ConfigError, InvalidRequestError
from vision_backends.foreign_text import printable

if TYPE_CHECKING:
    from vision_backends.config.trusted_files import TrustedFile

__all__ = ["trust"]

NOT_COVERED = (
    "what it refers to is not covered: servers, folders, models and modules may change without being asked about"
)


@command
def trust(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file.")] = Path("vision.toml"),
    *,
    listed: Annotated[bool, typer.Option("--list", help="Show the files that are trusted.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Trust the file no longer.")] = False,
    options: ReportOptions,
) -> None:
    """Let a vision.toml that you have read set everything, until its content changes."""
    from vision_backends.config.trusted_files import TrustedFiles

    if listed and revoke:
        raise InvalidRequestError("--list and --revoke do not go together.", remedy="Pass one of them.")
    files = TrustedFiles()
    if listed:
        _show([(each, _state(each)) for each in files.all()], as_json=options.as_json)
    elif revoke:
        if not files.remove(file):
            raise InvalidRequestError(f"{str(file)!r} is not trusted.", remedy="Run: vision trust --list")
        tell(f"{file} is no longer trusted")
    else:
        from vision_backends.config.loading import read_to_trust

        place, needing = read_to_trust(file)
        trusted = files.add(file, place.sha256)
        if options.as_json:
            _show([(trusted, "trusted")], as_json=True)
        tell(f"{trusted.path} is trusted until it changes; {NOT_COVERED}")
        tell(
            f"it sets what needs that: {', '.join(map(str, needing))}" if needing else "it sets nothing that needs that"
        )


def _state(trusted: "TrustedFile") -> str:
    """Return whether a file still says what it said."""
    from vision_backends.config.places import read_file

    try:
        return "trusted" if read_file(trusted.path).sha256 == trusted.sha256 else "changed"
    except ConfigError:
        return "changed" if trusted.path.exists() else "missing"


def _show(files: "list[tuple[TrustedFile, str]]", *, as_json: bool) -> None:
    if as_json:
        for each, state in files:
            typer.echo(dump_json({"path": str(each.path), "sha256": each.sha256, "state": state}))
    elif files:
        print_table(("state", "file"), [(state, printable(str(each.path))) for each, state in files])
    else:
        tell("no file is trusted")
