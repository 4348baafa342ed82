"""What a list of large PNGs takes on the embedded rung: the peak of memory of a whole process."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image as PILImage
from timing import PHOTOS, Figure, run_python, show

SIZE = (4000, 3000)
PICTURES = 70

PROGRAM = """
import resource, sys
from pathlib import Path
from vision_backends import EmbeddedBackend, Router, VisionError

files = sorted(Path(sys.argv[1]).glob("*.png"))
with Router([EmbeddedBackend()], caching=False) as router:
    answers = router.describe_many([files[number % len(files)] for number in range(int(sys.argv[2]))])
assert not [each for each in answers if isinstance(each, VisionError)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
"""


def measure_large_pictures(pictures: int = PICTURES) -> list[Figure]:
    """Describe pictures of 12 megapixels, each file several times."""
    with tempfile.TemporaryDirectory() as folder:
        for photo in sorted(PHOTOS.glob("*.jpg"))[:8]:
            with PILImage.open(photo) as opened:
                opened.convert("RGB").resize(SIZE).save(Path(folder, f"{photo.stem}.png"), compress_level=1)
        printed, _ = run_python("-c", PROGRAM, folder, str(pictures))
    return [Figure(name=f"{pictures} PNGs of 12 megapixels: peak memory", value=float(printed), unit="MB", target=500)]


if __name__ == "__main__":
    if sys.platform != "linux":
        raise SystemExit("The peak is the kernel's own figure, in kB on Linux only.")
    show("Large pictures", measure_large_pictures, options={"pictures": PICTURES})
