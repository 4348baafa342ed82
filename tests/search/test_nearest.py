"""A search in codes finds what a search in all vectors finds, in the same order."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vision_backends import Router
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.search.nearest import best_first
from vision_backends.search.vectors import VectorFile, coded

PHOTOS = sorted((Path(__file__).parents[2] / "benchmarks" / "photos").glob("*.jpg"))


def unit(vectors):
    """Return vectors of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def expected(vectors, query, among=None):
    """Return all rows by their exact scores, equal ones by their place."""
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    rows = range(len(vectors)) if among is None else among
    return sorted(rows, key=lambda row: (-scores[row], row))


def random(count, dimension, seed=0):
    """Return vectors of no particular direction, which are all about as far from each other."""
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


def clustered(count, dimension):
    """Return vectors of a few scenes, in bursts that differ by less than codes can tell."""
    rng = np.random.default_rng(1)
    scenes = np.maximum(rng.standard_normal((7, dimension)), 0)
    return unit(scenes[rng.integers(0, 7, count)] + 1e-4 * rng.standard_normal((count, dimension)))


def alike(count, dimension):
    """Return vectors of one scene, of which codes tell none from the others."""
    rng = np.random.default_rng(2)
    return unit(rng.standard_normal(dimension) + 1e-3 * rng.standard_normal((count, dimension)))


def equal(count, dimension):
    """Return few different vectors, each many times."""
    return random(5, dimension)[np.arange(count) % 5]


@pytest.mark.parametrize("with_codes", [True, False])
@pytest.mark.parametrize("make", [random, clustered, alike, equal])
@pytest.mark.parametrize(("count", "dimension"), [(1, 8), (300, 128), (20_000, 64), (3_000, 1280)])
def test_the_order_is_that_of_the_exact_scores(make, count, dimension, with_codes):
    """Random vectors, near ties and equal ones; with codes, and in an index that has none."""
    vectors = make(count, dimension)
    codes = coded(vectors) if with_codes else None
    for query in (vectors[count // 2], random(1, dimension, seed=9)[0]):
        found = list(itertools.islice(best_first(vectors, codes, query, n=5), 200))
        wanted = expected(vectors, query)[:200]
        exact = vectors.astype(np.float64) @ query.astype(np.float64)
        assert [score for _, score in found] == pytest.approx(exact[wanted].tolist(), abs=1e-12)
        assert sorted(row for row, _ in found) == sorted({row for row, _ in found})
        if make is not equal:  # of which the sum in another order may differ in its last bit
            assert [row for row, _ in found] == wanted


def test_equal_vectors_come_in_the_order_of_their_rows():
    """As the files of one picture did when they were indexed."""
    vectors = equal(1_000, 96)
    rows = [row for row, _ in itertools.islice(best_first(vectors, coded(vectors), vectors[3], n=5), 200)]
    assert rows == list(range(3, 1_000, 5))


def test_all_rows_come_in_the_end():
    """Whoever goes on taking gets each once."""
    vectors = random(500, 32)
    rows = [row for row, _ in best_first(vectors, coded(vectors), vectors[0], n=3)]
    assert rows == expected(vectors, vectors[0])


def test_only_the_rows_that_count_are_found():
    """A folder may have the farthest of all."""
    vectors = random(2_000, 64)
    among = expected(vectors, vectors[0])[-40:]
    rows = [row for row, _ in best_first(vectors, coded(vectors), vectors[0], n=5, among=among)]
    assert rows == expected(vectors, vectors[0], among)
    assert list(best_first(vectors, coded(vectors), vectors[0], n=5, among=[])) == []


def test_photos_are_found_as_in_a_search_of_all_vectors():
    """In both spaces of the embedded rung, which are anything but random."""
    with Router([EmbeddedBackend(threads=1)], caching=False) as router:
        for space in router.explain("embed").verdicts[0].spaces:
            vectors = np.stack([found.vector for found in router.embed_many(PHOTOS, space=space)])
            for query in vectors:
                rows = [row for row, _ in best_first(vectors, coded(vectors), query, n=5)]
                assert rows == expected(vectors, query)


@given(
    arrays(np.float32, (4, 24), elements=st.integers(0, 1000)).map(lambda values: values - 500.5),
    arrays(np.float32, (24,), elements=st.floats(-1, 1, width=32)),
)
def test_a_code_is_as_far_from_its_vector_as_it_says(vectors, query):
    """So a score by codes is never farther from the exact one than that."""
    vectors = unit(vectors)
    codes = coded(vectors)
    near = codes["codes"].astype(np.float64) * codes["scale"][:, None]
    distances = np.linalg.norm(vectors.astype(np.float64) - near, axis=1)
    assert (distances <= codes["distance"]).all()
    assert (codes["distance"] <= 1.01 * distances + 1e-6).all()
    errors = np.abs((vectors.astype(np.float64) - near) @ query.astype(np.float64))
    assert (errors <= codes["distance"] * np.linalg.norm(query.astype(np.float64)) + 1e-12).all()


def test_codes_that_are_missing_or_foreign_are_made_again(tmp_path):
    """An index of an earlier release has none; what stands there of another index is not taken for its own."""
    vectors = random(10, 16)
    file = VectorFile.create(tmp_path, dimension=16)
    file.append(list(vectors[:4]), rows=0)
    whole = file.path_of_codes.read_bytes()
    other = VectorFile.create(tmp_path, dimension=16)
    other.append(list(random(4, 16, seed=3)), rows=0)
    for left in (None, whole[:-1], other.path_of_codes.read_bytes(), b""):
        file.path_of_codes.unlink()
        if left is not None:
            file.path_of_codes.write_bytes(left)
        assert file.codes(4) is None
        file.complete_codes(4)
        assert file.path_of_codes.read_bytes() == whole
    file.path_of_codes.unlink()
    file.append(list(vectors[4:]), rows=4)
    assert np.array_equal(file.codes(10), coded(vectors))


def test_an_index_of_an_earlier_release_is_searched_and_gets_its_codes(make_index, backend, photos, make_photo):
    """By the next run over its folders, which embeds nothing."""
    paths = [make_photo(f"{number}.png", number) for number in range(6)]
    make_index(backend).update(photos)

    def hits():
        return [(hit.path, hit.score) for hit in make_index(backend).search_like(paths[2])]

    before = hits()
    (codes,) = make_index(backend).place.glob("*.i8")
    codes.unlink()
    assert hits() == before
    assert not codes.exists()
    assert make_index(backend).update(photos).embedded == 0
    assert codes.exists()
    assert hits() == before
