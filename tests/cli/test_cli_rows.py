"""``--out``: files of rows that a later run goes on with."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import process_env
from PIL import Image

FORMATS = ("rows.jsonl", "rows.csv", "rows.parquet")


def read_rows(name: str) -> list[dict]:
    """Return the rows of a file of any format."""
    path = Path(name)
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sources(name: str) -> list[str]:
    """Return what the rows of a file are about, in their order."""
    return [row["source"] for row in read_rows(name)]


@pytest.fixture
def photos(make_photo) -> list[str]:
    """Three images."""
    return [make_photo(name) for name in ("a.png", "b.png", "c.png")]


@pytest.mark.parametrize("out", FORMATS)
def test_every_answer_is_a_row_in_every_format(vision, photos, out):
    """Standard output stays empty; a row says what it is about, what was asked, who answered and what it cost."""
    result = vision("describe", *photos, "--prompt", "Who?", "--out", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"vision: 3 rows written to {out}\n"
    first, *others = read_rows(out)
    assert (first["source"], first["command"]) == ("a.png", "describe")
    assert first["text"].startswith("fake says")
    assert len(first["sha256"]) == 64
    options = first["options"]
    assert (options if isinstance(options, dict) else json.loads(options)) == {"prompt": "Who?"}
    assert (first.get("backend") or first["trace"]["backend"]) == "fake"
    assert [row["source"] for row in others] == ["b.png", "c.png"]
    assert not [path.name for path in Path().iterdir() if path.name.endswith((".part", ".new"))]


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("command", ["describe", "detect", "embed"])
def test_a_second_run_asks_only_about_what_has_no_row(vision, photos, make_photo, out, command):
    """The rows that are there stay as they are, to the byte where the format can be appended to."""
    vision(command, *photos[:2], "--out", out)
    before = Path(out).read_bytes()
    result = vision(command, *photos, make_photo("d.png"), "--out", out)
    assert result.exit_code == 0
    assert result.stderr == f"vision: 2 rows written to {out}; 2 of 4 inputs had theirs\n"
    assert sources(out) == ["a.png", "b.png", "c.png", "d.png"]
    assert out.endswith(".parquet") or Path(out).read_bytes().startswith(before)
    whole = Path(out).read_bytes()
    assert vision(command, *photos, "--out", out).exit_code == 0
    assert Path(out).read_bytes() == whole


@pytest.mark.parametrize("out", FORMATS)
def test_a_row_is_done_only_for_the_same_content_and_options(vision, photos, out):
    """What has changed, and what is asked otherwise, is another row."""
    vision("describe", "a.png", "--out", out)
    Image.new("RGB", (9, 9)).save("a.png")
    assert "1 row written" in vision("describe", "a.png", "--out", out).stderr
    assert "1 row written" in vision("describe", "a.png", "--prompt", "Who?", "--out", out).stderr
    assert "0 rows written" in vision("describe", "a.png", "--prompt", "Who?", "--batch", "--out", out).stderr
    rows = read_rows(out)
    assert len({row["sha256"] for row in rows}) == 2
    assert len(rows) == 3


@pytest.mark.parametrize("out", FORMATS)
def test_degraded_rows_are_done_until_they_are_asked_again(vision, photos, use_ladder, out):
    """Then the better answer takes the place of the worse one, and nothing else is touched."""
    use_ladder("vision_backends.testing.fake:FakeBackend")
    vision("describe", "a.png", "--out", out)
    use_ladder("rungs:Dead", "vision_backends.testing.fake:FakeBackend")
    vision("describe", *photos, "--out", out)
    assert "0 rows written" in vision("describe", *photos, "--out", out).stderr
    use_ladder("rungs:Costly", "vision_backends.testing.fake:FakeBackend")
    result = vision("describe", *photos, "--out", out, "--redo", "degraded")
    assert "2 rows written" in result.stderr
    rows = read_rows(out)
    assert [row["source"] for row in rows] == photos
    assert [row.get("backend") or row["trace"]["backend"] for row in rows] == ["fake", "costly", "costly"]


@pytest.mark.parametrize("out", FORMATS)
def test_what_was_not_answered_has_no_row_and_is_asked_again(vision, photos, out):
    """The error is told, and the file holds answers only."""
    result = vision("describe", "a.png", "later.png", "--out", out)
    assert result.exit_code != 0
    assert "later.png" in result.stderr
    assert sources(out) == ["a.png"]
    Path("b.png").rename("later.png")
    assert "1 row written" in vision("describe", "a.png", "later.png", "--out", out).stderr
    assert sources(out) == ["a.png", "later.png"]


@pytest.mark.parametrize("out", FORMATS)
def test_without_any_answer_there_is_no_file(vision, fresh_user, out):
    """An empty one would look like success."""
    assert vision("describe", "missing.png", "--out", out).exit_code == 2
    assert not list(Path().glob("*rows*"))


@pytest.mark.parametrize("out", ["rows.jsonl", "rows.csv"])
def test_a_file_that_was_cut_anywhere_is_mended(vision, photos, use_ladder, out):
    """As a kill or a full disk leaves it: whatever is whole is kept, the rest asked again."""
    use_ladder("rungs:Wordy")  # whose text has a line break
    vision("describe", *photos, "--out", out)
    whole = Path(out).read_bytes()
    rows = [{key: row[key] for key in ("source", "sha256", "text")} for row in read_rows(out)]
    for cut in [*range(1, 40), *range(40, len(whole), 97), len(whole) - 1]:
        Path(out).write_bytes(whole[:cut])
        assert vision("describe", *photos, "--out", out).exit_code == 0
        mended = [{key: row[key] for key in ("source", "sha256", "text")} for row in read_rows(out)]
        assert mended == rows, cut


def test_a_parquet_file_is_finished_from_what_a_killed_run_has_left(vision, photos):
    """Its rows stand beside it until the command ends."""
    vision("describe", "a.png", "--out", "rows.parquet")
    vision("describe", "b.png", "--out", "other.parquet")
    row = read_rows("other.parquet")[0]
    Path("rows.parquet.part").write_text(json.dumps(row) + "\n" + json.dumps(row)[:40], encoding="utf-8")
    assert "1 row written" in vision("describe", *photos, "--out", "rows.parquet").stderr
    assert sources("rows.parquet") == photos
    assert not Path("rows.parquet.part").exists()


def test_rows_are_there_as_soon_as_there_are_answers(make_photo, use_ladder, fresh_user):
    """A run that is killed in the middle has written everything that was answered."""
    use_ladder("rungs:StuckAtLast")
    names = [make_photo(f"{number}.png", size=(20 + number, 8)) for number in range(3)]
    asking = ["describe", *names, make_photo("last.png", size=(9, 9)), "--out", "rows.jsonl"]
    command = [sys.executable, "-m", "vision_backends", *asking]
    with subprocess.Popen(command, env=process_env(), stderr=subprocess.PIPE) as process:
        while not (Path("asked").exists() and Path("rows.jsonl").read_bytes().count(b"\n") == len(names)):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert sources("rows.jsonl") == names


def test_two_commands_do_not_write_one_file(vision, photos):
    """The second says so at once; what the first has written is untouched."""
    for out in FORMATS:
        held = Path(f"{out}.part" if out.endswith("parquet") else out)
        with held.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            result = vision("describe", "a.png", "--out", out)
            assert result.exit_code == 2
            assert f"{out} is being written by another vision command. Wait until it has ended" in result.stderr
        assert vision("describe", "a.png", "--out", out).exit_code == 0


@pytest.mark.parametrize("out", ["rows.jsonl", "rows.csv"])
def test_a_full_disk_is_called_that_and_leaves_whole_rows(vision_process, photos, out, monkeypatch):
    """Nothing more is asked; the next run goes on."""
    limit = 3500 if out.endswith("jsonl") else 800
    command = [sys.executable, "-m", "vision_backends", "describe", *[f"{n}.png" for n in range(40)], "--out", out]
    for number in range(40):
        Image.new("RGB", (number + 1, 9)).save(f"{number}.png")
    done = subprocess.run(
        command,
        env=process_env(),
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2
    assert f"{out} cannot be written: File too large." in done.stderr.decode()
    count = len(read_rows(out))
    assert 0 < count < 40
    assert Path(out).read_bytes().endswith(b"\n")
    assert vision_process("describe", *[f"{n}.png" for n in range(40)], "--out", out).returncode == 0
    assert len(read_rows(out)) == 40


@pytest.mark.parametrize(
    ("content", "out"),
    [
        ("my own notes", "notes.jsonl"),
        ('{"source": "a.png", "text": "from --json"}\n', "printed.jsonl"),
        ("1\n", "one.jsonl"),
        ('{"source": [], "sha256": "", "options": {}, "command": "describe", "degraded": false}\n', "odd.jsonl"),
        ("name,price\nx,1\n", "prices.csv"),
        ("name", "begun.csv"),
        ("no parquet", "rows.parquet"),
    ],
)
def test_a_file_of_something_else_is_left_alone(vision, photos, content, out):
    """It is refused, and not a byte of it is changed."""
    Path(out).write_text(content, encoding="utf-8")
    result = vision("describe", "a.png", "--out", out)
    assert result.exit_code == 2
    assert "Name another file." in result.stderr
    assert Path(out).read_text(encoding="utf-8") == content


def test_a_file_holds_the_answers_of_one_command(vision, photos):
    """Other rows would have other columns."""
    for out in FORMATS:
        vision("describe", "a.png", "--out", out)
        result = vision("detect", "a.png", "--out", out)
        assert result.exit_code == 2
        assert "Name another file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--out", "rows.txt"], "--out rows.txt says no format. End it in .jsonl, .csv or .parquet."),
        (["--out", "rows.npy"], "says no format"),
        (["--out", "rows.csv", "--json"], "two places"),
        (["--out", "nowhere/rows.csv"], "nowhere/rows.csv cannot be written: No such file or directory"),
        (["--out", "folder.csv"], "folder.csv cannot be written: Is a directory"),
        (["--out", "pipe.csv"], "pipe.csv is not a regular file"),
        (["--out", "photo.csv"], "photo.csv is an input"),
        (["--redo", "degraded"], "--redo needs --out"),
        (["--stream", "--out", "rows.csv"], "--out is for whole answers"),
    ],
)
def test_a_place_where_no_rows_can_be_is_refused(vision, make_photo, arguments, why):
    """Before anything is asked."""
    Path("folder.csv").mkdir()
    os.mkfifo("pipe.csv")
    result = vision("describe", make_photo("photo.csv"), *arguments)
    assert result.exit_code == 2
    assert why in result.stderr


def test_the_vectors_of_a_file_are_of_one_space(vision, photos, use_ladder):
    """That of the first one; another run fails rather than mixing, and redoing degraded ones may move all of them."""
    use_ladder("rungs:Dead", "rungs:Other")
    result = vision("embed", "a.png", "b.png", "--out", "rows.jsonl")
    assert result.stderr.startswith("vision: 2 of 2: other answered, because dead: The line is dead")
    assert [row["trace"]["degraded"] for row in read_rows("rows.jsonl")] == [True, True]
    use_ladder("vision_backends.testing.fake:FakeBackend")
    result = vision("embed", *photos, "--out", "rows.jsonl")
    assert result.exit_code == 4
    assert "other/vectors@1" in result.stderr
    assert vision("embed", "c.png", "--space", "fake/vectors@1", "--out", "rows.jsonl").exit_code == 2
    result = vision("embed", *photos, "--out", "rows.jsonl", "--redo", "degraded")
    assert result.exit_code == 0
    assert [(row["source"], row["space"]) for row in read_rows("rows.jsonl")] == [
        (name, "fake/vectors@1") for name in photos
    ]


def test_vectors_of_a_degraded_file_are_degraded_although_its_space_is_wanted(vision, photos, use_ladder):
    """The better rung was passed over for the rows that are there, not by a wish of the user."""
    use_ladder("rungs:Dead", "rungs:Other")
    vision("embed", "a.png", "--out", "rows.jsonl")
    use_ladder("vision_backends.testing.fake:FakeBackend", "rungs:Other")
    result = vision("embed", *photos, "--out", "rows.jsonl")
    assert "2 of 2: other answered, because the file holds degraded vectors of other/vectors@1" in result.stderr
    assert vision("embed", *photos, "--out", "rows.jsonl", "--redo", "degraded").exit_code == 0
    assert {row["space"] for row in read_rows("rows.jsonl")} == {"fake/vectors@1"}
    vision("embed", *photos, "--space", "other/vectors@1", "--out", "named.jsonl")
    assert not any(row["trace"]["degraded"] for row in read_rows("named.jsonl"))


def test_texts_have_rows_too(vision):
    """A text is its own name and content."""
    vision("embed", "--text", "a cat", "--text", "a dog", "--out", "rows.csv")
    assert sources("rows.csv") == ["a cat", "a dog"]
    assert len(json.loads(read_rows("rows.csv")[0]["vector"])) == 8
    result = vision("embed", "--text", "a cat", "--text", "a bird", "--out", "rows.csv")
    assert "1 row written to rows.csv; 1 of 2 inputs had theirs" in result.stderr


def test_the_boxes_of_an_image_are_one_row(vision, make_photo):
    """As JSON in CSV, nested in Parquet; none are a row as well."""
    vision("detect", make_photo(), "--out", "rows.csv")
    vision("detect", "photo.png", "--out", "rows.parquet")
    printed = json.loads(vision("detect", "photo.png", "--json").stdout)["items"]
    assert json.loads(read_rows("rows.csv")[0]["items"]) == printed
    assert read_rows("rows.parquet")[0]["items"] == printed


def test_a_file_that_changes_while_it_is_asked_about_is_asked_again(vision, make_photo, use_ladder):
    """The row has the hash of what was there before."""
    use_ladder("rungs:Overwriting")
    vision("describe", make_photo(), "--out", "rows.jsonl")
    use_ladder("vision_backends.testing.fake:FakeBackend")
    assert "1 row written" in vision("describe", "photo.png", "--out", "rows.jsonl").stderr


def test_names_that_are_no_text_are_rows_in_every_format(vision, make_photo):
    """Their bytes stand escaped, and are known again."""
    name = make_photo(os.fsdecode(b"caf\xe9.png"))
    for out in FORMATS:
        assert vision("describe", name, "--out", out).exit_code == 0
        assert "0 rows written" in vision("describe", name, "--out", out).stderr


def test_a_link_to_a_file_of_rows_stays_a_link(vision, photos, use_ladder):
    """Also where rows are replaced, and the file keeps its permissions."""
    use_ladder("rungs:Dead", "vision_backends.testing.fake:FakeBackend")
    Path("link.jsonl").symlink_to("rows.jsonl")
    vision("describe", "a.png", "--out", "link.jsonl")
    Path("rows.jsonl").chmod(0o640)
    vision("describe", "a.png", "--out", "link.jsonl", "--redo", "degraded")
    assert Path("link.jsonl").is_symlink()
    assert Path("rows.jsonl").stat().st_mode & 0o777 == 0o640
    assert sources("rows.jsonl") == ["a.png"]
