"""``vision cache info`` and ``clear``: the cached answers.

This module decides how a cache looks, and that it is not emptied by mistake. It must not know what is in it.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from vision_backends.cli.options import CommonOptions, JsonOptions, Yes, command
from vision_backends.cli.rendering.exits import agreed, tell
from vision_backends.cli.rendering.text import bytes_text, dump_json
from vision_backends.foreign_text import printable

if TYPE_CHECKING:
    from vision_backends.storage.base import CacheInfo

__all__ = ["cache"]

cache = typer.Typer(add_completion=False, no_args_is_help=True, help="Show or clear the cached answers.")


@cache.command()
@command
def info(*, options: JsonOptions) -> None:
    """Show how many answers are cached, how much space they take, and where."""
    with options.open_router() as (router, settings):
        found = router.cache_info()
        if options.as_json:
            typer.echo(dump_json({"enabled": settings.cache.enabled, **asdict(found)}))
            return
        typer.echo(f"{_answers(found.entries)}, {bytes_text(found.size_bytes)} of {bytes_text(found.max_bytes)}")
        typer.echo(_location(found))
        if not settings.cache.enabled:
            typer.echo("The cache is switched off: cache.enabled = false.")


@cache.command()
@command
def clear(
    *,
    yes: Yes = False,
    options: CommonOptions,
) -> None:
    """Remove every cached answer; spending and blocked gates are kept."""
    with options.open_router() as (router, _):
        found = router.cache_info()
        if not agreed(f"Remove {_answers(found.entries)} from {_location(found)}?", yes=yes):
            tell("nothing was removed")
            return
        typer.echo(f"{_answers(router.clear_cache())} removed from {_location(found)}")


def _answers(count: int) -> str:
    return f"{count:,} {'answer' if count == 1 else 'answers'}"


def _location(found: "CacheInfo") -> str:
    return "memory, gone when the process ends" if found.location == "memory" else printable(found.location)
