"""Gates on the command line: ``vision reset``, and what ``status`` and ``doctor`` say of them."""

from __future__ import annotations

import json
import time

import pytest

from vision_backends.cli.rendering.status import print_gates
from vision_backends.health.policy import GateReport

FAKE = "vision_backends.testing.fake:FakeBackend"


@pytest.fixture
def broke(fresh_user, monkeypatch, use_ladder, vision, make_photo):
    """A ladder whose best rung has just been found without quota."""
    monkeypatch.setenv("VISION_STATE", str(fresh_user / "state.sqlite"))
    use_ladder("rungs:Broke", FAKE)
    assert vision("describe", make_photo()).exit_code == 0


@pytest.mark.usefixtures("broke")
def test_reset_lets_gates_pass_and_says_which(vision):
    """The next call asks the backend again; a second reset has nothing to do."""
    first, second = vision("reset", "broke"), vision("reset", "broke")
    assert (first.exit_code, first.stdout) == (0, "broke: reset the quota gate (insufficient_quota)\n")
    assert (second.exit_code, second.stdout) == (0, "No gate of broke is blocked.\n")


@pytest.mark.usefixtures("broke")
def test_reset_of_another_backend_leaves_the_gate_blocked(vision):
    """Without a name all of them are reset."""
    assert vision("reset", "fake").stdout == "No gate of fake is blocked.\n"
    assert vision("reset").stdout == "broke: reset the quota gate (insufficient_quota)\n"
    assert vision("reset").stdout == "No gate is blocked.\n"


@pytest.mark.usefixtures("broke")
def test_a_backend_that_has_left_the_ladder_can_still_be_reset(vision, use_ladder):
    """Its gate may be older than the configuration."""
    use_ladder(FAKE)
    assert "reset the quota gate" in vision("reset", "broke").stdout


def test_reset_of_an_unknown_backend_names_those_that_exist(vision, use_ladder):
    """A usage error."""
    use_ladder("rungs:Blind", FAKE)
    result = vision("reset", "brok")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "vision: There is no backend 'brok'. There are: blind, fake.\n"


def test_reset_says_that_a_spent_budget_stays_spent(vision, fresh_user, monkeypatch, use_ladder, make_photo):
    """Otherwise somebody waits for a backend that is not asked."""
    monkeypatch.setenv("VISION_STATE", str(fresh_user / "state.sqlite"))
    use_ladder("rungs:Costly", more='[backends."rungs:Costly"]\ndaily_budget_usd = 0.1\n')
    vision("describe", make_photo())
    result = vision("reset", "costly")
    assert (result.exit_code, result.stdout) == (0, "No gate of costly is blocked.\n")
    assert result.stderr.startswith("vision: costly.daily_budget_usd = 0.1 is spent for ")
    assert "raise it in vision.toml" in result.stderr


@pytest.mark.usefixtures("broke")
def test_status_shows_a_blocked_gate(vision):
    """With the time of its next probe; for programs all of it."""
    lines = vision("status").stdout.splitlines()
    place = lines.index("gate   blocked by  since (UTC)       next probe")
    assert lines[place - 1] == ""
    assert lines[place + 1].startswith("broke  quota       ")
    assert lines[place + 1].endswith(" in 15 min")
    (gate,) = json.loads(vision("status", "--json").stdout)["gates"]
    assert (gate["backend"], gate["gate"], gate["state"]) == ("broke", "quota", "blocked")


@pytest.mark.usefixtures("broke")
def test_doctor_names_the_command_that_mends_an_empty_account(vision):
    """It is no fault of the installation, as long as somebody answers."""
    result = vision("doctor")
    assert result.exit_code == 0
    assert "blocked  account of broke  " in result.stdout
    assert "→ Top up the account, then run `vision reset broke`." in result.stdout


def test_doctor_leaves_out_gates_that_pass_by_themselves(vision, fresh_user, monkeypatch, use_ladder, make_photo):
    """A rate limit is over before anybody has read about it."""
    monkeypatch.setenv("VISION_STATE", str(fresh_user / "state.sqlite"))
    use_ladder("rungs:Hasty", FAKE)
    vision("describe", make_photo())
    assert "hasty" in vision("status").stdout.split("blocked by")[1]
    assert "account of" not in vision("doctor").stdout


@pytest.mark.parametrize(
    ("until_s", "state", "said"),
    [(100, "blocked", "in 100 s"), (-1, "blocked", "with the next call"), (-1, "probing", "running")],
)
def test_a_gate_says_when_it_is_probed(capsys, until_s, state, said):
    """Before its time, when it is due, and while somebody tries."""
    report = GateReport(
        backend="b",
        model="m",
        task="describe",
        gate="rate",
        state=state,
        since=0.0,
        until=time.time() + until_s,
        message="",
        remedy=None,
    )
    print_gates([report])
    row = capsys.readouterr().out.splitlines()[1]
    assert row.startswith("b/m/describe  rate        1970-01-01 00:00  ")
    assert row.endswith(said)
