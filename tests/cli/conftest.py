"""The command line as tests call it: in this process, as a process of its own, and at a terminal."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from typer.testing import CliRunner

from vision_backends.cli import main
from vision_backends.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typer.testing import Result

FAKE = "vision_backends.testing.fake:FakeBackend"


@pytest.fixture(autouse=True)
def fake_ladder(fresh_user, monkeypatch) -> Path:
    """A configuration that is named, in the working directory, with one fake backend that keeps nothing."""
    path = write_config(fresh_user / "vision.toml", FAKE)
    monkeypatch.setenv("VISION_CONFIG", str(path))
    return path


def write_config(path: Path, *ladder: str, more: str = "") -> Path:
    """Write a configuration whose state is kept in memory only, and return its path."""
    names = ", ".join(f'"{name}"' for name in ladder)
    path.write_text(f'ladder = [{names}]\nstate = "memory"\n{more}', encoding="utf-8")
    return path


@pytest.fixture
def use_ladder(fresh_user) -> Callable[..., Path]:
    """A writer of the configuration in the working directory; takes the rungs, best first."""

    def use(*ladder: str, more: str = "") -> Path:
        return write_config(fresh_user / "vision.toml", *ladder, more=more)

    return use


@pytest.fixture
def make_photo(fresh_user) -> Callable[..., str]:
    """A maker of image files of different content below the working directory; returns the name."""

    def make(name: str = "photo.png", *, size: tuple[int, int] = (64, 48)) -> str:
        path = fresh_user / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (len(name) % 256, sum(os.fsencode(name)) % 256, 100)).save(path, format="PNG")
        return name

    return make


@pytest.fixture
def vision() -> Callable[..., Result]:
    """The command in this process, neither at a terminal nor in a pipe that breaks."""

    def run(*arguments: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="vision", catch_exceptions=False)

    return run


@pytest.fixture
def vision_process(fresh_user) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """The command as a process of its own, given bytes and giving bytes."""

    def run(
        *arguments: str | bytes, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "vision_backends", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, env=process_env(env), timeout=60, check=False)

    return run


@pytest.fixture
def vision_streams(monkeypatch) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """The whole program in this process, away from a terminal; returns its exit code and what both streams got.

    huggingface_hub reads the environment anew for each run, as it does in a process of its own.
    """
    from huggingface_hub import constants

    def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as scene, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            for name, value in (env or {}).items():
                scene.setenv(name, value)
            importlib.reload(constants)
            with pytest.raises(SystemExit) as caught:
                main(arguments)
        assert isinstance(caught.value.code, int)
        return caught.value.code, out.getvalue(), err.getvalue()

    before = dict(vars(constants))
    yield run
    vars(constants).update(before)


def process_env(more: dict[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which the backends of this folder can be imported."""
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), **(more or {})}


@pytest.fixture
def vision_at_terminal(monkeypatch) -> Callable[..., tuple[int, str]]:
    """The command in this process at a terminal of 100 columns; returns exit code and screen, without colours."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")

    def run(*arguments: str) -> tuple[int, str]:
        screen = io.BytesIO()
        keyboard, terminal = pty.openpty()
        reader = threading.Thread(target=drain, args=(keyboard, screen))
        reader.start()
        code: object = None
        with (
            os.fdopen(terminal, "w", encoding="utf-8") as stream,
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
        ):
            try:
                main(arguments)
            except SystemExit as exit_:
                code = exit_.code
        reader.join()
        os.close(keyboard)
        assert isinstance(code, int)
        return code, re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue().decode()).replace("\r\n", "\n")

    return run


def drain(descriptor: int, into: io.BytesIO) -> None:
    """Copy what a terminal shows until it is closed."""
    with contextlib.suppress(OSError):  # the terminal is closed
        while chunk := os.read(descriptor, 4096):
            into.write(chunk)
