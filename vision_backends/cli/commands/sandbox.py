"""``vision sandbox``: an OpenAI server on this machine that answers for free and fails on demand.

This module decides how its options are called. It must not know how anything is played.
"""

from typing import Annotated

import typer

from vision_backends.cli.options import Debug
from vision_backends.cli.rendering.exits import exit_codes, tell
from vision_backends.errors import InvalidRequestError

__all__ = ["sandbox"]

USUAL_RATE = 0.2


def _faults() -> list[str]:
    from vision_backends.testing.sandbox import FAULTS  # only when a shell asks

    return list(FAULTS)


def sandbox(
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Listen on this port; 0 picks a free one.")
    ] = 0,
    play: Annotated[
        str | None,
        typer.Option(metavar="FAULT", autocompletion=_faults, help="Play this fault all the time, such as quota_gone."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Play random faults, the same ones for the same seed.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="PART", help=f"With --seed: share of calls that fail; {USUAL_RATE} by default."
        ),
    ] = None,
    script: Annotated[str | None, typer.Option(metavar="FILE", help="Play the faults in this JSON file.")] = None,
    record: Annotated[str | None, typer.Option(metavar="FILE", help="Write what was played to this file.")] = None,
    rpm: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Allow this many requests per minute and model.")
    ] = None,
    tpm: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Allow this many tokens per minute and model.")
    ] = None,
    quota_after: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Exhaust the quota after N requests.")
    ] = None,
    quota_tokens: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Exhaust the quota after N tokens.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Run a local OpenAI-compatible server that answers for free and fails on demand, until Ctrl-C."""
    with exit_codes(debug=debug):
        from vision_backends.testing.sandbox.command import SandboxOptions, serve

        if rate is not None and seed is None:
            raise InvalidRequestError("--rate needs --seed.")
        options = SandboxOptions(
            port=port,
            seed=seed,
            rate=USUAL_RATE if rate is None else rate,
            play=play,
            script=script,
            record=record,
            rpm=rpm,
            tpm=tpm,
            quota_after=quota_after,
            quota_tokens=quota_tokens,
        )
        try:
            serve(options, write=_announce)
        except (ValueError, OSError) as error:
            raise InvalidRequestError(f"The sandbox cannot run: {error}") from error


def _announce(lines: str) -> None:
    tell("run these lines in another terminal; Ctrl-C stops the sandbox")
    typer.echo(lines, nl=False)
