"""The bars on standard error while many inputs are asked about, or large files are fetched and read.

This module decides when there is a bar. It must not know what is asked or fetched.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, TaskID

    from vision_backends.backends.local.hub.progress import Progress as Bytes

__all__ = ["Bar", "bytes_bar", "progress_bar"]

MANY = 5
"""From so many inputs on there is a bar."""

LOOK_S = 0.1
"""How often a bar of bytes looks how far it is."""


class Bar:
    """A progress bar, or nothing where nobody would see it.

    Args:
        progress: The bar; None where there is none.
        task: What it counts.
    """

    def __init__(self, progress: Progress | None = None, task: TaskID | None = None) -> None:
        self._progress = progress
        self._task = task

    def counter(self, *, before: int) -> Callable[[int, int], None]:
        """Return what the router tells how many inputs are done, from any thread.

        Args:
            before: How many were done before it was asked.
        """

        def count(done: int, _: int) -> None:
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, completed=before + done)

        return count

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while something else is printed on the same terminal."""
        if self._progress is None or not sys.stdout.isatty():
            yield
            return
        self._progress.stop()
        yield
        self._progress.start()


@contextmanager
def progress_bar(total: int, *, quiet: bool = False, doing: str = "") -> Iterator[Bar]:
    """Show a bar for many inputs if standard error is a terminal, and nobody wants it quiet.

    Args:
        total: How many inputs there are.
        quiet: Whether nobody wants it.
        doing: What stands before it, where it is not for answers.
    """
    if quiet or total < MANY or not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (*([TextColumn(doing)] if doing else []), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        yield Bar(progress, progress.add_task("", total=total))


@contextmanager
def bytes_bar(progress: Bytes) -> Iterator[None]:
    """Show how far something is, and how fast it goes, if standard error is a terminal.

    Args:
        progress: What the body of the ``with`` is at; its stage is the text before the bar.
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    over = threading.Event()
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        shown = bar.add_task(progress.stage, total=progress.total_bytes or None, completed=progress.done_bytes)

        def show() -> None:
            total_bytes = progress.total_bytes or None
            bar.update(shown, description=progress.stage, total=total_bytes, completed=progress.done_bytes)

        def watch() -> None:
            while not over.wait(LOOK_S):
                show()

        watcher = threading.Thread(target=watch, name="bar", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            show()
