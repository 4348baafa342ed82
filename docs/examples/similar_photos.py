"""Find the photos of a folder that resemble another one: ``python similar_photos.py FOLDER PHOTO``.

The vectors are kept in ``FOLDER/vectors.npz`` together with the name of their space; a later run only asks for the
photo, in the same space.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from vision_backends import Router, VisionError


def index_of(folder: Path, router: Router) -> tuple[list[str], np.ndarray, str]:
    """Return names, vectors and the space of the photos of a folder, from its index where there is one."""
    file = folder / "vectors.npz"
    if not file.exists():
        photos = sorted(folder.glob("*.jpg"))
        found = [
            (photo.name, vector)
            for photo, vector in zip(photos, router.embed_many(photos), strict=True)
            if not isinstance(vector, VisionError)
        ]
        names, vectors = zip(*found, strict=True)
        np.savez(file, names=names, vectors=np.stack([each.vector for each in vectors]), space=vectors[0].space)
    with np.load(file) as index:
        return list(index["names"]), index["vectors"], str(index["space"])


def main(folder: Path, photo: Path) -> None:
    """Print the five nearest photos, the nearest one first."""
    with Router.from_config() as router:
        names, vectors, space = index_of(folder, router)
        query = router.embed(photo, space=space)  # fails rather than comparing vectors of two models
    scores = vectors @ query.vector
    for place in np.argsort(-scores)[:5]:
        print(f"{scores[place]:.2f}  {names[place]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
