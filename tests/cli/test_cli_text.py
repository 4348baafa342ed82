"""Text that is safe to print."""

from __future__ import annotations

import contextlib
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.cli.rendering.text import bytes_text, dump_json, one_line, print_table
from vision_backends.foreign_text import printable


@given(st.text(st.characters(exclude_categories=[])))
def test_printable_text_has_no_control_character_and_can_be_encoded(text):
    """Whatever a file is called or a model says."""
    shown = printable(text)
    shown.encode("utf-8")
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    assert len(one_line(text).splitlines()) <= 1


@given(st.text(st.characters(exclude_categories=["C"], exclude_characters="\u2028\u2029")))
def test_ordinary_text_stays_as_it_is(text):
    """All scripts and signs are ordinary."""
    assert printable(text) == text


def test_a_name_that_is_no_unicode_shows_its_bytes():
    """As Python's own escapes."""
    assert printable(os.fsdecode(b"caf\xe9\n.png")) == "caf\\udce9\\n.png"


def test_names_in_a_table_are_those_of_the_files(capsys):
    """With all their spaces, and a line end as its escape: they are read, and typed again."""
    print_table(("size", "file"), [("1 kB", "my  cat.png"), ("2 kB", "two\nlines.png")])
    assert capsys.readouterr().out.splitlines()[1:] == ["1 kB  my  cat.png", "2 kB  two\\nlines.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@given(text=st.text(st.characters(exclude_categories=[])))
def test_json_comes_back_the_same_through_any_encoding(encoding, text):
    """Names that are no Unicode too: programs must be able to open the file again."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    with contextlib.redirect_stdout(stream):
        stream.write(dump_json({"source": text}))
    stream.flush()
    assert json.loads(raw.getvalue()) == {"source": text}


def test_json_is_readable_where_the_encoding_allows(vision, make_photo):
    """A person looks at it too."""
    assert "×" in vision("describe", make_photo(), "--json").stdout


def test_a_table_without_a_terminal_is_aligned_with_spaces():
    """Numbers to the right; no trailing blanks, which would make diffs noisy."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        print_table(("name", "size", "note"), [("a", "1.5", "x"), ("long name", "10.0", "")])
    assert stream.getvalue() == "name       size  note\na           1.5  x\nlong name  10.0\n"


def test_a_table_without_rows_has_its_header():
    """An empty list is still a table."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        print_table(("name", "size"), [])
    assert stream.getvalue() == "name  size\n"


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_sizes_are_rounded_to_what_people_read(size, said):
    """Never to 1,000 of a smaller unit."""
    assert bytes_text(size) == said
