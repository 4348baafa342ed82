"""Descriptions are good English and say nothing that the evidence does not support."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.backends.embedded.evidence import NEUTRALS, PALETTE, Evidence, Guess, SeenObject, Tones
from vision_backends.backends.embedded.label_knowledge import PLACES
from vision_backends.backends.embedded.reading import TextLine, cleaned
from vision_backends.backends.embedded.template import compose
from vision_backends.backends.model_cards import asset, coco_categories

IMAGENET = asset("imagenet-1k.txt").read_text(encoding="utf-8").splitlines()
PLAIN = Tones(main=("brown", "beige"), uniform=False, greyscale=False, brightness="normal")


def seen(label, *, place="left", sure=True):
    """An object with a label; the numbers do not matter to the text."""
    return SeenObject(
        label=label, detected_as=label, score=0.7, sure=sure, place=place, share=0.1, xyxy=(0.0, 0.0, 9.0, 9.0)
    )


def evidence(*objects, scene=None, tones=PLAIN, text=None):
    """The evidence that holds some objects and lines of text."""
    lines = text and tuple(TextLine(string=each, score=0.99, xyxy=(0.0, 0.0, 9.0, 9.0)) for each in text)
    return Evidence(objects=objects, scene=scene, tones=tones, text=lines)


def guess(label, *, sure=True):
    """A word for the whole image."""
    return Guess(label=label, score=0.9 if sure else 0.7, sure=sure)


COLOURS = " The main colours are brown and beige."


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (evidence(seen("person")), "The image shows a person on the left."),
        (evidence(seen("person"), seen("person")), "The image shows two people on the left."),
        (evidence(seen("person"), seen("person", place="right")), "The image shows two people."),
        (
            evidence(seen("cat", place="foreground"), *[seen("bus", place="right")] * 6),
            "The image shows a cat in the foreground and several buses on the right.",
        ),
        (
            evidence(seen("person"), seen("umbrella"), seen("dog", place="centre")),
            "The image shows a person and an umbrella on the left and a dog in the centre.",
        ),
        (
            evidence(seen("person", place="foreground"), seen("dog"), seen("car", place="right"), seen("bus")),
            "The image shows a person in the foreground, a dog and a bus on the left and a car on the right.",
        ),
        (
            evidence(*map(seen, ["fork", "cup", "car", "dog", "bus", "tie"])),
            "The image shows a fork, a cup, a car and a dog on the left and other things.",
        ),
        (
            evidence(seen("dog"), seen("dog", place="right"), seen("cat", place="right")),
            "The image shows a cat on the right and two dogs.",
        ),
        (evidence(seen("bed", sure=False)), "The image may show a bed on the left."),
        (
            evidence(seen("person"), seen("bed", sure=False)),
            "The image shows a person on the left and perhaps a bed on the left.",
        ),
        (evidence(scene=guess("espresso")), "The image shows an espresso."),
        (evidence(scene=guess("espresso", sure=False)), "The image probably shows an espresso."),
        (evidence(seen("person"), scene=guess("tripod")), "The image shows a person on the left and a tripod."),
        (
            evidence(seen("person"), scene=guess("tripod", sure=False)),
            "The image shows a person on the left and probably a tripod.",
        ),
        (
            evidence(seen("bed", sure=False), scene=guess("quilt", sure=False)),
            "The image probably shows a quilt and perhaps a bed on the left.",
        ),
        (
            evidence(seen("person"), scene=guess("beach")),
            "The image shows a person on the left. The setting looks like a beach.",
        ),
        (evidence(scene=guess("beach")), "The setting looks like a beach."),
        (evidence(scene=guess("drawing", sure=False)), "The image looks like a drawing."),
        (
            evidence(seen("person"), scene=guess("drawing", sure=False)),
            "The image shows a person on the left. The image looks like a drawing.",
        ),
        (
            evidence(scene=guess("building or other structure", sure=False)),
            "The image probably shows a building or other structure.",
        ),
        (
            evidence(seen("cat", sure=False), scene=guess("plant", sure=False)),
            "The image probably shows a plant and perhaps a cat on the left.",
        ),
        (evidence(), "Nothing in the image was recognised with confidence."),
    ],
)
def test_it_reads_well(facts, text):
    """Counts, places, doubts and settings each have their words."""
    assert compose(facts) == text + COLOURS


@pytest.mark.parametrize(
    ("tones", "text"),
    [
        (("black",), "The image is plain black; nothing in it was recognised."),
        (("grey",), "The image is plain grey; nothing in it was recognised."),
    ],
)
def test_an_even_surface_is_called_plain(tones, text):
    """An image of one colour is described by that colour, and not as black-and-white."""
    plain = Tones(main=tones, uniform=True, greyscale=True, brightness="dark")
    assert compose(evidence(tones=plain)) == text


def test_a_greyscale_image_is_called_black_and_white():
    """Its colours are not listed; that it is dark is said."""
    grey = Tones(main=("grey", "black"), uniform=False, greyscale=True, brightness="dark")
    text = "The black-and-white image shows a dog on the left. The image is dark overall."
    assert compose(evidence(seen("dog"), tones=grey)) == text


def test_brightness_joins_the_colours():
    """One colour is a singular, and a bright image is called so."""
    bright = Tones(main=("white",), uniform=False, greyscale=False, brightness="bright")
    text = "The image shows a dog on the left. The main colour is white, and the image is bright overall."
    assert compose(evidence(seen("dog"), tones=bright)) == text


@pytest.mark.parametrize(
    ("max_words", "text"),
    [
        (None, "The image shows a dog on the left, a bus in the centre and perhaps a bed on the left." + COLOURS),
        (20, "The image shows a dog on the left, a bus in the centre and perhaps a bed on the left."),
        (12, "The image shows a dog, a bus and perhaps a bed."),
        (10, "The image shows a dog and other things."),
        (1, "The image shows a dog and other things."),
    ],
)
def test_it_shortens_step_by_step(max_words, text):
    """Colours go first, then places, then doubts; something is always said."""
    facts = evidence(seen("dog"), seen("bus", place="centre"), seen("bed", sure=False))
    assert compose(facts, max_words=max_words) == text


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], "The image shows a dog on the left."),
        (["OPEN"], 'The image shows a dog on the left. The text reads "OPEN".'),
        (["OPEN", "24 h"], 'The image shows a dog on the left. The text reads "OPEN" and "24 h".'),
        (['say "no"', "«rien»"], "The image shows a dog on the left. The text reads \"say 'no'\" and \"'rien'\"."),
        (["a b c"] * 14, f"The image shows a dog on the left. The text reads {', '.join(['Q'] * 11)} and more."),
        (
            ["one"] + ["x" * 200] * 2,
            f'The image shows a dog on the left. The text reads "one", "{"x" * 200}" and more.',
        ),
    ],
)
def test_text_is_quoted_after_what_was_seen(lines, text):
    """Its own quotation marks become single ones; of much text the beginning is told."""
    assert compose(evidence(seen("dog"), text=lines)) == text.replace("Q", '"a b c"') + COLOURS


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (evidence(text=["OPEN"]), 'The image shows text. The text reads "OPEN".' + COLOURS),
        (
            evidence(text=["OPEN"], tones=Tones(main=("white",), uniform=True, greyscale=True, brightness="bright")),
            'The image shows text on plain white. The text reads "OPEN".',
        ),
        (
            evidence(text=["OPEN"], scene=guess("beach")),
            'The setting looks like a beach. The text reads "OPEN".' + COLOURS,
        ),
    ],
)
def test_an_image_of_nothing_but_text_is_not_called_unrecognised(facts, text):
    """What was read was recognised."""
    assert compose(facts) == text


@pytest.mark.parametrize(
    ("max_words", "text"),
    [
        (25, "The image shows a dog on the left and perhaps a bed on the left. The text reads {}."),
        (20, "The image shows a dog and perhaps a bed. The text reads {}."),
        (16, "The image shows a dog. The text reads {}."),
        (12, 'The image shows a dog. The text reads "keep off the new…".'),
        (9, 'The image shows a dog. The text reads "keep…".'),
        (8, "The image shows a dog."),
    ],
)
def test_text_is_shortened_last(max_words, text):
    """Colours, places and doubts make room for it; then its end is left out."""
    facts = evidence(seen("dog"), seen("bed", sure=False), text=["keep off the new grass"])
    assert compose(facts, max_words=max_words) == text.format('"keep off the new grass"')


objects = st.builds(
    seen,
    st.sampled_from(sorted(coco_categories())),
    place=st.sampled_from(["left", "centre", "right", "foreground"]),
    sure=st.booleans(),
)
tones = st.builds(
    Tones,
    main=st.lists(st.sampled_from([*PALETTE, *NEUTRALS]), min_size=1, max_size=3, unique=True).map(tuple),
    uniform=st.booleans(),
    greyscale=st.booleans(),
    brightness=st.sampled_from(["dark", "normal", "bright"]),
)
facts = st.builds(
    lambda items, scene, toned: Evidence(objects=tuple(items), scene=scene, tones=toned),
    st.lists(objects, max_size=12),
    st.none() | st.builds(guess, st.sampled_from(IMAGENET), sure=st.booleans()),
    tones,
)
CLAIMS = (
    r"\b(he|she|his|her|him|hers|man|men|woman|women|boy|girl|male|female)\b"
    r"|\b(is|are) \w+ing\b|\b(holding|wearing|riding|sitting|standing|smiling|next to|behind|looking at|with the)\b"
)
SLIPS = r"\b(?!chow)(\w+) \1\b|\ba (?!eu|one-)[aeio]\w|\ban [bcdfgjklmnpqrstvwxyz]|,\.|, and perhaps,"


@given(facts=facts, max_words=st.none() | st.integers(1, 60))
def test_every_text_is_made_of_sentences(facts, max_words):
    """Each begins with a capital and ends with one full stop; no word is doubled, no gap is left."""
    text = compose(facts, max_words=max_words)
    assert re.fullmatch(r"([A-Z][^.]*(St\. )?[^.]*\.)( [A-Z][^.]*(St\. )?[^.]*\.)*", text)
    assert "  " not in text
    assert not re.search(SLIPS, text.lower())


@given(facts=facts)
def test_no_text_claims_more_than_was_seen(facts):
    """No pose, action, relation, identity or gender, whatever the evidence."""
    assert not re.search(CLAIMS, compose(facts))


@given(facts=facts)
def test_what_is_sure_is_said_without_a_doubt(facts):
    """The first sure object is in the text, right after "shows"."""
    sure = [item for item in facts.objects if item.sure]
    if sure:
        assert re.match(r"The (black-and-white )?image shows ", compose(facts))


@given(place=st.sampled_from(sorted(PLACES)))
def test_places_are_called_settings(place):
    """A library is where something is, not a thing in the image."""
    assert "The setting looks like" in compose(evidence(seen("person"), scene=guess(place)))


@given(
    lines=st.lists(st.text().map(cleaned).filter(bool), min_size=1, max_size=60),
    max_words=st.none() | st.integers(1, 60),
)
def test_no_text_leaves_its_quotation_marks(lines, max_words):
    """Whatever an image says, the sentences around it are ours, and the limits hold."""
    text = compose(evidence(seen("dog"), text=lines), max_words=max_words)
    around = re.sub(r'"[^"]*"', "Q", text)
    assert re.fullmatch(
        r"The image shows a dog( on the left)?\."
        r"( The text reads Q(, Q)*( and (Q|more))?\.)?"
        r"( The main colours are brown and beige\.)?",
        around,
    )
    assert len(text) < 400
    assert '"' not in text or max_words is None or len(text.split()) <= max_words
