"""What a model says is separated from what it thinks, and is valid Unicode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.backends.texts import TAGS, Speech, half_character, is_mark, mend, opens_a_thought, spoken

SAID = "A grey cat looks up."


@pytest.mark.parametrize(("opening", "closing"), TAGS.items())
def test_thoughts_of_every_family_are_left_out(opening, closing):
    """In whatever capitals, before the answer and between its sentences."""
    for tags in ((opening, closing), (opening.upper(), closing.upper())):
        output = f"{tags[0]}Is it a dog?{tags[1]}\n\n{SAID}{tags[0]}Yes.{tags[1]} It sleeps."
        speech = spoken(output)
        assert speech.text == f"{SAID} It sleeps."
        assert speech.has_thoughts


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("The user wants a caption.\n</think>\n\n" + SAID, SAID),
        ("a dog?</think>no</think>" + SAID, SAID),
        ("<think>The user wants", ""),
        ("<think></think>" + SAID, SAID),
        (f"{SAID}<think>Was that", SAID),
        ("<think>a <think>b</think>" + SAID, SAID),
        ('<think>"Describe it."</think>' + SAID, SAID),
        (f"<think>a</think><answer>{SAID}</answer>", SAID),
        (f"<think>a</think><|begin_of_box|>{SAID}<|end_of_box|>", SAID),
    ],
)
def test_blocks_that_are_half_open_or_framed_are_thoughts_too(output, said):
    """A missing opening, a missing closing, one inside the other, and a frame around the answer."""
    speech = spoken(output)
    assert speech.text == said
    assert speech.has_thoughts


@pytest.mark.parametrize(
    "output",
    [SAID, "The sign says '<think>' in blue.", "`</think>` is on the screen.", "<answer>42</answer>", "3 < 4 <", ""],
)
def test_a_text_about_tags_is_no_thought(output):
    """A picture may show code."""
    speech = spoken(output)
    assert speech.text == output
    assert not speech.has_thoughts


OUTPUTS = st.lists(
    st.sampled_from(
        [
            *TAGS,
            *TAGS.values(),
            "<answer>",
            "'",
            '"',
            "<",
            "<th",
            "ink>",
            " ",
            "cat",
            "\ud83d",
            "\ude00",
            "🐈",
            "</think>",
        ]
    ),
    max_size=12,
).map("".join)


@given(OUTPUTS, st.integers(1, 7), st.booleans(), st.booleans())
def test_pieces_say_what_the_whole_says(output, size, may_begin_inside, was_cut):
    """Wherever the output is cut into pieces, unless a late tag shows that what was said was a thought."""
    speech = Speech(may_begin_inside=may_begin_inside)
    pieces = [speech.feed(output[start : start + size]) for start in range(0, len(output), size)]
    pieces.append(speech.end(was_cut=was_cut))
    whole = spoken(output, may_begin_inside=may_begin_inside, was_cut=was_cut)
    assert (speech.text, speech.has_thoughts) == (whole.text, whole.has_thoughts)
    assert half_character(speech.text) is None
    if not speech.took_back:
        assert "".join(pieces) == speech.text


def test_nothing_is_let_through_while_the_output_may_be_inside_a_thought():
    """Once its closing tag has come, everything is."""
    speech = Speech(may_begin_inside=True)
    assert [speech.feed(piece) for piece in ("Is it ", "a dog?", "</th", "ink>A ", "cat.")] == [
        "",
        "",
        "",
        "A ",
        "cat.",
    ]
    assert speech.began_inside
    assert not speech.took_back


def test_an_output_that_began_inside_no_thought_is_let_through_at_its_end():
    """It is the answer if it has ended by itself, and a thought if it was cut."""
    assert spoken(SAID, may_begin_inside=True).text == SAID
    cut = spoken(SAID, may_begin_inside=True, was_cut=True)
    assert (cut.text, cut.has_thoughts) == ("", True)
    speech = Speech(may_begin_inside=True)
    assert (speech.feed(SAID), speech.release(), speech.feed(" It")) == ("", SAID, " It")


def test_a_late_closing_tag_takes_back_what_was_let_through():
    """The reader has to know."""
    speech = Speech()
    assert speech.feed("Is it a dog?") == "Is it a dog?"
    speech.feed("</think>" + SAID)
    assert speech.took_back
    assert speech.text == SAID


def test_a_prompt_may_open_a_thought():
    """As chat templates of models that always think do."""
    assert opens_a_thought("assistant\n<think>\n")
    assert not opens_a_thought("assistant\n<think>\n\n</think>\n\n")
    assert is_mark("[THINK]")
    assert not is_mark("</s>")


@pytest.mark.parametrize(
    ("text", "at", "mended"),
    [
        ("cat", None, "cat"),
        ("🐈", None, "🐈"),
        ("a \ud83d", 2, "a \ufffd"),
        ("\ude00b", 0, "\ufffdb"),
        ("\ud83d\ude00!", 0, "😀!"),
    ],
)
def test_half_characters_are_found_and_mended(text, at, mended):
    """Two halves that belong together are one character."""
    assert half_character(text) == at
    assert mend(text) == mended
    mended.encode()
