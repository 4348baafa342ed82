"""One answer in a fresh process: a program by itself, which imports nothing but the package.

Reads JSON from standard input: settings, rung, task, options and the image. Writes one line of JSON: what has cost how
much, and the largest amount of memory that the process has had; or why there is no answer. It must not measure time:
whoever starts it does, so that the start of Python counts as well.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer the question on standard input."""
    question: dict[str, Any] = json.load(sys.stdin)
    print(json.dumps(answer(question)), flush=True)


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Return what came of a question."""
    from vision_backends import Router, VisionError
    from vision_backends.config.settings import Settings

    source = question.get("path") or base64.b64decode(question["bytes"])
    with Router.from_config(Settings(**question["settings"])) as router:
        method = getattr(router, question["task"])
        try:
            found = method(
                source, backend=question["backend"], deadline_s=question["deadline_s"], **question["options"]
            )
        except VisionError as error:
            return {"declined": error.message}
        return {"usd": found.trace.usage.cost_usd, "memory_bytes": peak_memory_bytes()}


def peak_memory_bytes() -> int | None:
    """Return the most memory that this process has had, in bytes; None where the system does not say it.

    Linux' own file is asked first, because the kernel's other figure, in getrusage(2), begins with the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii", errors="replace"))
        return int(found[1]) * 1024 if found else None
    try:
        import resource
    except ImportError:
        return None
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
