"""Decoding in a process of its own, which can be ended and has a limit of memory.

This module decides how such a process is started, what it is told and what it answers. It is a program of its own, no
fork of this one: it imports neither torch nor the caller's program, sees nothing of its environment, and works where
that has no main guard. It must not know when decoding happens here.
"""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

from vision_backends.errors import ImageTooLargeError, InvalidImageError, OverloadedError
from vision_backends.images.decoding import HEIF_PLUGIN, Measured, decode, measure
from vision_backends.images.limits import Encoded, ImageLimits
from vision_backends.images.pixels import Decoded

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["decode_apart", "serve"]

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from vision_backends.images.child import serve; serve()"
_KEPT_VARIABLES = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TEMP", "LANG")

_SLACK_BYTES = 300_000_000
"""Address space beside pixels: stacks and arenas of the decoder's threads, which are hardly used."""

_MOST_SECONDS = 60
"""Of computing, so that one whose parent has died ends as well."""

_PREFIX = struct.Struct(">L")


def decode_apart(measured: Measured, *, started: Callable[[Callable[[], None]], object] = lambda _end: None) -> Decoded:
    """Decode an image file in a process of its own.

    Args:
        measured: The image.
        started: Given what ends the process, as soon as there is one; this then raises.

    Raises:
        InvalidImageError: It is damaged, or its decoder crashed.
        ImageTooLargeError: It takes more memory than it should.
        OverloadedError: No process could be started.
    """
    name = measured.encoded.name
    asked = {
        "name": name,
        "limits": asdict(measured.limits),
        "min_side_px": measured.min_side_px,
        "room_bytes": measured.room_bytes,
    }
    with _start() as process:
        started(process.kill)
        with suppress(BrokenPipeError), _pipe(process.stdin) as stdin:  # closing it writes as well
            _write(stdin, asked, measured.encoded.data)
        try:
            answer, pixels = _read(_pipe(process.stdout))
        except EOFError:
            process.wait()
            raise InvalidImageError(
                f"{name} could not be decoded: its decoder ended with status {process.returncode}.",
                remedy="Save it again with another program.",
            ) from None
    if "error" in answer:
        kind = ImageTooLargeError if answer["error"] == ImageTooLargeError.kind else InvalidImageError
        raise kind(answer["message"], remedy=answer["remedy"])
    from PIL import Image as PILImage

    image = PILImage.frombytes("RGB", tuple(answer["pixels"]), pixels)
    return Decoded(pixels=image, width=answer["width"], height=answer["height"], notes=tuple(answer["notes"]))


def serve() -> None:
    """Decode the one image that comes by standard input; what the process does."""
    output = sys.stdout.buffer
    asked, data = _read(sys.stdin.buffer)
    limits = ImageLimits(**asked["limits"])
    with suppress(ImportError):
        import_module(HEIF_PLUGIN).register_heif_opener()
    _limit(asked["room_bytes"])
    try:
        encoded = Encoded(name=asked["name"], data=data)
        found = decode(measure(encoded, limits=limits, min_side_px=asked["min_side_px"]))
    except (InvalidImageError, ImageTooLargeError) as error:
        _write(output, {"error": error.kind, "message": error.message, "remedy": error.remedy}, b"")
    else:
        size = found.pixels.size
        answer = {"pixels": size, "width": found.width, "height": found.height, "notes": found.notes}
        _write(output, answer, found.pixels.tobytes())
    output.flush()


def _start() -> subprocess.Popen[bytes]:
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    try:
        return subprocess.Popen(  # noqa: S603 — this interpreter and a program of this module
            [sys.executable, "-I", "-c", _PROGRAM, *filter(None, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except (OSError, ValueError) as error:
        raise OverloadedError(
            f"No process could be started to decode an image: {error}.",
            remedy="Raise the limit of processes (ulimit -u, pids.max), or run fewer.",
        ) from error


def _limit(room_bytes: int) -> None:
    """Have the system refuse this process more memory and time than an image should take."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with suppress(OSError, ValueError):
        pages = int(open("/proc/self/statm", encoding="ascii").read().split()[0])  # noqa: PTH123, SIM115 — it ends soon
        most_bytes = pages * resource.getpagesize() + 2 * room_bytes + _SLACK_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (_MOST_SECONDS, _MOST_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _write(pipe: IO[bytes], head: dict[str, Any], body: bytes) -> None:
    text = json.dumps(head).encode()
    pipe.write(_PREFIX.pack(len(text)) + text)
    pipe.write(body)


def _read(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    prefix = pipe.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise EOFError
    head: dict[str, Any] = json.loads(pipe.read(*_PREFIX.unpack(prefix)))
    body = pipe.read()
    if "pixels" in head and len(body) != 3 * math.prod(head["pixels"]):
        raise EOFError
    return head, body


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise AssertionError("Both ends were asked for.")
    return pipe
