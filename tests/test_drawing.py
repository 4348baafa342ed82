"""Boxes on pictures: in sight, readable, inside, and of the colour that their label always has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from vision_backends import drawing
from vision_backends.drawing import draw_boxes

PLAIN = PILImage.new("RGB", (400, 300), (90, 90, 90))


def changed_box(before: PILImage.Image, after: PILImage.Image) -> tuple[int, int, int, int] | None:
    """Return the smallest box around all pixels that differ."""
    rows, columns = np.nonzero((np.asarray(before) != np.asarray(after)).any(axis=2))
    if rows.size == 0:
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def colours_of(image: PILImage.Image) -> set[tuple[int, int, int]]:
    """Return the palette's colours that are in a picture."""
    pixels = {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}
    return pixels & set(drawing._PALETTE)


def test_the_picture_itself_stays_as_it_was():
    """Drawing happens on a copy."""
    before = PLAIN.copy()
    drawn = draw_boxes(PLAIN, [("dog", (50, 60, 200, 200))])
    assert changed_box(before, PLAIN) is None
    assert changed_box(PLAIN, drawn) is not None


def test_a_picture_of_any_mode_becomes_rgb():
    """Grey, palette and transparent pictures are drawn on in colour."""
    for mode in ("L", "P", "RGBA", "1"):
        assert draw_boxes(PLAIN.convert(mode), [("dog", (50, 60, 200, 200))]).mode == "RGB"


def test_the_outline_runs_along_the_inner_side_of_the_box():
    """Nothing is drawn further out than the thin edge, and the inside is left free."""
    drawn = draw_boxes(PLAIN, [("", (50, 60, 200, 200))])
    left, top, right, bottom = changed_box(PLAIN, drawn)
    assert 48 <= left <= 50
    assert 58 <= top <= 60
    assert 200 <= right <= 202
    assert 200 <= bottom <= 202
    assert changed_box(PLAIN.crop((60, 70, 190, 190)), drawn.crop((60, 70, 190, 190))) is None


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255), *drawing._PALETTE])
def test_an_outline_contrasts_with_every_ground(ground: tuple[int, int, int]):
    """On black, on white and on its own colour, the line or its edge differs from what is beneath."""
    plain = PILImage.new("RGB", (200, 200), ground)
    for label in "abcdefghijklmnopqrstuvwxyz":
        drawn = np.asarray(draw_boxes(plain, [(f"{label}", (50, 60, 150, 150))]), dtype=int)
        line = drawn[100, 46:56]  # across the left side
        assert np.abs(line - np.array(ground)).sum(axis=1).max() > 120


def test_a_label_has_one_colour_in_every_picture_whatever_its_score():
    """The colour depends on the label alone: not on the order, the size, the other labels or the score."""
    alone = colours_of(draw_boxes(PLAIN, [("dog", (50, 60, 200, 200))]))
    scored = colours_of(draw_boxes(PLAIN.resize((900, 700)), [("Dog 0.87", (5, 60, 500, 600))]))
    together = colours_of(draw_boxes(PLAIN, [("cat 0.9", (220, 60, 300, 200)), ("dog 12 %", (50, 60, 200, 200))]))
    assert len(alone) == 1
    assert alone == scored
    assert alone < together


def test_common_labels_that_share_a_picture_have_different_colours():
    """The commonest of COCO never look alike."""
    labels = ["person", "car", "chair", "bottle", "cup", "dog", "cat", "bicycle", "book", "dining table"]
    assert len({drawing._colour_of(label) for label in labels}) == len(labels)


def test_letters_contrast_with_their_chip():
    """Black on light and white on dark colours, with a contrast ratio of at least 4.5 as WCAG asks for."""

    def luminance(colour: tuple[int, int, int]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for colour in drawing._PALETTE:
        bright, dark = sorted((luminance(colour), luminance(drawing._ink_on(colour))), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_lines_and_letters_grow_with_the_picture():
    """A picture four times as large has about four times the ink in each direction."""
    heights = []
    for factor in (1, 4):
        plain = PLAIN.resize((640 * factor, 480 * factor))
        drawn = draw_boxes(plain, [("dog", (200 * factor, 200 * factor, 400 * factor, 400 * factor))])
        _, top, _, _ = changed_box(plain, drawn)
        heights.append(200 * factor - top)
    assert heights[1] == pytest.approx(4 * heights[0], rel=0.15)


def test_a_chip_stands_above_its_box_where_there_is_room_and_otherwise_inside():
    """A box at the top edge carries its label inside."""
    middle = changed_box(PLAIN, draw_boxes(PLAIN, [("dog", (50, 100, 200, 200))]))
    assert middle[1] < 90
    atop = draw_boxes(PLAIN, [("dog", (50, 0, 200, 200))])
    assert changed_box(PLAIN.crop((60, 6, 80, 20)), atop.crop((60, 6, 80, 20))) is not None


def test_chips_of_boxes_in_one_place_do_not_cover_each_other():
    """Three labels on the same box find three places."""
    box = (100, 100, 300, 250)
    labels = ("dog", "cat", "cup")

    def ink(image: PILImage.Image, label: str) -> int:
        return int((np.asarray(image) == drawing._colour_of(label)).all(axis=2).sum())

    together = draw_boxes(PLAIN, [(label, box) for label in labels])
    outline = ink(draw_boxes(PLAIN, [("", box)]), "")
    for label in labels:
        chip = ink(draw_boxes(PLAIN, [(label, box)]), label) - outline
        assert ink(together, label) > 0.5 * chip


def test_a_small_box_stays_in_sight_inside_a_large_one():
    """The large one is drawn first, although it comes later."""
    boxes = [("", (100, 100, 130, 130)), ("x", (100, 100, 300, 250))]
    small = colours_of(draw_boxes(PLAIN, boxes[:1]))
    assert small <= colours_of(draw_boxes(PLAIN, boxes).crop((98, 110, 110, 130)))


def test_a_label_too_long_for_the_picture_is_shortened():
    """It ends in an ellipsis instead of running out of the picture."""
    drawn = draw_boxes(PLAIN, [("word " * 50 + "0.5", (150, 150, 250, 250))])
    left, _, right, _ = changed_box(PLAIN, drawn)
    assert left >= 0
    assert right <= 400
    assert changed_box(drawn, draw_boxes(PLAIN, [("word " * 50 + "0.75", (150, 150, 250, 250))])) is None


def test_accents_are_dropped_because_the_font_has_none():
    """A German label reads almost as it should."""
    accented = draw_boxes(PLAIN, [("bär 1", (50, 60, 200, 200))])
    colour, other = drawing._colour_of("bär"), drawing._colour_of("bar")
    plain = np.asarray(draw_boxes(PLAIN, [("bar 1", (50, 60, 200, 200))]))
    letters = (np.asarray(accented) == drawing._ink_on(colour)).all(axis=2).sum()
    assert letters == (plain == drawing._ink_on(other)).all(axis=2).sum()


@pytest.mark.parametrize("label", ["", "漢字", "🚲", "a\nb", "\x00", "\ud800", "\u200f\u05e2\u05d1", "e\u0301" * 300])
def test_any_label_can_be_drawn(label: str):
    """No character makes drawing fail."""
    drawn = draw_boxes(PLAIN, [(label, (50, 60, 200, 200))])
    assert changed_box(PLAIN, drawn) is not None


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 30_000), (30_000, 1), (15, 15), (40, 40)])
def test_pictures_of_odd_sizes_can_be_drawn_on(size: tuple[int, int]):
    """Where there is no room for a label, the outline is all."""
    plain = PILImage.new("RGB", size, "grey")
    drawn = draw_boxes(plain, [("dog 0.5", (0, 0, *size)), ("cat", (0, 0, 1, 1))])
    assert drawn.size == size


def test_no_boxes_leave_the_picture_as_it_is():
    """An empty answer gives a plain copy."""
    assert changed_box(PLAIN, draw_boxes(PLAIN, [])) is None


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    boxes=st.lists(
        st.tuples(st.text(max_size=8), st.tuples(*[st.floats(-200, 400)] * 4)),
        max_size=5,
    ),
)
def test_boxes_may_lie_anywhere(size: tuple[int, int], boxes: list):
    """Boxes outside, inside out or empty neither fail nor change the size."""
    assert draw_boxes(PILImage.new("RGB", size), boxes).size == size
