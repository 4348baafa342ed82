"""``vision detect``: lines, tables and drawings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image, ImageChops
from PIL.Image import Transpose

HELD = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
"""How pixels lie in a file whose orientation says how to turn them upright (EXIF 2.3, tag 0x0112)."""

FAKE = "vision_backends.testing.fake:FakeBackend"


def test_each_object_is_a_line_of_score_box_and_label(vision, make_photo):
    """The label comes last, for it may have spaces; there are no tabs to align."""
    result = vision("detect", make_photo(), "--label", "a red scooter")
    assert result.stdout == "0.900 16.0 12.0 48.0 36.0 a red scooter\n"


def test_many_images_have_their_name_before_each_object(vision, make_photo):
    """Every line can be understood alone."""
    result = vision("detect", make_photo("a.png"), make_photo("b.png"))
    assert result.stdout == "a.png: 0.900 16.0 12.0 48.0 36.0 thing\nb.png: 0.900 16.0 12.0 48.0 36.0 thing\n"


def test_json_has_the_boxes(vision, make_photo):
    """With the size of the image that they are in."""
    line = json.loads(vision("detect", make_photo(), "--json").stdout)
    assert line["items"][0]["xyxy"] == [16.0, 12.0, 48.0, 36.0]
    assert (line["width"], line["height"]) == (64, 48)


def test_labels_and_scores_without_meaning_are_usage_errors(vision, make_photo):
    """The router's own words say so."""
    assert vision("detect", make_photo(), "--min-score", "2").exit_code == 2
    assert vision("detect", make_photo(), "--label", "a", "--label", "a").exit_code == 2


def test_finding_nothing_is_an_answer(vision, make_photo, use_ladder):
    """Exit code 0 and no line; standard error says that it is no mishap."""
    use_ladder("rungs:Blind")
    result = vision("detect", make_photo())
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "vision: nothing was found\n"


def test_what_is_known_of_the_whole_image_has_no_sides(vision, make_photo, use_ladder):
    """It is an answer, so nothing is said of nothing; programs see it beside the boxes."""
    use_ladder("rungs:Vague")
    result = vision("detect", make_photo(), "--label", "a red scooter")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "0.750 - - - - a red scooter\n", "")
    line = json.loads(vision("detect", make_photo(), "--label", "a red scooter", "--json").stdout)
    assert line["items"] == []
    assert line["image_labels"] == [{"label": "a red scooter", "score": 0.75}]


def test_a_drawing_is_saved_in_full_size(vision, make_photo, fresh_user):
    """The photo itself stays as it was, and the answer is printed as well."""
    before = (fresh_user / make_photo()).read_bytes()
    result = vision("detect", "photo.png", "--draw", "out/boxes.png")
    assert result.stdout == "0.900 16.0 12.0 48.0 36.0 thing\n"
    with Image.open(fresh_user / "out" / "boxes.png") as drawing, Image.open(fresh_user / "photo.png") as photo:
        assert drawing.size == photo.size
        assert drawing.tobytes() != photo.tobytes()
    assert (fresh_user / "photo.png").read_bytes() == before


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_drawn_on_the_upright_photo(vision, fresh_user, orientation):
    """However the camera was held, and whether the photo is a file, a pipe or in a folder."""
    upright = Image.new("RGB", (64, 48), "black")
    upright.paste("red", (0, 0, 20, 16))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    (fresh_user / "photos").mkdir()
    held = upright.transpose(HELD[orientation]) if orientation in HELD else upright
    held.save(fresh_user / "photos" / "photo.png", exif=exif)
    data = (fresh_user / "photos" / "photo.png").read_bytes()
    vision("detect", "photos/photo.png", "--draw", "file.png")
    vision("detect", "-", "--draw", "pipe.png", stdin=data)
    vision("detect", "photos", "--draw", "drawn")
    for name in ("file.png", "pipe.png", "drawn/photo.png"):
        with Image.open(fresh_user / name) as drawing:
            assert drawing.size == (64, 48)
            assert not drawing.getexif()
            assert drawing.convert("RGB").getpixel((4, 4)) == (255, 0, 0)
            outside = ImageChops.difference(drawing.convert("RGB"), upright).crop((0, 38, 64, 48))
            sides = [drawing.convert("RGB").getpixel(at) for at in ((16, 30), (47, 30), (32, 35))]
        assert (0, 0, 0) not in sides
        assert outside.getbbox() is None


def test_drawings_of_several_images_go_into_a_folder_under_names_of_their_own(vision, make_photo, fresh_user):
    """Two files of one name do not overwrite each other's drawing; a failed one has none."""
    names = [make_photo("a/x.png"), make_photo("b/X.jpg"), make_photo("y.png"), "missing.png"]
    result = vision("detect", *names, "y.png", "--draw", "boxes", "--json")
    assert result.exit_code == 4
    assert sorted(path.name for path in (fresh_user / "boxes").iterdir()) == ["X-2.png", "x.png", "y.png"]


def test_a_drawing_of_standard_input_has_a_name_too(vision, make_photo, fresh_user):
    """What has no file name is called image."""
    make_photo()
    vision("detect", "-", "--draw", "boxes", stdin=(fresh_user / "photo.png").read_bytes())
    assert (fresh_user / "boxes" / "image.png").is_file()


def test_one_file_for_several_drawings_is_refused(vision, make_photo, fresh_user):
    """Nothing is asked and nothing is written."""
    result = vision("detect", make_photo("a.png"), make_photo("b.png"), "--draw", "boxes.png")
    assert result.exit_code == 2
    assert "Name a folder" in result.stderr
    assert not (fresh_user / "boxes.png").exists()


def test_an_input_is_never_drawn_over(vision, make_photo, fresh_user):
    """Not even under another name, nor by way of the folder that it is in."""
    before = (fresh_user / make_photo()).read_bytes()
    (fresh_user / "link.png").symlink_to("photo.png")
    for out in ("photo.png", "link.png", "."):
        result = vision("detect", "photo.png", "--draw", out)
        assert result.exit_code == 2
        assert "is an input" in result.stderr
    assert (fresh_user / "photo.png").read_bytes() == before


def test_a_drawing_that_fails_takes_nothing_from_the_other_images(vision, make_photo, fresh_user):
    """All boxes are printed, the other drawing is there, and the exit code says that one is not."""
    (fresh_user / "boxes" / "a.png").mkdir(parents=True)
    result = vision("detect", make_photo("a.png"), make_photo("b.png"), "--draw", "boxes")
    assert result.exit_code == 2
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["a.png", "b.png"]
    assert result.stderr.count("cannot be written") == 1
    assert (fresh_user / "boxes" / "b.png").is_file()


def test_a_drawing_that_cannot_be_written_is_told(vision, make_photo, fresh_user):
    """The path is named, and there is no traceback."""
    (fresh_user / "file").touch()
    result = vision("detect", make_photo(), "--draw", "file/boxes.png")
    assert result.exit_code == 2
    assert result.stderr.startswith("vision: file/boxes.png cannot be written: ")


def test_at_a_terminal_objects_are_a_table(vision_at_terminal, make_photo):
    """A file that is called like markup is shown as it is called."""
    code, screen = vision_at_terminal("detect", make_photo("[red]a.png"), make_photo("b.png"), "--label", "[bold]dog")
    assert code == 0
    assert "[red]a.png: 1 found" in screen
    rows = [line.split() for line in screen.splitlines()]
    assert ["label", "score", "left", "top", "right", "bottom"] in rows
    assert ["[bold]dog", "0.90", "16", "12", "48", "36"] in rows


def test_at_a_terminal_one_image_is_the_table_alone(vision_at_terminal, make_photo):
    """Its name is known."""
    _, screen = vision_at_terminal("detect", make_photo())
    assert "photo.png" not in screen
    assert screen.split()[:2] == ["label", "score"]


def test_at_a_terminal_what_is_known_of_the_whole_image_is_a_row(vision_at_terminal, make_photo, use_ladder):
    """It counts as found."""
    use_ladder("rungs:Vague")
    _, screen = vision_at_terminal("detect", make_photo("a.png"), make_photo("b.png"), "--label", "scooter")
    rows = [line.split() for line in screen.splitlines() if "scooter" in line]
    assert rows == [["scooter", "0.75", "-", "-", "-", "-"]] * 2
    assert "a.png: 1 found" in screen


def test_at_a_terminal_nothing_found_is_said_for_each_image(vision_at_terminal, make_photo, use_ladder):
    """There is no empty table."""
    use_ladder("rungs:Blind")
    _, screen = vision_at_terminal("detect", make_photo("a.png"), make_photo("b.png"))
    assert "a.png: nothing found\nb.png: nothing found\n" in screen
    assert "score" not in screen
    assert "vision: 2 of 2: nothing was found" in screen


@pytest.mark.parametrize("out", ["boxes.bmp", "boxes.pdf", "boxes.tiff"])
def test_a_drawing_in_a_format_that_is_not_drawn_is_refused(vision, make_photo, out):
    """Instead of a folder of that name; the error says what is accepted."""
    result = vision("detect", make_photo(), "--draw", out)
    assert result.exit_code == 2
    assert "End it in .png, .jpg or .webp, or name a folder" in result.stderr
    assert not Path(out).exists()
    Path(out).mkdir()
    assert vision("detect", "photo.png", "--draw", out).exit_code == 0
    assert vision("detect", "photo.png", "--draw", "run.2").exit_code == 0
