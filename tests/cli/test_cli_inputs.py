"""What the arguments of a command line stand for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vision_backends.cli.inputs import find_images


def find(*arguments: str) -> list[str]:
    """Return the names of what arguments stand for."""
    return [each.name for each in find_images(arguments, max_bytes=1000)]


@pytest.fixture
def album(fresh_user) -> Path:
    """A folder with images, other files and a folder."""
    folder = fresh_user / "album"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "deeper/c.png", "[1].webp"):
        (folder / name).touch()
    return folder


def test_a_folder_stands_for_its_images_in_order(album):
    """Neither hidden files nor folders within."""
    assert find("album") == ["album/[1].webp", "album/a.png", "album/b.JPG"]
    assert find("album/") == ["album/[1].webp", "album/a.png", "album/b.JPG"]


def test_each_file_is_found_once(album):
    """However it is named: by itself, by its folder, by a pattern, by a link."""
    (album / "link.png").symlink_to("a.png")
    once = ["album/a.png", "album/[1].webp", "album/b.JPG", "album/deeper/c.png", "album/notes.txt"]
    assert find("album/a.png", "album", "album/link.png", "album/**/*", "album/deeper", "album/../album/a.png") == once


def test_a_folder_stands_for_all_below_it_when_that_is_wanted(album):
    """In order, without hidden ones; links in a circle end."""
    (album / "deeper" / "loop").symlink_to(album)
    (album / ".git").mkdir()
    (album / ".git" / "d.png").touch()
    found = [each.name for each in find_images(["album"], max_bytes=1000, recursive=True)]
    assert found == ["album/[1].webp", "album/a.png", "album/b.JPG", "album/deeper/c.png"]


def test_folders_that_are_left_out_are_told(vision, make_photo):
    """In one sentence, with the option that takes them; nothing is told where there are none."""
    for name in ("photos/a.png", "photos/one/b.png", "photos/two/c.png", "photos/.hidden/d.png"):
        make_photo(name)
    result = vision("describe", "photos")
    assert result.stdout.count("fake says") == 1
    assert "photos: 2 folders in it were left out; -r takes the images of all folders below" in result.stderr
    result = vision("describe", "-r", "photos")
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == [
        "photos/a.png",
        "photos/one/b.png",
        "photos/two/c.png",
    ]
    assert result.stderr == ""
    for command in ("detect", "embed"):
        assert len(vision(command, "--recursive", "photos", "--json").stdout.splitlines()) == 3
    assert vision("describe", "photos/one").stderr == ""


def test_a_folder_of_nothing_but_folders_names_the_option(vision, make_photo):
    """It is an error, as that of any folder without images."""
    make_photo("photos/one/b.png")
    result = vision("describe", "photos")
    assert result.exit_code == 2
    assert "photos is a folder without images. Its folders were left out; -r takes them too." in result.stderr


def test_a_folder_without_images_is_an_error_of_its_own(album):
    """The others are still found."""
    (album / "empty").mkdir()
    empty, other = find_images(["album/empty", "album/a.png"], max_bytes=1000)
    assert empty.error is not None
    assert empty.error.message == "album/empty is a folder without images."
    assert (other.error, other.source) == (None, Path("album/a.png"))


def test_a_link_that_leads_nowhere_is_left_to_the_router(vision, fresh_user):
    """It says that the link cannot be read."""
    (fresh_user / "loop").symlink_to("loop")
    result = vision("describe", "loop")
    assert result.exit_code == 2
    assert "loop cannot be read" in result.stderr


def test_a_pattern_that_the_shell_left_alone_is_expanded(album):
    """In order; ** goes deeper; a folder that matches stands for its images."""
    assert find("album/*.png") == ["album/a.png"]
    assert find("album/**/*.png") == ["album/a.png", "album/deeper/c.png"]
    assert find("alb*") == ["album/[1].webp", "album/a.png", "album/b.JPG"]


def test_a_pattern_without_matches_is_an_error_of_its_own(album):
    """It is not mistaken for a file name."""
    (found,) = find_images(["album/*.gif"], max_bytes=1000)
    assert found.error is not None
    assert found.error.message == "album/*.gif matches no file."


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(album):
    """What is there is never expanded."""
    (found,) = find_images(["album/[1].webp"], max_bytes=1000)
    assert found.source == Path("album/[1].webp")


def test_a_file_of_any_suffix_can_be_named_itself(album):
    """Whether it is an image is the router's to say."""
    assert find("album/notes.txt") == ["album/notes.txt"]


def test_what_is_not_there_is_left_to_the_router(album):
    """A missing file and a data: URL look alike here; the URL is cut in messages."""
    missing, url = find_images(["missing.png", "data:image/png;base64," + "A" * 100], max_bytes=1000)
    assert (missing.name, missing.source, missing.error) == ("missing.png", "missing.png", None)
    assert len(url.name) == 41
    assert str(url.source).endswith("AAA")


def test_standard_input_is_an_image(vision, make_photo, fresh_user):
    """Its bytes are read as they are."""
    data = (fresh_user / make_photo()).read_bytes()
    result = vision("describe", "-", stdin=data)
    assert (result.exit_code, result.stdout) == (0, "fake says: 64×48 px\n")


def test_standard_input_is_read_once(vision, make_photo, fresh_user):
    """A second - would be empty, hence it is an error of its own."""
    data = (fresh_user / make_photo()).read_bytes()
    result = vision("describe", "-", "photo.png", "-", stdin=data)
    assert result.exit_code == 4
    assert result.stdout == "-: fake says: 64×48 px\nphoto.png: fake says: 64×48 px\n"
    assert "can be read only once" in result.stderr


def test_standard_input_is_read_up_to_the_limit_only(vision, use_ladder):
    """An endless stream ends in the same error as a file that is too large."""
    use_ladder("vision_backends.testing.fake:FakeBackend", more="images.max_bytes = 1000\n")
    result = vision("describe", "-", stdin=b"\x89PNG" + bytes(5000))
    assert result.exit_code == 2
    assert "more than" in result.stderr


def test_empty_standard_input_is_a_bad_image(vision):
    """Exit code 2, not a bug."""
    assert vision("describe", "-", stdin=b"").exit_code == 2


def test_a_web_address_is_no_pattern_and_refused_by_default(vision):
    """Though it has a question mark; the remedy names the setting."""
    result = vision("describe", "https://example.org/a.png?size=1")
    assert result.exit_code == 2
    assert "allow_urls = true" in result.stderr


@pytest.mark.parametrize(("end", "options"), [(b"\n", ()), (b"\r\n", ()), (b"\0", ("-0",)), (b"\0", ("--null",))])
def test_paths_are_read_from_standard_input(vision, make_photo, end, options):
    """Beside those of the command line; patterns have no meaning there, and each file is asked about once."""
    names = [make_photo(name) for name in ("a.png", "two words.png", "[1]*.png", "folder/b.png")]
    given = end.join([b"two words.png", b"[1]*.png", b"folder", b"", b"a.png"])
    result = vision("describe", "a.png", "--paths-from", "-", *options, stdin=given)
    assert result.exit_code == 0
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == names


def test_paths_are_read_from_a_file(vision, make_photo, fresh_user):
    """Also those whose bytes are no text, and without an end after the last."""
    name = make_photo(os.fsdecode(b"caf\xe9\n.png"))
    (fresh_user / "list").write_bytes(os.fsencode(name) + b"\0missing.png")
    result = vision("describe", "--paths-from", "list", "-0", "--json")
    assert json.loads(result.stdout.splitlines()[0])["source"] == name
    assert (result.exit_code, "missing.png" in result.stderr) == (4, True)


@pytest.mark.parametrize(
    ("arguments", "stdin", "why"),
    [
        ([], b"", "No image is named. Name images"),
        (["--paths-from", "-"], b"\n", "--paths-from - names nothing."),
        (["--paths-from", "nowhere"], b"", "nowhere cannot be read: No such file or directory."),
        (["--paths-from", "-"], b"a.png\0b.png\0", "Pass --null (-0)."),
        (["--null", "a.png"], b"", "--null needs --paths-from."),
        (["-"], b"a.png\nb.png\n", "- stands for one image. Pass --paths-from - for paths, and -0 if"),
        (["-"], b"a.png\0b.png\0", "Pass --paths-from - for paths"),
    ],
)
def test_what_names_no_images_is_refused(vision, make_photo, arguments, stdin, why):
    """Also paths where an image belongs: what is piped in never names files by itself."""
    make_photo("a.png")
    result = vision("describe", *arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr


def test_the_exit_code_says_all_some_or_none(vision, make_photo, use_ladder):
    """For folders as for files."""
    make_photo("good/a.png")
    make_photo("mixed/a.png")
    for broken in ("mixed/b.png", "bad/b.png", "bad/c.png"):
        Path(broken).parent.mkdir(exist_ok=True)
        Path(broken).write_bytes(b"no image")
    assert [vision("describe", folder).exit_code for folder in ("good", "mixed", "bad")] == [0, 4, 2]
    assert vision("detect", "mixed/a.png", "mixed/b.png").exit_code == 4
    assert vision("embed", "mixed/a.png", "nothing*.png").exit_code == 4
    assert vision("describe", "mixed", "--out", "rows.csv").exit_code == 4
    assert vision("describe", "mixed", "--out", "rows.csv").exit_code == 4, "the other has its row"
    use_ladder("rungs:Dead")
    assert vision("describe", "good", "bad").exit_code == 3


def test_quiet_leaves_errors_only(vision, make_photo, use_ladder):
    """Neither folders that were left out nor reasons are told."""
    use_ladder("rungs:Dead", "vision_backends.testing.fake:FakeBackend")
    make_photo("photos/a.png")
    make_photo("photos/below/b.png")
    loud, quiet = vision("describe", "photos"), vision("describe", "photos", "--quiet")
    assert (len(loud.stderr.splitlines()), quiet.stderr) == (2, "")
    assert quiet.stdout == loud.stdout
    assert vision("embed", "photos", "-q", "--out", "v.npy").stderr == ""
    assert vision("embed", "photos", "-q", "--out", "v.csv").stderr == ""
    assert "missing.png" in vision("describe", "missing.png", "-q").stderr
