"""``vision cache info`` and ``clear``: the answers that are kept.

This module decides how full a cache looks, and that nobody empties it by mistake. It must not know what is in it.
"""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vision_backends.cli.exits import INTERRUPTED, exit_codes, tell
from vision_backends.cli.options import ConfigFile, Debug, Json
from vision_backends.cli.session import open_router
from vision_backends.cli.text import dump_json, printable

if TYPE_CHECKING:
    from vision_backends.storage.base import CacheInfo

__all__ = ["cache"]

cache = typer.Typer(no_args_is_help=True, help="Look at the answers that are kept, or forget them.")


@cache.command()
def info(*, as_json: Json = False, config: ConfigFile = None, debug: Debug = False) -> None:
    """Show how many answers are kept, how much room they take, and where."""
    with exit_codes(debug=debug), open_router(config) as (router, settings):
        found = router.cache_info()
        if as_json:
            typer.echo(dump_json({"enabled": settings.cache.enabled, **asdict(found)}))
            return
        typer.echo(f"{_answers(found.entries)}, {_size(found.size_bytes)} of {_size(found.max_bytes)}")
        typer.echo(_location(found))
        if not settings.cache.enabled:
            typer.echo("It is switched off: cache.enabled = false.")


@cache.command()
def clear(
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether to.")] = False,
    config: ConfigFile = None,
    debug: Debug = False,
) -> None:
    """Forget every answer; what was spent and which gates are closed stays known."""
    with exit_codes(debug=debug), open_router(config) as (router, _):
        found = router.cache_info()
        if not yes and sys.stdin.isatty() and not _confirmed(found):
            tell("nothing was removed")
            return
        typer.echo(f"{_answers(router.clear_cache())} removed from {_location(found)}")


def _confirmed(found: "CacheInfo") -> bool:
    try:
        return typer.confirm(f"Remove {_answers(found.entries)} from {_location(found)}?", err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        raise typer.Exit(INTERRUPTED) from None


def _answers(count: int) -> str:
    return f"{count:,} {'answer' if count == 1 else 'answers'}"


def _location(found: "CacheInfo") -> str:
    return "memory, gone when the process ends" if found.location == "memory" else printable(found.location)


def _size(size_bytes: int) -> str:
    """Return a size for people, rounded: ``312 bytes``, ``4 kB``, ``500 MB``."""
    for factor, unit in ((1, "bytes"), (1e3, "kB"), (1e6, "MB")):
        if round(size_bytes / factor) < 1_000:
            return f"{size_bytes / factor:.0f} {unit}"
    return f"{size_bytes / 1e9:,.1f} GB"
