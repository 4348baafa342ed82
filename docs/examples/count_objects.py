"""Count the objects in the images of a folder: ``python count_objects.py FOLDER > counts.csv``."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

from vision_backends import Router, VisionError


def main(folder: Path) -> None:
    """Print one row for each image and kind of object, with the backend that found it."""
    images = sorted(folder.glob("*.jpg"))
    table = csv.writer(sys.stdout)
    table.writerow(["image", "object", "count", "backend"])
    with Router.from_config() as router:
        for image, found in zip(images, router.detect_each(images, min_score=0.5), strict=True):
            if isinstance(found, VisionError):
                print(f"{image.name}: {found}", file=sys.stderr)
                continue
            for label, count in sorted(Counter(box.label for box in found).items()):
                table.writerow([image.name, label, count, found.trace.backend])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
