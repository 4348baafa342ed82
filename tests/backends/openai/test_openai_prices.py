"""What tokens cost, and how they are counted."""

from __future__ import annotations

import datetime as dt
import tomllib
from functools import reduce
from importlib import resources
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.backends.openai.models import (
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_MODEL,
)
from vision_backends.backends.openai.prices import (
    VENDORS,
    Price,
    PriceList,
    Tokens,
    most_tokens,
    read_tokens,
    split_usage,
)
from vision_backends.errors import ConfigError
from vision_backends.types import Usage


def test_every_shipped_price_is_dated_and_has_a_source():
    """A price is a fact of a day that somebody can check."""
    text = resources.files("vision_backends.backends.openai").joinpath("prices.toml").read_text("utf-8")
    tables = tomllib.loads(text)
    assert {DEFAULT_MODEL, DEFAULT_EMBEDDING_MODEL} <= set(tables["openai"])
    makers = {name: rows for name, rows in tables.items() if name != "servers"}
    assert makers.keys() <= VENDORS
    for row in [row for rows in (*makers.values(), *tables["servers"].values()) for row in rows.values()]:
        assert row["source"].startswith("https://")
        assert isinstance(row["seen"], dt.date)
        assert row["input"] >= row.get("cached_input", 0)


def test_tokens_from_the_cache_are_cheaper_and_those_written_to_it_dearer():
    """Input splits into plain, cached and written tokens."""
    price = Price(input=1.0, output=10.0, cached_input=0.1, cache_write=1.25)
    tokens = Tokens(input=1_000_000, output=100_000, cached=400_000, written=200_000)
    assert price.cost_usd(tokens) == pytest.approx(0.4 * 1.0 + 0.4 * 0.1 + 0.2 * 1.25 + 0.1 * 10.0)


def test_what_has_no_price_of_its_own_costs_the_full_input():
    """Costs are not guessed downwards."""
    assert Price(input=2.0, output=0.0).cost_usd(Tokens(input=1_000_000, cached=500_000)) == pytest.approx(2.0)


def test_an_unknown_model_has_an_unknown_cost():
    """None, not 0; the tokens are known all the same."""
    usage = PriceList.load().usage("somebodys-model", Tokens(input=10, output=5))
    assert usage == Usage(input_tokens=10, output_tokens=5, cost_usd=None)


def test_a_reply_without_usage_has_an_unknown_usage():
    """Some servers count nothing."""
    assert PriceList.load().usage(DEFAULT_MODEL, None) == Usage()


def test_a_dated_snapshot_costs_what_its_model_does():
    """The name of a snapshot ends with its date."""
    prices = PriceList.load()
    assert prices.of(f"{DEFAULT_MODEL}-2026-09-22") == prices.of(DEFAULT_MODEL) is not None
    assert prices.of(f"{DEFAULT_MODEL}-mini") is None


@pytest.mark.parametrize(
    "name",
    [
        *("openai/gpt-6-luna", "azure/gpt-6-luna", "openrouter/openai/gpt-6-luna", "openai/gpt-6-luna-2026-09-22"),
        "gpt-6-luna-20260922",
    ],
)
def test_a_makers_model_costs_the_same_under_each_name_that_it_is_sold_by(name):
    """As OpenRouter, Azure and LiteLLM write it, with and without a date."""
    prices = PriceList.load()
    assert prices.of(name) == prices.of("gpt-6-luna") is not None
    own = PriceList.load({"gpt-6-luna": {"input": 9, "output": 9}})
    assert own.of(name) == Price(input=9, output=9)


@pytest.mark.parametrize("name", ["somebody/gpt-6-luna", "gpt-6-luna/tuned", "openai/gpt-oss-20b", "openai/", "openai"])
def test_a_model_that_is_only_named_alike_has_an_unknown_cost(name):
    """What somebody has made of a model may cost anything."""
    assert PriceList.load().of(name) is None


def test_the_price_of_open_weights_is_that_of_one_server():
    """Each asks for them what it likes."""
    model = "moonshotai/Kimi-K2.6"
    assert PriceList.load(host="api.together.xyz:443").of(model) == PriceList.load(host="api.together.ai").of(model)
    assert PriceList.load(host="api.together.ai").of(model) == Price(input=1.2, output=4.5, cached_input=0.2)
    assert PriceList.load(host="openrouter.ai").of(model) is None
    assert PriceList.load().of(model) is None


def test_one_price_for_all_models_of_a_server_wins_over_the_list_and_loses_to_a_models_own():
    """Nobody pays for a server of one's own, except where it passes something on."""
    prices = PriceList.load({"dear": {"input": 1, "output": 2}}, flat=0)
    assert prices.usage("anything", Tokens(input=1000, output=10)).cost_usd == 0
    assert prices.of(DEFAULT_MODEL) == Price(input=0, output=0)
    assert prices.of("dear") == Price(input=1, output=2)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_one_price_that_makes_no_sense_is_refused(value):
    """Neither for all models nor for one."""
    with pytest.raises(ConfigError, match="price"):
        PriceList.load(flat=value)
    with pytest.raises(ConfigError, match="price"):
        PriceList.load({"mine": {"input": value, "output": 1}})


def test_the_users_prices_win():
    """Whoever has a contract or another server knows better."""
    prices = PriceList.load({"mine": {"input": 0.1, "output": 0.4}, DEFAULT_MODEL: {"input": 9, "output": 9}})
    assert prices.of("mine") == Price(input=0.1, output=0.4)
    assert prices.of(DEFAULT_MODEL) == Price(input=9, output=9)


@pytest.mark.parametrize("row", [{"input": 1.0}, {"input": 1, "output": 2, "images": 3}, {"input": -1, "output": 2}])
def test_a_price_that_makes_no_sense_is_refused(row):
    """The message names the model."""
    with pytest.raises(ConfigError, match="'mine'"):
        PriceList.load({"mine": row})


def test_an_estimate_takes_input_at_its_dearest():
    """The budget is checked against what the call may cost at most."""
    prices = PriceList.load({"mine": {"input": 1.0, "output": 2.0, "cache_write": 1.5, "cached_input": 0.1}})
    assert prices.usage("mine", Tokens(input=1_000_000), at_most=True).cost_usd == pytest.approx(1.5)
    assert prices.usage("mine", Tokens(input=1_000_000)).cost_usd == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, Tokens(input=7, output=3)),
        ({"prompt_tokens": 7, "total_tokens": 7}, Tokens(input=7)),
        (
            {
                "input_tokens": 9,
                "output_tokens": 1,
                "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
            },
            Tokens(input=9, output=1, cached=4, written=2),
        ),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": None}}, Tokens(input=9)),
        ({"prompt_tokens": 9, "prompt_tokens_details": "none"}, Tokens(input=9)),
        ({"prompt_tokens": 9.0, "completion_tokens": 2.0}, Tokens(input=9, output=2)),
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 610}, Tokens(input=100, output=510)),
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 50}, Tokens(input=100, output=10)),
        (
            {"prompt_tokens": 100, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 500}},
            Tokens(input=100, output=510),
        ),
        (
            {"input_tokens": 100, "output_tokens": 600, "output_tokens_details": {"reasoning_tokens": 500}},
            Tokens(input=100, output=600),
        ),
        ({"prompt_tokens": 9, "reasoning_tokens": 5, "total_tokens": 9}, Tokens(input=9, output=5)),
        ({"completion_tokens": 10, "total_tokens": 110}, Tokens(input=100, output=10)),
        ({"total_tokens": 110}, Tokens(input=110)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 90}}, Tokens(input=9)),
        (
            {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 50}},
            Tokens(input=9, written=9),
        ),
        ({"prompt_tokens": float("nan")}, None),
        ({"prompt_tokens": "9"}, None),
        ({"prompt_tokens": -1}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
def test_usage_is_read_from_either_api(usage, tokens):
    """What makes no sense is unknown; totals are believed, and parts never make them cheaper."""
    assert read_tokens(usage) == tokens


COUNT = st.none() | st.integers(0, 1000)


@given(COUNT, COUNT, COUNT, COUNT, COUNT)
def test_no_part_makes_a_total_cheaper(sent, received, total, thinking, cached):
    """Every token that any number of a usage speaks of is billed."""
    tokens = read_tokens(
        {
            "prompt_tokens": sent,
            "completion_tokens": received,
            "total_tokens": total,
            "completion_tokens_details": {"reasoning_tokens": thinking},
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    )
    if tokens is None:
        assert (sent, total) == (None, None)
    else:
        assert tokens.input + tokens.output >= max(total or 0, (sent or 0) + (received or 0), thinking or 0)
        assert tokens.cached + tokens.written <= tokens.input


def test_counts_of_one_stream_never_fall():
    """Servers count as they go, or end with zeros."""
    first, last = Tokens(input=90, output=5, cached=4), Tokens(input=0, output=7)
    assert most_tokens(first, last) == most_tokens(last, first) == Tokens(input=90, output=7, cached=4)
    assert most_tokens(None, last) == most_tokens(last, None) == last


def test_a_stream_is_billed_what_it_has_counted_at_most():
    """Not its first count, nor its last."""
    events = [{"usage": {"prompt_tokens": n, "completion_tokens": m}} for n, m in ((9, 1), (9, 5), (0, 0))]
    assert PriceList({}).billed("m", [*events, {"response": {"usage": None}}]) == Usage(input_tokens=9, output_tokens=5)
    assert PriceList({}).billed("m", [{}]) == Usage()


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 50))
def test_the_parts_of_a_batch_add_up_to_its_usage(sent, received, parts):
    """The ledger sums what single answers say."""
    usage = Usage(input_tokens=sent, output_tokens=received, cost_usd=sent / 1e6)
    shares = split_usage(usage, parts)
    total = reduce(add, shares)
    assert len(shares) == parts
    assert (total.input_tokens, total.output_tokens) == (sent, received)
    assert total.cost_usd == pytest.approx(usage.cost_usd)


def test_an_unknown_usage_stays_unknown_in_its_parts():
    """Half of unknown is unknown."""
    assert split_usage(Usage(), 2) == [Usage(), Usage()]
