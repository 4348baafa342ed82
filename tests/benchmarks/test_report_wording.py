"""Figures in words: digits, units, and strangers' texts."""

import pytest

from benchmarks.records import Interval
from benchmarks.report import wording


def plain(text):
    """Return a text with plain spaces."""
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0, "0 ms"),
        (0.000423, "0.42 ms"),
        (0.0042, "4.2 ms"),
        (0.0314, "31 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1.26, "1.3 s"),
        (75.4, "75 s"),
        (4000, "4,000 s"),
    ],
)
def test_a_time_has_the_digits_that_count(seconds, text):
    """Milliseconds below a second, seconds above."""
    assert plain(wording.show_time(seconds)) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "–"),
        (0, "$0"),
        (0.00042, "$0.00042"),
        (0.42, "$0.42"),
        (12.5, "$12.50"),
        (1234, "$1,234"),
        (-0.5, "−$0.50"),
    ],
)
def test_money_is_never_rounded_to_nothing(amount, text):
    """What costs little does not read as free, and what is unknown not as 0."""
    assert wording.show_usd(amount) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.001, "under 1 %"),
        (0.18, "18 %"),
        (0.994, "99 %"),
        (0.9999, "over 99 %"),
        (1, "100 %"),
        (2.5, "250 %"),
    ],
)
def test_a_share_reads_as_all_or_nothing_only_where_it_is(share, text):
    """One call of a thousand is not 0 %, and all but one are not 100 %."""
    assert plain(wording.show_share(share)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.9204, "0.920"), (-0.01, "−0.010"), (48.53, "48.5"), (1333.3, "1,333")]
)
def test_a_figure_has_three_decimals_or_fewer(value, text):
    """Figures below 10 stand under one another."""
    assert wording.show_figure(value) == text


def test_sizes_counts_and_intervals():
    """Each has its unit."""
    assert plain(wording.show_bytes(412_000_000)) == "412 MB"
    assert plain(wording.show_bytes(1_920_000_000)) == "1.9 GB"
    assert wording.show_bytes(None) == "–"
    assert plain(wording.show_count(86_600_000)) == "87 million"
    assert wording.show_count(1200) == "1,200"
    assert plain(wording.show_interval(Interval(low=0.881, high=0.957))) == "0.881 to 0.957"
    assert wording.show_interval(None) is None


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-11-25T13:22:00+00:00", "25 November 2026, 13:22 UTC"),
        ("2026-11-25T15:22:00+02:00", "25 November 2026, 13:22 UTC"),
        ("2026-11-25T13:22:00Z", "25 November 2026, 13:22 UTC"),
        ("yesterday", "yesterday"),
        (None, "–"),
    ],
)
def test_a_moment_is_a_date_that_people_read(moment, text):
    """In UTC, wherever it was noted."""
    assert wording.show_date(moment) == text


@pytest.mark.parametrize(
    "text", ["javascript:alert(1)", "data:text/html,x", "ftp://host/x", "http://", "http://:80", "https://[x", "x"]
)
def test_what_is_no_web_address_is_no_link(text):
    """Only http and https with a host count, and no letter gets lost."""
    pieces = wording.split_links(text)
    assert [address for _, address in pieces if address] == []
    assert "".join(piece for piece, _ in pieces) == text


def test_an_address_in_a_text_is_a_link():
    """The sentence around it is not."""
    assert wording.split_links("published: https://arxiv.org/abs/2201.12086, ViT-B") == [
        ("published: ", None),
        ("https://arxiv.org/abs/2201.12086", "https://arxiv.org/abs/2201.12086"),
        (", ViT-B", None),
    ]


def test_a_text_is_one_line_of_printable_letters():
    """Joiners stay, because scripts and emoji need them; a text without end is cut."""
    assert wording.clean_text("a\n b\x00\x1b[1m\u202e\ud800 👩\u200d🚀") == "a b[1m 👩\u200d🚀"
    assert len(wording.clean_text("x" * 10_000)) == 600


def test_words_are_joined_as_they_are_spoken():
    """One, two and three of them."""
    assert [wording.join_words(words) for words in ("a", "ab", "abc", "")] == ["a", "a and b", "a, b and c", "–"]
