"""Where people look, they are told of prices that nobody knows."""

from __future__ import annotations

import json

import pytest

from vision_backends.testing import SandboxServer

UNKNOWN = "second: the price of mine is unknown, and so is"
REMEDY = "Set prices in [backends.second] (USD per million tokens), or price = 0 there if it costs nothing"


@pytest.fixture
def use_unpriced(fresh_user, monkeypatch, use_ladder):
    """A writer of configurations whose best rung is a server with a model that is on no list."""
    monkeypatch.setenv("VISION_STATE", str(fresh_user / "state.sqlite"))
    with SandboxServer() as server:

        def use(more: str = "") -> None:
            table = f'[backends.second]\nkind = "openai"\nbase_url = "{server.url}"\nmodel = "mine"\n{more}\n'
            use_ladder("second", "embedded", more=table)

        yield use


def test_it_is_said_once_on_standard_error_however_many_images_there_are(vision, use_unpriced, make_photo):
    """Before anything is sent, and not among the answers."""
    use_unpriced()
    photos = [make_photo("a.png"), make_photo("b.png")]
    for options in ([], ["--json"]):
        result = vision("describe", *photos, *options)
        assert result.stderr.count(f"vision: {UNKNOWN} its cost. {REMEDY}.\n") == 1
        assert "price of" not in result.stdout
    assert UNKNOWN not in vision("describe", *photos, "--local-only").stderr


@pytest.mark.parametrize("more", ["price = 0", "prices.mine = {input = 1, output = 2}"])
def test_nothing_is_said_of_a_price_that_is_known(vision, use_unpriced, make_photo, more):
    """Also if it is nothing."""
    use_unpriced(more)
    told = [vision("describe", make_photo()).stderr, *(vision(name).stdout for name in ("status", "doctor", "usage"))]
    assert not any("price of" in text or "unknown" in text for text in told)


def test_status_and_doctor_name_the_model_and_the_key_to_set(vision, use_unpriced):
    """Doctor without calling it a fault."""
    use_unpriced()
    assert f"{UNKNOWN} its cost.\n  → {REMEDY}\n" in vision("status").stdout
    (tasks,) = (rung["tasks"] for rung in json.loads(vision("status", "--json").stdout)["rungs"][:1])
    assert tasks["describe"]["unpriced"] == ["mine"]
    result = vision("doctor", "--json")
    (check,) = (check for check in json.loads(result.stdout)["checks"] if check["name"] == "price of second")
    assert (check["state"], check["remedy"], result.exit_code) == ("missing", REMEDY, 0)
    assert "unknown for mine" in check["detail"]


def test_usage_says_why_a_cost_is_unknown(vision, use_unpriced, make_photo):
    """Only where something was asked."""
    use_unpriced()
    assert UNKNOWN not in vision("usage").stdout
    vision("describe", make_photo())
    assert f"{UNKNOWN} what its calls have cost.\n  → {REMEDY}\n" in vision("usage").stdout


def test_a_budget_that_cannot_count_is_a_broken_configuration(vision, use_unpriced, make_photo):
    """Every command says which key helps."""
    use_unpriced("daily_budget_usd = 1")
    words = "second.daily_budget_usd cannot count what 'mine' costs"
    assert words in vision("describe", make_photo()).stderr
    assert words in vision("doctor").stdout
    use_unpriced("daily_budget_usd = 1\nallow_unpriced = true")
    assert vision("describe", make_photo()).exit_code == 0
