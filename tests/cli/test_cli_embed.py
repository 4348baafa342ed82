"""``vision embed``: vectors on standard output and in files."""

from __future__ import annotations

import json

import numpy as np
import pytest

SPACE = "fake/vectors@1"


def test_a_vector_is_printed_with_every_digit(vision, make_photo):
    """What is printed is the float32 that the library gives, to the last bit."""
    printed = vision("embed", make_photo()).stdout.split()
    exact = json.loads(vision("embed", "photo.png", "--json").stdout)["vector"]
    assert np.array(printed, dtype=np.float32).tolist() == exact


def test_many_vectors_have_the_names_of_their_images(vision, make_photo):
    """One line each."""
    lines = vision("embed", make_photo("a.png"), make_photo("b.png")).stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["a.png", "b.png"]


def test_texts_are_embedded_instead_of_images(vision):
    """Each text is its own source; they share the space of the images."""
    lines = vision("embed", "--text", "a cat", "--text", "a dog", "--json").stdout.splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["source"] for record in records] == ["a cat", "a dog"]
    assert {record["space"] for record in records} == {SPACE}


def test_images_or_texts_must_be_given_but_not_both(vision, make_photo):
    """Neither is a question; both are two."""
    neither, both = vision("embed"), vision("embed", make_photo(), "--text", "a cat")
    assert (neither.exit_code, both.exit_code) == (2, 2)
    assert "nothing to embed" in neither.stderr
    assert "both" in both.stderr


def test_only_a_text_can_be_truncated(vision, make_photo):
    """An image is always seen whole."""
    assert vision("embed", "--text", "a cat", "--truncate").exit_code == 0
    result = vision("embed", make_photo(), "--truncate")
    assert result.exit_code == 2
    assert "--truncate is for texts" in result.stderr


def test_a_space_that_nobody_has_is_unavailable(vision, make_photo):
    """Exit code 3: the request has a meaning, but nothing can answer it."""
    result = vision("embed", make_photo(), "--space", "other/space@1")
    assert result.exit_code == 3
    assert "'other/space@1'" in result.stderr
    assert vision("embed", "photo.png", "--space", SPACE).exit_code == 0


def test_an_npy_file_has_a_row_per_image_and_a_file_that_says_which(vision, make_photo, fresh_user):
    """Standard output stays empty; the file beside it names space, model and sources."""
    result = vision("embed", make_photo("a.png"), make_photo("b.png"), "--out", "v.npy")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "vision: 2 vectors written to v.npy\n"
    vectors = np.load(fresh_user / "v.npy")
    assert (vectors.dtype, vectors.shape) == (np.float32, (2, 8))
    about = json.loads((fresh_user / "v.npy.json").read_text(encoding="utf-8"))
    assert about == {
        "space": SPACE,
        "backend": "fake",
        "model": "fake-model",
        "revision": "1",
        "shape": [2, 8],
        "sources": ["a.png", "b.png"],
        "failed": [],
    }


def test_an_npy_file_has_no_row_for_what_failed_but_says_why(vision, make_photo, fresh_user):
    """Rows and sources stay aligned; the exit code tells that something is missing."""
    result = vision("embed", "missing.png", make_photo("a.png"), "--out", "v.NPY")
    assert result.exit_code == 4
    assert "vision: 1 vector written to v.NPY\n" in result.stderr
    assert np.load(fresh_user / "v.NPY").shape == (1, 8)
    about = json.loads((fresh_user / "v.NPY.json").read_text(encoding="utf-8"))
    assert about["sources"] == ["a.png"]
    assert about["failed"][0]["source"] == "missing.png"
    assert about["failed"][0]["error"]["kind"] == "invalid_image"


def test_a_jsonl_file_has_the_lines_of_json(vision, make_photo, fresh_user):
    """And what says which question a row answers."""
    vision("embed", make_photo("a.png"), "--out", "v.jsonl")
    (printed,) = map(json.loads, vision("embed", "a.png", "--json").stdout.splitlines())
    (written,) = map(json.loads, (fresh_user / "v.jsonl").read_text(encoding="utf-8").splitlines())
    assert written.keys() - printed.keys() == {"sha256", "command", "options"}
    assert {key: written[key] for key in printed if key != "trace"} == {
        key: printed[key] for key in printed if key != "trace"
    }


def test_without_any_answer_no_file_is_written(vision, fresh_user):
    """An empty file would look like success."""
    assert vision("embed", "missing.png", "--out", "v.npy").exit_code == 2
    assert not (fresh_user / "v.npy").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--out", "v.bin"], "says no format. End it in .npy, .jsonl, .csv or .parquet."),
        (["--out", "v.npy", "--redo", "degraded"], "written as a whole"),
        (["--out", "v.npy", "--json"], "two places"),
        (["--out", "nowhere/v.npy"], "cannot be written"),
        (["--out", "photo.npy"], "is an input"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused(vision, make_photo, arguments, why):
    """Exit code 2, in words that name the option or the path."""
    result = vision("embed", make_photo("photo.npy"), *arguments)
    assert result.exit_code == 2
    assert why in result.stderr


def test_a_long_list_is_one_space_even_when_a_better_rung_fails_at_its_end(vision, make_photo, use_ladder):
    """Everything is asked of the next rung again rather than two spaces mixed."""
    use_ladder("rungs:Fussy", "rungs:Other")
    names = [make_photo(f"{number}.png", size=(10, 40)) for number in range(70)]
    result = vision("embed", *names, make_photo("wide.png", size=(40, 10)), "--json")
    assert result.exit_code == 0
    assert {json.loads(line)["space"] for line in result.stdout.splitlines()} == {"other/vectors@1"}


def test_at_a_terminal_only_the_first_components_are_shown(vision_at_terminal, make_photo):
    """A thousand numbers would tell a person nothing; the space does."""
    _, screen = vision_at_terminal("embed", make_photo())
    assert f"… (8 components of {SPACE})" in screen
    assert len(screen.splitlines()) == 1
