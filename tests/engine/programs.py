"""Programs for processes of their own, since signals, forks and exits would harm that of the tests."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

PREAMBLE = """
import asyncio, os, signal, sys, threading, time
from vision_backends.engine.event_loop import EventLoop, engine_loop
from vision_backends.engine.pools import Pool

async def answer(value=42):
    await asyncio.sleep(0)
    return value

"""


def run_program(text: str, *, preamble: str = PREAMBLE, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run a program in which every warning is an error, and return how it ended and what it printed."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", preamble + dedent(text)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
