"""Prices that nobody knows: a budget in dollars is not begun with them, and people are told."""

from __future__ import annotations

import pytest

from vision_backends import ConfigError, InvalidRequestError, OpenAIBackend, Router
from vision_backends.backends.requests import DescribeRequest
from vision_backends.health.budgets import Limits
from vision_backends.testing import FakeBackend, SandboxServer

DOLLARS = Limits(daily_budget_usd=1.0)

TABLE = """
state = "memory"
ladder = {ladder}
[backends.second]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "mine"
{more}
"""


@pytest.fixture
def configured(tmp_path):
    """A maker of routers with a rung ``second`` whose model is on no list."""
    made = []

    def make(more: str, *, ladder: str = '["second", "embedded"]') -> Router:
        path = tmp_path / "vision.toml"
        path.write_text(TABLE.format(ladder=ladder, more=more), encoding="utf-8")
        made.append(Router.from_config(path))
        return made[-1]

    yield make
    for router in made:
        router.close()


@pytest.mark.parametrize("key", ["daily_budget_usd", "monthly_budget_usd"])
def test_a_budget_in_dollars_is_not_begun_with_a_model_whose_price_is_unknown(configured, key):
    """The message names the model, the budget, and the keys that help."""
    with pytest.raises(ConfigError) as caught:
        configured(f"{key} = 5")
    assert str(caught.value).startswith(f"second.{key} cannot count what 'mine' costs: the price is unknown.")
    for word in ("prices", "[backends.second]", "price = 0", "allow_unpriced = true"):
        assert word in caught.value.remedy


@pytest.mark.parametrize(
    "more",
    [
        "daily_budget_usd = 5\nprices.mine = {input = 1, output = 2}",
        "daily_budget_usd = 5\nprice = 0",
        "daily_budget_usd = 5\nallow_unpriced = true",
        "daily_budget_tokens = 5000",
    ],
)
def test_a_budget_begins_with_a_price_or_with_leave_or_where_it_counts_tokens(configured, more):
    """Whatever the message has named."""
    router = configured(more)
    assert [each.backend for each in router.spending()] == ["second"]


def test_only_what_a_ladder_asks_has_to_have_a_price(configured):
    """No text is ever embedded here."""
    configured(
        'embedding_model = "unknown"\nprices.mine = {input = 1, output = 2}\ndaily_budget_usd = 5',
        ladder='{describe = ["second"], detect = ["second"], embed = ["embedded"], embed_text = ["embedded"]}',
    )


def test_what_is_left_out_for_local_only_needs_no_price(tmp_path):
    """Nothing is sent there."""
    path = tmp_path / "vision.toml"
    text = TABLE.format(ladder='["second", "embedded"]', more="daily_budget_usd = 5")
    path.write_text(f"local_only = true\n{text}", encoding="utf-8")
    Router.from_config(path).close()


def test_a_router_made_in_code_is_as_strict():
    """The same error, by the name of the rung."""
    mine = OpenAIBackend(api_key="sk-x", model="mine").named("second")
    with pytest.raises(ConfigError, match=r"second\.daily_budget_usd cannot count what 'mine' costs"):
        Router([mine, FakeBackend()], limits={"second": DOLLARS})
    Router([mine, FakeBackend()], limits={"second": Limits(daily_budget_usd=1.0, allow_unpriced=True)}).close()


def test_what_a_call_has_chosen_is_the_callers_error():
    """The same check, for whoever lets calls choose a model."""
    with pytest.raises(InvalidRequestError, match="'mine'"):
        DOLLARS.check_priced(OpenAIBackend(model="mine"), [DescribeRequest()], name="openai", error=InvalidRequestError)


def test_leave_that_is_no_leave_is_refused():
    """A word is not true."""
    with pytest.raises(ConfigError, match=r"allow_unpriced='yes' .* is neither true nor false"):
        Limits(allow_unpriced="yes")


def test_a_server_of_ones_own_costs_nothing_once_that_is_said():
    """Until then its cost is unknown, on loopback as anywhere: a proxy may pass pictures on for money."""
    with SandboxServer() as server:
        for price, cost in ((None, None), (0, 0.0), (0.5, pytest.approx(0.0, abs=1.0))):
            backend = OpenAIBackend(base_url=server.url, model="mine", price=price)
            with Router([backend]) as router:
                usage = router.describe(
                    "data:image/gif;base64,R0lGODdhAQABAIAAAP///////ywAAAAAAQABAAACAkQBADs="
                ).trace.usage
                assert usage.cost_usd == cost
                assert usage.input_tokens


def test_an_explanation_names_the_models_whose_price_is_unknown():
    """As does the state of a rung, once for all tasks."""
    with Router([OpenAIBackend(api_key="sk-x", model="mine"), FakeBackend()]) as router:
        assert "The price of mine is unknown." in str(router.explain("describe"))
        best, spare = router.status()
        assert (best.unpriced, spare.unpriced) == (("mine",), ())
        assert best.to_dict()["tasks"]["detect"]["unpriced"] == ["mine"]


@pytest.mark.parametrize(
    ("model", "preset", "base_url", "costs"),
    [
        ("qwen3-vl:4b", "ollama", None, "nothing"),
        ("qwen3-vl:235b-cloud", "ollama", None, "unknown"),
        ("qwen3-vl:4b", "ollama", "http://gpu.test:11434/v1", "unknown"),
        ("qwen3-vl:4b", "litellm", None, "unknown"),
        ("gpt-6-luna", "litellm", None, "something"),
        ("gpt-6-luna", "vllm", None, "nothing"),
    ],
)
def test_a_preset_says_whether_anybody_pays(make_image, model, preset, base_url, costs):
    """A program on this machine costs nothing, a proxy there and a model in a cloud behind it may."""
    backend = OpenAIBackend(preset=preset, model=model, base_url=base_url)
    cost_usd = backend.estimate(DescribeRequest(), [make_image()]).cost_usd
    assert ("unknown" if cost_usd is None else "something" if cost_usd else "nothing") == costs
    assert backend.unpriced(DescribeRequest()) == ([model] if costs == "unknown" else [])
