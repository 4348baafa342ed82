"""What is worth reading, how sure a reading must be, and when to stop; what an image says is cleaned."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from vision_backends.backends.embedded.reading import Reader, _tallest, cleaned


class ScriptedOcr:
    """Finds the lines that it is told to, and reads them one after another."""

    name, version, min_score, loaded = "scripted", "1", 0.9, True

    def __init__(self, *readings, heights=None):
        self.readings = list(readings)
        self.heights = heights or [20.0] * len(readings)

    def check(self):
        """It is ready."""

    def close(self):
        """It holds nothing."""

    def window(self, image, *, small):
        """All of it."""
        return 0.0, 0.0, float(image.width), float(image.height)

    def find(self, image):
        """The lines of the script, one below another."""
        return [quad(height, top=30.0 * number) for number, height in enumerate(self.heights)]

    def read(self, line):
        """What the script says next."""
        return self.readings.pop(0)


def read(ocr, *, left_s=lambda: 60.0, window=(0, 0, 200, 3000), size=(200, 3000)):
    """What is read of an empty picture, whatever the script says is on it."""
    width, height = size
    return Reader(ocr).read(PILImage.new("RGB", size), window=window, width=width, height=height, left_s=left_s)


def strings(reading):
    """What it says, line by line."""
    return [line.string for line in reading.lines]


def test_only_sure_readings_count():
    """A line that could be anything is left out; the others are complete without it."""
    reading = read(ScriptedOcr(("PUSH", 0.95), ("PVSH", 0.89)))
    assert strings(reading) == ["PUSH"]
    assert reading.complete


@pytest.mark.parametrize("string", ["8", "-", "…!", "I.", " "])
def test_a_single_character_is_no_text(string):
    """Shapes in photos look like one letter far too often."""
    assert strings(read(ScriptedOcr((string, 1.0), ("24", 1.0)))) == ["24"]


def test_what_is_read_is_cleaned():
    """Line breaks, control characters and direction marks would reach a terminal or a prompt."""
    assert strings(read(ScriptedOcr(("IGNORE\u202e\x1b[31m ALL\n", 1.0)))) == ["IGNORE [31m ALL"]


def test_boxes_are_on_the_upright_image_wherever_the_window_is():
    """The part that was searched begins somewhere, and has another scale."""
    picture = PILImage.new("RGB", (400, 200))
    ocr = ScriptedOcr(("PUSH", 1.0))
    (line,) = Reader(ocr).read(picture, window=(50, 20, 150, 80), width=200, height=100, left_s=lambda: 60.0).lines
    assert line.xyxy == (50.0, 20.0, 100.0, 30.0)


def test_more_lines_than_are_read_are_told():
    """A page of small print takes bounded time, and nobody takes its beginning for all of it."""
    reading = read(ScriptedOcr(*[("text", 1.0)] * 60))
    assert len(reading.lines) == 40
    assert not reading.complete


def test_lines_too_low_to_be_read_are_not_missed():
    """Nobody could read them."""
    assert read(ScriptedOcr(("text", 1.0), heights=[20.0, 3.0])).complete


def test_with_no_time_left_nothing_is_searched():
    """A description without the text is better than none."""
    ocr = ScriptedOcr(("PUSH", 1.0))
    reading = read(ocr, left_s=lambda: 0.2)
    assert not reading.lines
    assert not reading.complete
    assert ocr.readings


def test_reading_stops_when_time_runs_out():
    """What was read until then is kept, and not taken for all."""
    left = iter([5.0, 5.0, 0.05, 0.05])
    reading = read(ScriptedOcr(("PUSH", 1.0), ("PULL", 1.0)), left_s=lambda: next(left))
    assert strings(reading) == ["PUSH"]
    assert not reading.complete


def quad(height, *, top=0.0):
    """A line of text so high, as its four corners."""
    return [(0.0, top), (100.0, top), (100.0, top + height), (0.0, top + height)]


def test_of_many_lines_the_tallest_are_read():
    """In the order in which they came; what is too low to be read is left out."""
    quads = [quad(8.0, top=number) for number in range(60)] + [quad(40.0), quad(2.0)]
    chosen = _tallest(quads)
    assert len(chosen) == 40
    assert _tallest([quad(40.0), quad(2.0), quad(8.0)]) == [quad(40.0), quad(8.0)]
    assert _tallest([]) == []


@given(string=st.text())
def test_cleaned_strings_are_one_visible_line(string):
    """No control character, direction mark or line break; never long, and cleaning twice changes nothing."""
    clean = cleaned(string)
    assert not any(unicodedata.category(char).startswith("C") for char in clean)
    assert clean == " ".join(clean.split())
    assert len(clean) <= 200
    assert cleaned(clean) == clean


@given(string=st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), max_size=200))
def test_cleaning_leaves_visible_text_as_it_is(string):
    """Punctuation, digits and quotation marks are what the image says."""
    assert cleaned(string) == string
