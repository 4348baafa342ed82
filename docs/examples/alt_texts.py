"""Write an alternative text for every image of a folder: ``python alt_texts.py FOLDER > texts.json``.

Images whose text comes from a template, because no better backend could answer, are named at the end, so that a person
can look at them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vision_backends import Router, VisionError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def main(folder: Path) -> None:
    """Print the texts as JSON, and what to look at on standard error."""
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    texts: dict[str, str] = {}
    to_check: list[str] = []
    with Router.from_config() as router:
        for image, answer in zip(images, router.describe_each(images, max_words=20, language="en"), strict=True):
            name = str(image.relative_to(folder))
            if isinstance(answer, VisionError):
                to_check.append(f"{name}: {answer.message}")
                continue
            texts[name] = answer.text
            if answer.trace.degraded:
                to_check.append(f"{name}: by {answer.trace.backend}, because {answer.trace.reason}")
    json.dump(texts, sys.stdout, indent=2, ensure_ascii=False)
    print()
    print(*to_check, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
