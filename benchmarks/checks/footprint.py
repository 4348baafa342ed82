"""How much of the package one degraded call runs through: files and functions, counted in all threads.

Two calls are counted: a ``Router.describe`` in which the first rung, OpenAI's (played by the sandbox), refuses for lack
of quota and the embedded rung answers; and the next one, which calls the embedded rung only. Neither is the first of
its process: what is imported and loaded once is not counted, nor are comprehensions.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import vision_backends
from benchmarks.sandbox_process import API_KEY, RemoteSandbox
from vision_backends import Router

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = str(Path(vision_backends.__file__).parent)
PHOTOS = Path(__file__).parents[1] / "photos"

CONFIG = """
ladder = ["openai", "embedded"]
state = "{state}"

[openai]
base_url = "{url}"
api_key = "{key}"
"""


def main() -> None:
    """Print the figures, and with ``--list`` every function."""
    seen: set[tuple[str, int, str]] = set()
    figures: list[tuple[str, set[tuple[str, int, str]]]] = []
    counting = False

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if counting and event == "call" and code.co_filename.startswith(PACKAGE) and "<" not in code.co_name:
            seen.add((code.co_filename.removeprefix(PACKAGE), code.co_firstlineno, code.co_qualname))

    # Before the engine starts its threads, so that theirs count as well.
    threading.setprofile(note)
    sys.setprofile(note)
    with tempfile.TemporaryDirectory() as name, RemoteSandbox.started() as sandbox:
        config = Path(name, "vision.toml")
        state = Path(name, "state.sqlite")
        config.write_text(CONFIG.format(state=state, url=sandbox.url, key=API_KEY), encoding="utf-8")
        with Router.from_config(config) as router:
            router.describe(PHOTOS / "cat.jpg")
            router.describe(PHOTOS / "cat.jpg", backend="embedded")
            sandbox.play("quota_gone")
            for what, photo in (("refused", "rocket.jpg"), ("blocked", "astronaut.jpg")):
                counting = True
                answer = router.describe(PHOTOS / photo)
                counting = False
                if not answer.trace.degraded:
                    sys.exit(f"The call was not degraded: {answer.trace}")
                figures.append((what, set(seen)))
                seen.clear()
    sys.setprofile(None)
    threading.setprofile(None)
    for what, functions in figures:
        if "--list" in sys.argv:
            for file, line, function in sorted(functions):
                print(f"{what} {file}:{line} {function}")
        print(f"{what}: {len({file for file, _line, _function in functions})} files, {len(functions)} functions")


if __name__ == "__main__":
    main()
