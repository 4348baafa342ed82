"""``vision index``, ``search`` and ``dedupe``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import process_env

from vision_backends.search.database import Database


@pytest.fixture
def indexed(vision, make_photo):
    """Two photos in a folder, one of them in a folder below it, and their index."""
    names = [make_photo("photos/a.png"), make_photo("photos/below/bb.png")]
    result = vision("index", "photos")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 photos: 2 new\n", "")
    return names


def test_an_index_is_among_the_users_own_data(vision, indexed, fresh_user):
    """Unless a folder is named; the folder of the photos is only read."""
    assert (fresh_user / ".local/share/vision-backends/index/index.db").is_file()
    assert sorted(path.name for path in (fresh_user / "photos").iterdir()) == ["a.png", "below"]
    vision("index", "photos", "--index", "elsewhere")
    assert (fresh_user / "elsewhere/index.db").is_file()


def test_words_find_photos_in_all_folders_of_the_index(vision, indexed):
    """Best first, with their scores; a path is as short as it can be."""
    result = vision("search", "two", "dogs", "on", "a", "beach")
    header, *rows = result.stdout.splitlines()
    assert (result.exit_code, header.split()) == (0, ["score", "photo"])
    assert sorted(row.split()[1] for row in rows) == sorted(indexed)
    scores = [float(row.split()[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_a_photo_finds_itself_first(vision, indexed):
    """As many are shown as were asked for."""
    result = vision("search", "--like", indexed[1], "-n", "1")
    assert result.stdout.splitlines()[1:] == [f"1.000  {indexed[1]}"]


def test_a_search_can_be_held_to_a_folder(vision, indexed):
    """And to those below it."""
    result = vision("search", "a dog", "--in", "photos/below")
    assert [row.split()[1] for row in result.stdout.splitlines()[1:]] == [indexed[1]]


def test_json_has_whole_paths_and_who_made_the_vector(vision, indexed, fresh_user):
    """One object per line."""
    rows = [json.loads(line) for line in vision("search", "a dog", "--json").stdout.splitlines()]
    assert {row["path"] for row in rows} == {str(fresh_user.resolve() / name) for name in indexed}
    assert {(row["space"], row["backend"], row["model"]) for row in rows} == {("fake/vectors@1", "fake", "fake-model")}


def test_paths_for_xargs_end_in_null_characters(vision_process, indexed, fresh_user):
    """Whatever bytes they are made of."""
    odd = os.fsencode(fresh_user) + b"/photos/\xff\n.png"
    Path(os.fsdecode(odd)).write_bytes(Path("photos/a.png").read_bytes() + b" ")
    env = {"PATH": os.environ["PATH"]}
    assert vision_process("index", "photos", env=env).returncode == 0
    result = vision_process("search", "a dog", "-0", env=env)
    assert result.stdout.endswith(b"\0")
    found = result.stdout.removesuffix(b"\0").split(b"\0")
    assert sorted(found) == sorted([*map(os.fsencode, indexed), b"photos/\xff\n.png"])


def test_a_page_shows_what_was_found(vision, indexed, make_photo):
    """It is complete in itself, and a name in it is no markup."""
    make_photo("photos/<img src=x onerror=alert(1)>.png")
    vision("index", "photos")
    result = vision("search", "<b>dogs</b>", "--out", "sheet.html")
    assert "the photos are shown in sheet.html" in result.stderr
    page = Path("sheet.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == 3
    assert "&lt;b&gt;dogs&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "<img src=x" not in page
    assert not re.search(r'(src|href)="(?!data:image/|file:///)', page)


def test_a_page_without_metadata(vision, fresh_user):
    """Nothing of the file but its pixels is in it."""
    from PIL import Image

    from vision_backends.search import Hit
    from vision_backends.search.contact_sheet import contact_sheet

    path = fresh_user / "photo.jpg"
    exif = Image.Exif()
    exif[0x010E] = "SECRET PLACE"
    Image.new("RGB", (500, 400), (200, 10, 10)).save(path, exif=exif, comment=b"SECRET WORDS")
    page = contact_sheet([Hit(path=path, score=0.5)], title="red")
    import base64

    data = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert b"SECRET" in path.read_bytes()
    assert b"SECRET" not in data
    assert "0.500" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search"], "nothing to search for"),
        (["search", "a dog", "--like", "photos/a.png"], "both"),
        (["search", "a dog", "-0", "--json"], "-0 and --json"),
        (["search", "a dog", "--out", "sheet.png"], "not an HTML page"),
        (["search", "a dog", "-n", "0"], "n=0"),
        (["dedupe", "photos", "--similarity", "7"], "not a correlation"),
        (["index", "nowhere"], "nowhere is not there"),
        (["index", "photos", "--backend", "nobody"], "nobody"),
    ],
)
def test_what_has_no_meaning_is_refused(vision, indexed, arguments, words):
    """With the value, and what to do."""
    result = vision(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_search_without_an_index_names_the_command_that_makes_one(vision):
    """And so does an update of nothing."""
    result = vision("search", "a dog")
    assert result.exit_code == 2
    assert "vision index" in result.stderr
    assert "Name a folder" in vision("index").stderr


def test_without_a_folder_those_that_were_named_earlier_are_looked_through(vision, indexed, make_photo):
    """So it can be run every night."""
    make_photo("photos/ccc.png")
    assert vision("index").stdout == "3 photos: 1 new, 2 known\n"


def test_what_could_not_be_used_is_told_once_and_listed_when_asked(vision, indexed):
    """The exit code is that of a bad input where something was tried in vain."""
    Path("photos/bad.jpg").write_bytes(b"no image")
    result = vision("index")
    assert (result.exit_code, result.stdout) == (2, "3 photos: 2 known, 1 not usable\n")
    assert "photos/bad.jpg" in result.stderr
    result = vision("index")
    assert result.exit_code == 0
    assert "1 photo could not be used earlier" in result.stderr
    shown = vision("index", "--show").stdout
    assert "3 photos" in shown
    assert "photos/bad.jpg" in shown
    assert json.loads(vision("index", "--show", "--json").stdout)["unreadable_files"][0]["error"]["kind"]


def test_what_is_gone_is_told_and_forgotten_when_that_is_wanted(vision, indexed):
    """A search leaves it out meanwhile."""
    Path(indexed[0]).unlink()
    assert "--prune" in vision("index").stderr
    assert vision("search", "a dog").stdout.split()[2:] == [vision("search", "a dog").stdout.split()[2], indexed[1]]
    assert vision("index", "--prune").stdout == "1 photo: 1 known, 1 forgotten\n"


def test_duplicates_are_listed_in_groups_and_nothing_is_removed(vision, indexed):
    """With what each file takes; as JSON one group per line."""
    copy = Path("photos/below/copy.png")
    copy.write_bytes(Path(indexed[0]).read_bytes())
    result = vision("dedupe", "photos", "--exact")
    assert result.exit_code == 0
    assert "the same content" in result.stdout
    assert indexed[0] in result.stdout
    assert str(copy) in result.stdout
    assert "1 group; all but the first of each: 1 file" in result.stdout
    (group,) = map(json.loads, vision("dedupe", "photos", "--exact", "--json").stdout.splitlines())
    assert (group["is_exact"], len(group["files"])) == (True, 2)
    assert copy.is_file()
    copy.unlink()
    assert vision("dedupe", "--exact").stdout == "No photo exists more than once.\n"


def test_the_second_of_two_writers_is_told(vision, indexed, fresh_user):
    """A search goes on meanwhile."""
    with Database(fresh_user / ".local/share/vision-backends/index").writing():
        result = vision("index", "photos")
        assert result.exit_code == 2
        assert "Another process is writing" in result.stderr
        assert vision("search", "a dog").exit_code == 0


def test_answers_are_not_kept_twice(vision, indexed, fresh_user, monkeypatch):
    """The index has the vectors; the cache is for what is asked again."""
    monkeypatch.setenv("VISION_STATE", str(fresh_user / "state.sqlite"))
    vision("index", "photos", "--rebuild")
    assert vision("cache", "info").stdout.startswith("0 answers")


def test_an_interrupted_run_says_that_it_goes_on(fresh_user, make_photo):
    """With the exit code of every interrupted command."""
    for number in range(3):
        make_photo(f"photos/{'x' * number}a.png")
    (fresh_user / "slow.py").write_text(
        "from vision_backends.testing import FakeBackend\n"
        "class Slow(FakeBackend):\n"
        "    def __init__(self):\n"
        "        super().__init__('slow')\n"
        "    def embed(self, images, request, *, timeout_s):\n"
        "        print('asked', flush=True)\n"
        "        __import__('time').sleep(30)\n"
    )
    (fresh_user / "vision.toml").write_text('ladder = ["slow:Slow"]\nstate = "memory"\n')
    env = process_env({"PYTHONPATH": os.pathsep.join([str(fresh_user), *filter(None, [os.environ.get("PYTHONPATH")])])})
    command = [sys.executable, "-m", "vision_backends", "index", "photos"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as run:
        assert run.stdout.readline() == "asked\n"
        run.send_signal(signal.SIGINT)
        _, told = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "interrupted; the same command goes on where it was" in told
