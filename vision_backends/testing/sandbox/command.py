"""Running the sandbox from a terminal until it is interrupted.

This module decides what a user types and sees. It must not know how anything is played.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vision_backends.testing.sandbox.limits import Limits
from vision_backends.testing.sandbox.script import Chaos, Script
from vision_backends.testing.sandbox.server import SandboxServer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SandboxOptions", "serve"]

_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """What a sandbox is started with.

    Attributes:
        port: 0 takes a free one.
        seed: Plays chaos with this seed.
        rate: With a seed: the fraction of requests that meet a fault, 0 to 1.
        play: Name of a fault to play from the start.
        script: JSON file of a script to play.
        record: JSON file that the played faults are written to at the end.
        rpm: Requests per minute for each model.
        tpm: Tokens per minute for each model.
        quota_after: Requests after which the quota is exhausted.
        quota_tokens: Tokens after which the quota is exhausted.
    """

    port: int = 0
    seed: int | None = None
    rate: float = 0.2
    play: str | None = None
    script: str | None = None
    record: str | None = None
    rpm: int | None = None
    tpm: int | None = None
    quota_after: int | None = None
    quota_tokens: int | None = None


def serve(
    options: SandboxOptions,
    *,
    write: Callable[[str], object] = sys.stdout.write,
    stop: threading.Event | None = None,
) -> None:
    """Run a sandbox until Ctrl-C, or until ``stop`` is set.

    Raises:
        ValueError: An option is not valid, or a file is not a script.
        OSError: The port is taken, or a file cannot be read.
    """
    plans = [
        None if options.seed is None else Chaos(seed=options.seed, rate=options.rate),
        None if options.script is None else Script.load(options.script),
        options.play,
    ]
    limits = Limits(
        rpm=options.rpm,
        tpm=options.tpm,
        quota_requests=options.quota_after,
        quota_tokens=options.quota_tokens,
    )
    server = SandboxServer(port=options.port, limits=limits)
    for plan in plans:
        if plan is not None:
            server.play(plan)
    with contextlib.suppress(KeyboardInterrupt), server:
        write(f"export OPENAI_BASE_URL={server.url}\nexport OPENAI_API_KEY={server.api_key}\n")
        sys.stdout.flush()
        stop = stop or threading.Event()
        while not stop.wait(_LOOK_S):  # a wait without a timeout could miss an interrupt that comes as it begins
            pass
    if options.record is not None:
        server.recorded.save(options.record)
