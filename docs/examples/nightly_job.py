"""Describe the images of a folder, and those again that were degraded last time: ``python nightly_job.py FOLDER``.

The answers are lines of JSON in ``FOLDER/descriptions.jsonl``. The job waits for the best backend up to ``WAIT_S``
seconds per image; what is degraded all the same is asked for again by the next run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from vision_backends import Router, VisionError

WAIT_S = float(os.environ.get("WAIT_S", "3600"))


def main(folder: Path) -> None:
    """Describe what is missing or degraded, and report what was done."""
    file = folder / "descriptions.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    kept = {row["name"]: row for row in rows if not row["degraded"]}
    todo = [path for path in sorted(folder.glob("*.jpg")) if path.name not in kept]
    counts = {"best": 0, "degraded": 0, "failed": 0}
    with Router.from_config() as router:
        answers = router.describe_each(todo, priority="batch", max_wait_s=WAIT_S)
        for path, answer in zip(todo, answers, strict=True):
            if isinstance(answer, VisionError):
                counts["failed"] += 1
                print(f"{path.name}: {answer}", file=sys.stderr)
                continue
            counts["degraded" if answer.trace.degraded else "best"] += 1
            kept[path.name] = {
                "name": path.name,
                "text": answer.text,
                "backend": answer.trace.backend,
                "degraded": answer.trace.degraded,
            }
    written = file.with_suffix(".tmp")  # a run that is interrupted leaves the last file as it was
    written.write_text("".join(json.dumps(kept[name]) + "\n" for name in sorted(kept)), encoding="utf-8")
    written.replace(file)
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
