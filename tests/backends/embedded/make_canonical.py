"""Writes canonical.json: what the shipped models say about the sample photos.

Run it after a change of models, preprocessing or wording that is meant, and look at the difference:

    python tests/backends/embedded/make_canonical.py
"""

from __future__ import annotations

import json
from pathlib import Path

from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.images import open_image

HERE = Path(__file__).parent
FILE = HERE / "canonical.json"
PHOTOS = HERE.parents[2] / "benchmarks" / "photos"
STEP = 20
"""Every so many components of a vector are kept: 64 of 1280."""

JOINT_STEP = 2
"""The same for the space that images share with texts: 64 of 128."""


def observe(backend, path):
    """Return what a backend says about a photo, as JSON-able values."""
    image = open_image(path)
    found = backend.detect([image], DetectRequest(), timeout_s=60)[0]
    vector = backend.embed([image], EmbedRequest(), timeout_s=60)[0].vector
    shared = EmbedRequest(space=backend.model_for(EmbedTextRequest()).space)
    joint = backend.embed([image], shared, timeout_s=60)[0].vector
    described = backend.describe([image], DescribeRequest(), timeout_s=60)[0]
    return {
        "boxes": [[box.label, round(box.score, 3), *(round(side, 1) for side in box.xyxy)] for box in found],
        "vector": [round(value, 4) for value in vector[::STEP].tolist()],
        "joint": [round(value, 3) for value in joint[::JOINT_STEP].tolist()],
        "text": described.text,
        "scene": (described.evidence["scene"] or {}).get("label"),
    }


if __name__ == "__main__":
    said = {path.stem: observe(EmbeddedBackend(threads=2), path) for path in sorted(PHOTOS.glob("*.jpg"))}
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in said.items())
    FILE.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
