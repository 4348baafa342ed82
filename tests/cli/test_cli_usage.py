"""``vision usage``: what was asked, answered, missed and spent."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from vision_backends.cli.commands.usage import since_of
from vision_backends.cli.rendering.status import print_budgets
from vision_backends.errors import InvalidRequestError
from vision_backends.health.budgets import Spending

FAKE = "vision_backends.testing.fake:FakeBackend"

NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC).timestamp()


@pytest.fixture
def kept_ladder(fresh_user, monkeypatch, use_ladder):
    """A writer of configurations whose state is kept in a file."""
    monkeypatch.setenv("VISION_STATE", str(fresh_user / "state.sqlite"))
    return use_ladder


def test_each_day_and_model_has_a_row_with_its_calls_tokens_cost_and_misses(vision, kept_ladder, make_photo):
    """The dead rung was asked once, the rung below it answered; the third time the answer was kept."""
    kept_ladder("rungs:Broke", "rungs:Costly")
    for name in ("a.png", "b.png", "b.png"):
        vision("describe", make_photo(name))
    result = vision("usage")
    rows = [line.split() for line in result.stdout.splitlines()]
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert (result.exit_code, result.stderr) == (0, "")
    assert rows[1] == ["day", "model", "calls", "cached", "fallbacks", "tokens", "in", "out", "cost", "mean"]
    assert rows[2] == [today, "broke-model", "1", "0", "0", "0", "0", "$0", "-"]
    assert rows[3][:-2] == [today, "costly-model", "2", "1", "3", "2,400", "60", "$0.5000"]
    assert rows[4][:8] == ["total", "3", "1", "3", "2,400", "60", "$0.5000", rows[3][-2]]
    assert rows[5] == ["Rungs", "that", "did", "not", "answer:", "quota_exhausted", "3"]


def test_an_answer_is_one_fallback_however_many_rungs_are_not_there(vision, kept_ladder, make_photo):
    """A rung that was never asked has no row of its own; that it did not answer is said below."""
    kept_ladder("openai", "local", FAKE)
    vision("describe", make_photo("a.png"), make_photo("b.png"))
    lines = vision("usage").stdout.splitlines()
    assert [line.split()[1:5] for line in lines[2:3]] == [["fake-model", "2", "0", "2"]]
    assert lines[3:] == ["Rungs that did not answer: not_ready 4"]
    (answered,) = [
        total
        for total in map(json.loads, vision("usage", "--json", "--by", "backend").stdout.splitlines())
        if total["calls"]
    ]
    assert (answered["backend"], answered["fallbacks"]) == ("fake", 2)


def test_an_unknown_cost_is_told_apart_from_the_known_part(vision, kept_ladder, make_photo):
    """Never shown as nothing."""
    kept_ladder("rungs:Away", "rungs:Costly")
    vision("describe", make_photo())
    lines = vision("usage", "--by", "backend").stdout.splitlines()
    assert "unknown" in next(line for line in lines if line.startswith("away"))
    assert "≥ $0.2500" in next(line for line in lines if line.startswith("total"))


def test_json_has_a_line_for_each_group(vision, kept_ladder, make_photo):
    """Grouped by whatever is named, in that order."""
    kept_ladder("rungs:Broke", FAKE)
    vision("describe", make_photo())
    result = vision("usage", "--by", "error", "--by", "backend", "--by", "task", "--json")
    first, second = map(json.loads, result.stdout.splitlines())
    assert list(first)[:3] == ["error", "backend", "task"]
    assert (first["error"], first["backend"], first["answered"]) == (None, "fake", 1)
    assert (second["error"], second["backend"], second["errors"]) == (
        "quota_exhausted",
        "broke",
        {"quota_exhausted": 1},
    )


def test_an_empty_ledger_is_said_to_be_empty(vision, kept_ladder):
    """In words for people, in no line for programs."""
    kept_ladder(FAKE)
    result = vision("usage", "--since", "2026-11-01")
    assert (result.exit_code, result.stdout) == (0, "Nothing was asked since 2026-11-01 (UTC).\n")
    assert vision("usage", "--json").stdout == ""


def test_a_state_in_memory_explains_why_nothing_is_known(vision):
    """Each run of the command begins anew."""
    assert 'state = "memory" keeps nothing' in vision("usage").stdout


def test_one_group_alone_needs_no_total(vision, kept_ladder, make_photo):
    """It would be the same line."""
    kept_ladder(FAKE)
    vision("describe", make_photo())
    assert "total" not in vision("usage").stdout


@pytest.mark.usefixtures("patient_calls")
def test_limits_that_rungs_share_have_one_bar(vision, kept_ladder, make_photo):
    """Named as their table; `vision status` shows the same, and `vision reset` says what is spent for each rung."""
    work = 'kind = "rungs:Costly"\naccount = "work"\n'
    more = f"[backends.first]\n{work}[backends.second]\n{work}[accounts.work]\ndaily_budget_usd = 0.5\n"
    kept_ladder("first", "second", FAKE, more=more)
    vision("describe", make_photo())
    bar = ["accounts.work.daily_budget_usd", "[########........]", "50", "%", "$0.25", "of", "$0.50"]
    for command in ("usage", "status"):
        assert bar in [line.split() for line in vision(command).stdout.splitlines()]
    vision("describe", make_photo("b.png"), "--backend", "second")
    for name in ("first", "second"):
        assert "accounts.work.daily_budget_usd = 0.5 is spent" in vision("reset", name).stderr
    assert "is spent" not in vision("reset", "fake").stderr


def test_a_renamed_rung_is_said_to_begin_its_budgets_anew(vision, kept_ladder, make_photo):
    """Where budgets are shown; nobody is told who has none, or whose calls were all booked under names of today."""
    limits = 'kind = "rungs:Costly"\ndaily_budget_usd = 1\n'
    kept_ladder("first", more=f"[backends.first]\n{limits}")
    vision("describe", make_photo())
    assert "renamed" not in vision("usage").stdout
    kept_ladder("second", more=f"[backends.second]\n{limits}")
    said = (
        "first has used $0.25 and 1,230 tokens this month and is not a rung any more. If it was renamed, its own "
        "budgets start at zero under the new name.\n"
    )
    for command in ("usage", "status"):
        assert said in vision(command).stdout
        assert "second.daily_budget_usd  [................]" in vision(command).stdout
    kept_ladder("second", more='backends.second.kind = "rungs:Costly"\n')
    assert "renamed" not in vision("usage").stdout


def test_a_budget_that_was_set_or_renamed_later_says_what_it_leaves_out(vision, kept_ladder, make_photo):
    """An account's as a rung's own; nothing is said of one that has counted everything."""
    work = 'kind = "rungs:Costly"\naccount = "%s"\n'
    kept_ladder("first", more=f"[backends.first]\n{work % 'work'}[accounts.work]\ndaily_budget_usd = 1\n")
    vision("describe", make_photo())
    assert "does not count" not in vision("usage").stdout
    more = f"[backends.first]\n{work % 'desk'}monthly_budget_tokens = 3000\n[accounts.desk]\ndaily_budget_usd = 1\n"
    kept_ladder("first", more=more)
    for command in ("usage", "status"):
        shown = vision(command).stdout
        for said in (
            r"accounts\.desk\.daily_budget_usd does not count \$0\.25 that first used in \d{4}-\d\d-\d\d",
            r"first\.monthly_budget_tokens does not count 1,230 tokens that first used in \d{4}-\d\d",
        ):
            assert re.search(f"^{said} before it was set or got its name\\.$", shown, re.MULTILINE)
    vision("describe", make_photo("b.png"))
    assert "does not count $0.25 that" in vision("usage").stdout


def test_budgets_stand_below_as_bars(vision, kept_ladder, make_photo):
    """Rounded down, so that 100 % means that nothing is left."""
    kept_ladder("rungs:Costly", more='[backends."rungs:Costly"]\ndaily_budget_usd = 1\nmonthly_budget_tokens = 3000\n')
    vision("describe", make_photo())
    shown = vision("usage").stdout
    assert "costly.daily_budget_usd       [####............]   25 %  $0.25 of $1.00" in shown
    assert "costly.monthly_budget_tokens  [######..........]   41 %  1,230 of 3,000 tokens" in shown
    assert "\n\nbudget (in UTC)" in vision("status").stdout
    budgets = json.loads(vision("status", "--json").stdout)["budgets"]
    assert [budget["spent"] for budget in budgets] == [0.25, 1230]


@pytest.mark.parametrize(
    ("spent", "reserved", "bar"),
    [
        (0.0, 0.0, "[................]    0 %"),
        (0.5, 0.25, "[########++++....]   50 %"),
        (0.999, 0.5, "[###############+]   99 %"),
        (3.0, 0.0, "[################]  300 %"),
    ],
)
def test_a_bar_shows_what_is_spent_and_reserved(capsys, spent, reserved, bar):
    """A budget that was lowered may be overspent."""
    made = Spending(
        backend="b", budget="daily_budget_usd", period="2026-11-23", spent=spent, reserved=reserved, limit=1
    )
    print_budgets([made])
    assert " ".join(bar.split()) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "day"), [("1d", "2026-11-23"), ("7d", "2026-11-17"), ("2026-11-01", "2026-11-01"), ("9999d", "1999-07-10")]
)
def test_a_period_begins_at_midnight_of_utc(text, day):
    """Today is the last of so many days."""
    assert since_of(text, now=NOW) == datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["0d", "d", "-1d", "10000d", "2026-13-01", "yesterday", ""])
def test_what_is_no_time_is_refused(text):
    """With the two ways to write one."""
    with pytest.raises(InvalidRequestError, match="7d"):
        since_of(text, now=NOW)


@pytest.mark.parametrize("options", [["--by", "colour"], ["--since", "yesterday"]])
def test_an_option_without_meaning_is_a_usage_error(vision, options):
    """Exit code 2."""
    result = vision("usage", *options)
    assert result.exit_code == 2
    assert options[1] in result.stderr


def test_a_date_is_not_broken_into_lines_at_a_narrow_terminal(
    vision_at_terminal, monkeypatch, kept_ladder, vision, make_photo
):
    """The model's name is."""
    kept_ladder("rungs:Costly")
    vision("describe", make_photo())
    monkeypatch.setenv("COLUMNS", "80")
    _, screen = vision_at_terminal("usage")
    assert f"{datetime.now(UTC):%Y-%m-%d}" in screen
    assert "1,200" in screen
    assert max(map(len, screen.splitlines())) <= 80
