"""What an index finds, and what it refuses to compare."""

from __future__ import annotations

import os
import sqlite3

import numpy as np
import pytest

from vision_backends import Embedding, InvalidRequestError, SpaceMismatchError
from vision_backends.image_files import FoundFile
from vision_backends.search import BrokenIndexError, ImageIndexError
from vision_backends.search.database import Database
from vision_backends.testing import FakeBackend


def unit(*components: float) -> np.ndarray:
    """Return a vector of length 1."""
    vector = np.array(components, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def fill(index, photos, vectors) -> None:
    """Write vectors for files that are made for them, named by their number."""
    with Database(index.place).writing() as session, session.batch():
        for number in range(len(vectors)):
            path = photos / f"{number:04}.png"
            path.touch()
            found = FoundFile(path=str(path), size_bytes=number, mtime_ns=0, ctime_ns=0)
            session.put_file(found, number.to_bytes(32))
        session.add_vectors(
            [number.to_bytes(32) for number in range(len(vectors))],
            [Embedding(vector=vector, space="fake/vectors@1") for vector in vectors],
        )
        session.pin("fake", {"like": "fake/vectors@1"})


def test_all_are_compared_and_the_best_come_first(index, photos):
    """As a plain loop over all of them says."""
    random = np.random.default_rng(1)
    vectors = [unit(*random.standard_normal(8)) for _ in range(500)]
    fill(index, photos, vectors)
    query = unit(*random.standard_normal(8))
    expected = sorted(range(500), key=lambda number: -float(vectors[number] @ query))
    for n in (1, 7, 200, 1_000):
        hits = index.nearest(Embedding(vector=query, space="fake/vectors@1"), n=n)
        assert [int(hit.path.stem) for hit in hits] == expected[:n]
    assert hits[0].score == pytest.approx(float(vectors[expected[0]] @ query), abs=1e-6)


def test_a_search_in_a_folder_finds_what_is_below_it(index, photos, make_photo):
    """And nothing in a folder whose name only begins like its own."""
    inside = [make_photo("trip/a.png", 1), make_photo("trip/day/b.png", 2)]
    make_photo("trip2/c.png", 3)
    index.update(photos)
    hits = index.search("a dog", folder=photos / "trip")
    assert {hit.path for hit in hits} == set(inside)


def test_a_hit_says_who_made_its_vector(index, photos, make_photo):
    """Every answer does."""
    make_photo("a.png", 1)
    index.update(photos)
    (hit,) = index.search("a dog")
    assert (hit.backend, hit.model, hit.revision) == ("fake", "fake-model", "1")


def test_a_foreign_vector_is_refused(index, photos, make_photo):
    """Also one of the same length."""
    make_photo("a.png", 1)
    index.update(photos)
    with pytest.raises(SpaceMismatchError, match="another/space"):
        index.nearest(Embedding(vector=unit(*range(8)), space="another/space"))


def test_words_are_refused_where_no_vector_can_be_compared_with_them(make_index, photos, make_photo):
    """The photos can be searched by photos."""
    path = make_photo("a.png", 1)
    index = make_index(FakeBackend(tasks=["embed"]))
    index.update(photos)
    with pytest.raises(ImageIndexError, match="words"):
        index.search("a dog")
    assert len(index.search_like(path)) == 1


def test_a_search_without_an_index_names_the_command_that_makes_one(index):
    """And makes nothing itself."""
    with pytest.raises(ImageIndexError, match="vision index"):
        index.search("a dog")
    assert not index.place.exists()


@pytest.mark.parametrize("n", [0, -1, 1.5, "many", None])
def test_a_number_of_photos_that_is_none_is_refused(index, photos, make_photo, n):
    """Before the index is looked at."""
    make_photo("a.png", 1)
    index.update(photos)
    with pytest.raises(InvalidRequestError):
        index.search("a dog", n=n)


def test_a_vector_that_is_not_as_it_was_written_is_not_shown(index, photos, make_photo):
    """The error names the command that makes it anew."""
    path = make_photo("a.png", 1)
    index.update(photos)
    (file,) = index.place.glob("vectors-*.f32")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(BrokenIndexError, match="--rebuild"):
        index.search_like(path)
    index.update(photos, rebuild=True)
    assert len(index.search_like(path)) == 1


@pytest.mark.parametrize("damage", ["short", "other", "gone"])
def test_vectors_that_are_short_foreign_or_gone_are_not_taken_for_those_of_the_index(
    index, make_index, backend, photos, make_photo, damage
):
    """Neither by a search nor by the writer."""
    make_photo("a.png", 1)
    index.update(photos)
    (file,) = index.place.glob("vectors-*.f32")
    if damage == "short":
        os.truncate(file, file.stat().st_size - 1)
    elif damage == "other":
        second = make_index(backend, place=photos.parent / "second")
        second.update(photos)
        (other,) = second.place.glob("vectors-*.f32")
        other.replace(file)
    else:
        file.unlink()
    make_photo("b.png", 2)
    for use in (lambda: index.search("a dog"), lambda: index.update(photos)):
        with pytest.raises(BrokenIndexError, match="--rebuild"):
            use()


def test_an_index_of_a_newer_version_or_another_program_is_refused_and_left_alone(index, photos, make_photo):
    """Both to a reader and to a writer."""
    make_photo("a.png", 1)
    index.update(photos)
    for pragma in ("user_version", "application_id"):
        db = sqlite3.connect(index.place / "index.db")
        db.execute(f"PRAGMA {pragma} = 99")
        db.close()
        before = (index.place / "index.db").read_bytes()
        for use in (lambda: index.search("a dog"), lambda: index.update(photos)):
            with pytest.raises(ImageIndexError):
                use()
        assert (index.place / "index.db").read_bytes() == before


def test_a_broken_database_is_told_as_such(index, photos, make_photo):
    """And how to get out of it; it is never replaced without a word."""
    make_photo("a.png", 1)
    index.update(photos)
    (index.place / "index.db").write_bytes(b"SQLite format 3\x00" + b"\x07" * 5_000)
    for use in (lambda: index.search("a dog"), lambda: index.update(photos)):
        with pytest.raises(ImageIndexError, match="Remove it"):
            use()


def test_an_index_that_cannot_be_made_is_told_as_such(make_index, backend, photos, make_photo):
    """Its place is a file."""
    place = make_photo("a.png", 1)
    with pytest.raises(ImageIndexError, match="--index"):
        make_index(backend, place=place).update(photos)


def test_an_index_can_be_searched_where_nothing_can_be_written(index, photos, make_photo):
    """As on a medium that is read-only."""
    path = make_photo("a.png", 1)
    index.update(photos)
    for file in index.place.iterdir():
        file.chmod(0o400)
    index.place.chmod(0o500)
    try:
        assert len(index.search_like(path)) == 1
    finally:
        index.place.chmod(0o700)


def test_only_the_owner_can_read_an_index(index, photos, make_photo):
    """It holds the names of all photos."""
    make_photo("a.png", 1)
    index.update(photos)
    assert index.place.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in index.place.iterdir())
