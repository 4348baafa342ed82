"""How models see images."""

from __future__ import annotations

import math
from pathlib import Path

import openai.types.shared.chat_model
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.backends.openai.models import (
    DEFAULT_MODEL,
    effort_of,
    family_of,
    image_token_rule,
)

SIDES = st.integers(1, 12_000)
MODELS = st.sampled_from(["gpt-6-luna", "gpt-5.4-mini", "gpt-4o", "gpt-4o-mini", "somebodys-model"])
DETAILS = st.sampled_from(["auto", "low", "high", "original"])


def test_the_default_model_is_not_announced_to_retire():
    """The SDK's own docstring lists every model with a date of its end."""
    source = Path(openai.types.shared.chat_model.__file__).read_text("utf-8")
    names, _, retiring = source.partition("Deprecated values:")
    assert f'"{DEFAULT_MODEL}"' in names
    assert f'"{DEFAULT_MODEL}"' not in retiring


@pytest.mark.parametrize(
    ("model", "size", "fitted", "tokens"),
    [
        ("gpt-4o", (1024, 1024), (768, 768), 765),
        ("gpt-4o", (2048, 4096), (768, 1536), 1105),
        ("gpt-4.1", (500, 400), (500, 400), 255),
        ("gpt-4o-mini", (512, 512), (512, 512), 8500),
        ("gpt-5.4-mini", (1024, 1024), (1024, 1024), 1659),
        ("gpt-5-mini", (1800, 2400), (1056, 1408), 2353),
        ("gpt-6-luna", (1600, 1600), (1600, 1600), 3000),
        ("gpt-6-luna", (1280, 720), (1280, 720), 1104),
        ("gpt-6.1-sol", (640, 480), (640, 480), 360),
    ],
)
def test_sizes_and_tokens_are_those_of_the_published_examples(model, size, fitted, tokens):
    """The examples are OpenAI's own, and measurements of users."""
    rule = image_token_rule(model, "high")
    assert rule.fit(*size) == fitted
    assert rule.tokens(*size) == tokens


@pytest.mark.parametrize(
    ("model", "detail", "size", "fitted"),
    [
        ("gpt-5.4-mini", "high", (8192, 64), (2048, 16)),
        ("gpt-6-luna", "high", (64, 8192), (16, 2048)),
        ("gpt-6-luna", "original", (12_000, 64), (6000, 32)),
        ("gpt-4o", "high", (8192, 64), (2048, 16)),
    ],
)
def test_a_narrow_picture_is_no_longer_than_the_model_looks_at(model, detail, size, fitted):
    """However few tokens it would take."""
    assert image_token_rule(model, detail).fit(*size) == fitted


@pytest.mark.parametrize(("model", "sibling"), [("gpt-5.1", "gpt-5"), ("o1", "o3")])
def test_models_of_one_row_of_the_published_table_count_alike(model, sibling):
    """OpenAI names them together."""
    assert image_token_rule(model, "high") == image_token_rule(sibling, "high")


@given(MODELS, DETAILS, SIDES, SIDES)
def test_what_is_sent_is_never_larger_than_given_or_looked_at(model, detail, width, height):
    """Scaling keeps the shape, never enlarges, and stays in every limit."""
    rule = image_token_rule(model, detail)
    new_width, new_height = rule.fit(width, height)
    assert 1 <= new_width <= width
    assert 1 <= new_height <= height
    assert max(new_width, new_height) <= rule.max_side_px
    if rule.short_side_px:
        assert min(new_width, new_height) <= rule.short_side_px
    if rule.max_patches and min(width, height) >= 32:
        assert math.ceil(new_width / 32) * math.ceil(new_height / 32) <= rule.max_patches
    if min(new_width, new_height) > 50:
        assert new_width / new_height == pytest.approx(width / height, rel=0.05)
    assert rule.fit(new_width, new_height)[0] >= new_width - 1


@given(MODELS, SIDES, SIDES)
def test_low_detail_is_never_dearer_than_high(model, width, height):
    """Low means at most 512 px, or a flat price."""
    low, high = image_token_rule(model, "low"), image_token_rule(model, "high")
    assert low.tokens(width, height) <= high.tokens(width, height)
    assert max(low.fit(width, height)) <= 512


def test_original_detail_sends_more_where_the_model_knows_it():
    """Elsewhere it is the same as high."""
    assert image_token_rule("gpt-6-luna", "original").fit(4000, 3000) > image_token_rule("gpt-6-luna", "high").fit(
        4000, 3000
    )
    assert image_token_rule("gpt-4o", "original") == image_token_rule("gpt-4o", "high")
    assert image_token_rule("gpt-6-luna", "auto") == image_token_rule("gpt-6-luna", "original")


def test_an_unknown_model_gets_2048_px_or_what_the_user_says():
    """Nothing is known of compatible servers."""
    assert image_token_rule("somebodys-model", "high").fit(4096, 1024) == (2048, 512)
    assert image_token_rule("somebodys-model", "high", max_image_px=1000).fit(4000, 1000) == (1000, 250)
    assert image_token_rule("somebodys-model", "high", max_image_px=9000).fit(4096, 1024) == (2048, 512)


def test_the_longest_match_of_a_name_wins():
    """A vendor in front of the name does not matter, a version that is not known does."""
    assert family_of("gpt-4o-mini-2024-07-18") == family_of("openai/gpt-4o-mini") != family_of("gpt-4o")
    assert family_of("gpt-5.4-mini") != family_of("gpt-5.4")
    assert family_of("gpt-5.9") == family_of("somebodys-model")


def test_models_think_as_little_as_they_can_unless_told_otherwise():
    """Thinking costs time and tokens that a caption does not need."""
    assert effort_of(DEFAULT_MODEL, "auto") == "none"
    assert effort_of("gpt-6.2-sol", "auto") == "low"
    assert effort_of("gpt-4o", "auto") is None
    assert effort_of("gpt-4o", "high") == "high"
    assert effort_of(DEFAULT_MODEL, "default") is None
