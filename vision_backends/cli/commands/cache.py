"""``vision cache info`` and ``clear``: the answers that are kept.

This module decides how full a cache looks, and that nobody empties it by mistake. It must not know what is in it.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from vision_backends.cli.options import ConfigFile, Debug, Json, Yes
from vision_backends.cli.rendering.confirm import agreed
from vision_backends.cli.rendering.exits import exit_codes, tell
from vision_backends.cli.rendering.text import bytes_text, dump_json, printable
from vision_backends.cli.session import open_router

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
        typer.echo(f"{_answers(found.entries)}, {bytes_text(found.size_bytes)} of {bytes_text(found.max_bytes)}")
        typer.echo(_location(found))
        if not settings.cache.enabled:
            typer.echo("It is switched off: cache.enabled = false.")


@cache.command()
def clear(
    *,
    yes: Yes = False,
    config: ConfigFile = None,
    debug: Debug = False,
) -> None:
    """Forget every answer; what was spent and which gates are blocked stays known."""
    with exit_codes(debug=debug), open_router(config) as (router, _):
        found = router.cache_info()
        if not agreed(f"Remove {_answers(found.entries)} from {_location(found)}?", yes=yes):
            tell("nothing was removed")
            return
        typer.echo(f"{_answers(router.clear_cache())} removed from {_location(found)}")


def _answers(count: int) -> str:
    return f"{count:,} {'answer' if count == 1 else 'answers'}"


def _location(found: "CacheInfo") -> str:
    return "memory, gone when the process ends" if found.location == "memory" else printable(found.location)
