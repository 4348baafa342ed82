"""An index of photos: indexing beside embedding alone, how long a search takes, which duplicates are found."""

from __future__ import annotations

import itertools
import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from embedded import SMALL, make_photo
from PIL import Image as PILImage
from PIL import ImageEnhance
from timing import ROOT, Figure, cost_in_turns, measure, show

from vision_backends import EmbeddedBackend, Embedding, Router
from vision_backends.image_files import FoundFile
from vision_backends.search import ImageIndex
from vision_backends.search.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Variant = Callable[[PILImage.Image], PILImage.Image]

WRITTEN_TOGETHER = 10_000
"""Vectors."""

SPACES = {"words": 128, "photos": 1280}
"""The dimensions of the spaces of the embedded rung."""


def figures(*, photos: int, vectors: int, rounds: int, copied: int) -> list[Figure]:
    """Return all figures.

    Args:
        photos: How many are indexed.
        vectors: How many are searched.
        rounds: How often each search is made.
        copied: Of how many photos copies are looked for.
    """
    with tempfile.TemporaryDirectory() as name, Router([EmbeddedBackend()], caching=False) as router:
        folder = Path(name)
        indexing = _indexing(folder / "indexing", router, count=photos)
        searching = [
            _searching(folder / what, router, name=what, count=vectors, dimension=dimension, rounds=rounds)
            for what, dimension in SPACES.items()
        ]
        return [*indexing, *itertools.chain(*searching), *_duplicates(folder / "duplicates", router, count=copied)]


def _indexing(folder: Path, router: Router, *, count: int) -> list[Figure]:
    """Index different photos of one megapixel, beside embedding them without an index."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    data = make_photo(folder / "photo.jpg", SMALL).read_bytes()
    paths = [photos / f"{number:04}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(data + b"%d" % number)  # another content, and the same work
    index = ImageIndex(folder / "index", router=router)
    actions = {
        "alone": lambda _: router.embed_many(paths),
        "index": lambda _: index.update(photos, rebuild=True, purposes=("like",)),
        "both": lambda _: index.update(photos, rebuild=True),
        "again": lambda _: index.update(photos),
    }
    router.embed_many(paths[:4])
    costs = cost_in_turns(actions, rounds=3)
    cpu_s = {name: [cost.cpu_s / count for cost in each] for name, each in costs.items()}
    ratio = [own / alone for own, alone in zip(cpu_s["index"], cpu_s["alone"], strict=True)]
    speed = [count / cost.taken_s for cost in costs["both"]]
    spaces = len(index.info().vectors)
    return [
        measure(f"indexing in {spaces} space(s), photos per second", speed, "", target=40, at_least=True),
        measure(f"indexing in {spaces} space(s), CPU per photo", [1e3 * each for each in cpu_s["both"]], "ms"),
        measure("indexing in the space of photos, CPU per photo", [1e3 * each for each in cpu_s["index"]], "ms"),
        measure("the same beside embed_many alone", ratio, "×", target=1.15),
        measure("indexing again, CPU per known photo", [1e6 * each for each in cpu_s["again"]], "µs"),
    ]


def _searching(folder: Path, router: Router, *, name: str, count: int, dimension: int, rounds: int) -> Iterator[Figure]:
    """Search random vectors; the files of the hits are there."""
    space = f"random/{dimension}"
    random = np.random.default_rng(dimension)
    folder.mkdir()
    vectors = np.empty((0, dimension), dtype=np.float32)
    with Database(folder / "index").writing() as session:
        for start in range(0, count, WRITTEN_TOGETHER):
            vectors = random.standard_normal((min(WRITTEN_TOGETHER, count - start), dimension), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            contents = [number.to_bytes(32) for number in range(start, start + len(vectors))]
            with session.batch():
                session.add_vectors(contents, [Embedding(vector=vector, space=space) for vector in vectors])
                for content in contents:
                    path = folder / content[-4:].hex()
                    path.touch()
                    session.put_file(FoundFile(path=str(path), size_bytes=0, mtime_ns=0, ctime_ns=0), content)
                session.pin("random", {"like": space})
    index = ImageIndex(folder / "index", router=router)
    queries = [Embedding(vector=vector, space=space) for vector in vectors[:rounds]]
    index.nearest(queries[0])
    costs = cost_in_turns({"search": lambda place: index.nearest(queries[place % len(queries)])}, rounds=rounds)[
        "search"
    ]
    title = f"search for {name}, {dimension} components, {count:,} vectors"
    yield measure(title, [1e3 * cost.taken_s for cost in costs], "ms", target=20)
    yield measure(f"{title}: CPU", [1e3 * cost.cpu_s for cost in costs], "ms")


def _duplicates(folder: Path, router: Router, *, count: int) -> Iterator[Figure]:
    """Look for copies of the sample's photos, and for none where photos only share a part of the scene."""
    paths = sorted((ROOT / "benchmarks").glob("**/photos/*.jpg"))[:count]
    found = total = wrong = 0
    for name, variant in COPIES.items():
        place = folder / name.replace(" ", "-")
        of_variant = _grouped(place, router, {path.stem: _opened(path) for path in paths}, variant)
        right = sum(len(group) == 2 and len({stem for stem, _ in group}) == 1 for group in of_variant)
        found, total = found + right, total + len(paths)
        wrong += sum(len({stem for stem, _ in group}) > 1 for group in of_variant)
        yield Figure(name=f"duplicates found: {name}", value=100 * right / len(paths), unit="%")
    yield Figure(name="duplicates found: all of these", value=100 * found / total, unit="%", target=95, at_least=True)
    yield Figure(name="groups of different photos", value=wrong, unit="", target=0)
    for share in (0.6, 0.7, 0.8):
        left = {path.stem: _part(_opened(path), share, 0.0) for path in paths}
        right_of = {path.stem: _opened(path) for path in paths}
        same = _grouped(
            folder / f"{share}", router, left, lambda picture, part=share: _part(picture, part, 1.0), others=right_of
        )
        title = f"taken for the same: left and right {100 * share:.0f} % of a photo"
        yield Figure(name=title, value=100 * len(same) / len(paths), unit="%", target=10)


def _grouped(
    folder: Path,
    router: Router,
    pictures: dict[str, PILImage.Image],
    variant: Variant,
    *,
    others: dict[str, PILImage.Image] | None = None,
) -> list[set[tuple[str, str]]]:
    """Return the groups among pictures and their variants, as names of both."""
    folder.mkdir(parents=True)
    for stem, picture in pictures.items():
        picture.save(folder / f"{stem}.one.png", compress_level=1)
        variant((others or pictures)[stem]).convert("RGB").save(folder / f"{stem}.other.jpg", quality=60)
    index = ImageIndex(folder / "index", router=router)
    index.update(folder, purposes=("like",))
    return [{tuple(file.path.name.split(".")[:2]) for file in group.files} for group in index.duplicates()]


def _opened(path: Path) -> PILImage.Image:
    return PILImage.open(BytesIO(path.read_bytes())).convert("RGB")


def _scaled(picture: PILImage.Image, share: float) -> PILImage.Image:
    size = round(picture.width * share), round(picture.height * share)
    return picture.resize(size, PILImage.Resampling.LANCZOS)


def _cropped(picture: PILImage.Image, share: float) -> PILImage.Image:
    x, y = round(picture.width * share / 2), round(picture.height * share / 2)
    return picture.crop((x, y, picture.width - x, picture.height - y))


def _part(picture: PILImage.Image, share: float, at: float) -> PILImage.Image:
    width = round(picture.width * share)
    left = round((picture.width - width) * at)
    return picture.crop((left, 0, left + width, picture.height))


COPIES: dict[str, Variant] = {
    "encoded anew": lambda picture: picture,
    "half the size": lambda picture: _scaled(picture, 0.5),
    "a quarter of the size": lambda picture: _scaled(picture, 0.25),
    "cropped by 5 %": lambda picture: _cropped(picture, 0.05),
    "cropped by 10 %": lambda picture: _cropped(picture, 0.1),
    "cropped by 20 %": lambda picture: _cropped(picture, 0.2),
    "a corner cut off": lambda picture: picture.crop((0, 0, picture.width * 9 // 10, picture.height * 9 // 10)),
    "15 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "turned by 2°": lambda picture: picture.rotate(2, resample=PILImage.Resampling.BICUBIC),
    "in grey": lambda picture: picture.convert("L"),
}
"""What people and programs do to a photo; each is saved as a JPEG of quality 60."""

if __name__ == "__main__":
    show("An index of photos", figures, options={"photos": 64, "vectors": 100_000, "rounds": 20, "copied": 37})
