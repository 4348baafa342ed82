"""A short day: who answers and how many requests leave the machine is counted; how long it takes is not."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.day import measure
from benchmarks.day.scenario import CALLS_PER_S, LOWER, SIGNED, UPPER, Scenario, answer_of, cost_usd, who_said
from benchmarks.day.summary import phases_of, points_of
from benchmarks.day.visit import Visit, Visitor, visit
from benchmarks.peers.libraries import LIBRARIES
from benchmarks.plan import Plan, settings_to_measure
from benchmarks.run_file import RunFile
from benchmarks.sandbox_process import RemoteSandbox, client_environment
from vision_backends import UnavailableError

DAY_S = 5.0


@pytest.fixture
def run_file(tmp_path):
    """A run file for a day of a few seconds."""
    settings, _ = settings_to_measure(None, backends=("embedded",))
    plan = Plan(parts=("failover",), backends=("embedded",), settings=settings, day_s=DAY_S)
    made = RunFile.begin(tmp_path / "run.json", plan, command=("failover",), configuration={})
    made.plan = plan
    return made


def test_the_package_comes_through_the_day(run_file):
    """All calls are answered; a server in trouble is left in peace, and asked again when it has recovered."""
    measure(run_file.plan, run_file)
    (result,) = run_file.run.failover
    phases = {phase.name: phase for phase in result.phases}
    assert list(phases) == ["healthy", "rate limits", "quota gone", "recovery"]
    assert sum(phase.calls for phase in result.phases) == len(result.calls) == DAY_S * CALLS_PER_S
    assert not any("nobody" in phase.answered_by for phase in result.phases)
    assert all(sum(phase.answered_by.values()) == phase.calls for phase in result.phases)
    healthy, quota = phases["healthy"], phases["quota gone"]
    late = 1  # so many calls a busy machine may hold back until the next part has begun
    assert healthy.answered_by["openai"] >= healthy.calls - late
    assert healthy.wire_requests >= healthy.calls - late
    assert quota.wire_requests <= 1 + late
    assert quota.answered_by["embedded"] >= quota.calls - late
    assert sum(phase.wire_requests for phase in result.phases) < len(result.calls)
    assert phases["recovery"].answered_by["openai"] > 0
    assert phases["recovery"].wire_requests >= phases["recovery"].answered_by["openai"]
    assert healthy.cost_usd == pytest.approx(healthy.calls * (1100 * 0.10 + 60 * 0.50) / 1e6)
    assert "embedded" in result.settings
    assert result.lateness.max_s == max(call.late_s for call in result.calls)
    assert 0 < result.lateness.p50_s <= result.lateness.p99_s <= result.lateness.max_s
    assert result.lateness.turns_max_s > 0


def test_a_resumed_day_is_not_played_again(run_file):
    """Who has come through is in the file."""
    run_file.note("day/vision-backends/embedded", value=True)
    measure(run_file.plan, run_file)
    assert run_file.run.failover == ()


def test_a_library_that_does_not_get_through_says_what_it_said_last(tmp_path):
    """Its process ends, and so does the wait for it."""
    scenario = Scenario(day_s=1.0)
    visitor = Visitor(
        python=Path(sys.executable),
        folder=tmp_path,
        module="ask_nobody",
        settings="best",
        distribution="nobody",
        cooldown_s=1.0,
        is_fast=False,
    )
    with RemoteSandbox.started() as server, pytest.raises(UnavailableError, match=r"ask_nobody"):
        visit(visitor, scenario, server, server, tmp_path / "picture.png")


@pytest.mark.parametrize("day_s", [1.0, 30.0, 60.0])
def test_the_hour_is_played_in_the_seconds_of_the_day(day_s):
    """Its parts follow one another without a gap, and the last ends with it."""
    stretches = Scenario(day_s=day_s).stretches
    assert stretches[0].starts_s == 0
    assert stretches[-1].ends_s == pytest.approx(day_s)
    assert all(before.ends_s == after.starts_s for before, after in pairwise(stretches))


@pytest.mark.parametrize(("is_fast", "seconds_to_wait"), [(False, 1.0), (True, 120.0)])
def test_a_limited_server_says_truly_when_to_come_back(is_fast, seconds_to_wait):
    """In the seconds of the caller's clock; of a window of a second and a half it is closed for one."""
    scenario = Scenario(day_s=30.0)
    turns = list(scenario.turns(is_fast=is_fast))
    assert [turn.at_s for turn in turns] == sorted(turn.at_s for turn in turns)
    hints_ms = [int(turn.fault["headers"]["retry-after-ms"]) for turn in turns if turn.fault["name"] == "rate_limited"]
    assert hints_ms[0] == pytest.approx(seconds_to_wait * 1000, abs=1)
    assert hints_ms[:4] == sorted(hints_ms[:4], reverse=True)
    opens = [turn.at_s for turn in turns if turn.fault["name"] == "healthy"]
    limited = next(turn for turn in turns if turn.fault["name"] == "rate_limited")
    assert limited.at_s + 1.0 == pytest.approx(opens[2])


def test_each_server_says_who_it_is():
    """A text that no server has said is the embedded rung's; only servers cost money."""
    texts = [answer_of(server)["body"]["choices"][0]["message"]["content"] for server in (UPPER, LOWER)]
    assert [who_said(text) for text in [f"TextPart({texts[0]!r})", texts[1], "A ramp of greys."]] == [
        "openai",
        "second server",
        "embedded",
    ]
    assert cost_usd({"embedded": 5, "nobody": 1}) == 0
    assert cost_usd({"openai": 1, "second server": 1}) == pytest.approx(2 * cost_usd({"openai": 1}))


def test_calls_belong_to_the_part_in_which_they_were_due():
    """However late they ended; a part without calls has no percentiles, and is left out."""
    scenario = Scenario(day_s=10.0)
    calls = [
        {"at_s": 0.5, "late_s": 0.0, "elapsed_s": 9.0, "text": SIGNED.format(UPPER)},
        {"at_s": 1.5, "late_s": 0.1, "elapsed_s": 0.1, "error": "APIError"},
        {"at_s": 6.0, "late_s": 0.2, "elapsed_s": 0.2, "text": "grey"},
    ]
    made = Visit(version="1", calls=calls, wire_requests=[2, 0, 0, 1], turns_late_s=0.0)
    first, last = phases_of(made, scenario)
    assert (first.name, first.answered_by, first.wire_requests) == ("healthy", {"openai": 1, "nobody": 1}, 2)
    assert (last.name, last.answered_by, last.wire_requests) == ("recovery", {"embedded": 1}, 1)
    assert [(point.backend, point.error) for point in points_of(made, scenario)] == [
        ("openai", None),
        (None, "APIError"),
        ("embedded", None),
    ]


def test_each_peer_has_an_environment_of_its_own(tmp_path):
    """This package runs in the present one; what a registry calls a library tells its version."""
    pythons = [library.python(tmp_path) for library in LIBRARIES]
    assert pythons[0] == Path(sys.executable)
    assert len(set(pythons)) == len(LIBRARIES)
    assert [library.distribution for library in LIBRARIES][:3] == ["vision-backends", "litellm", "pydantic-ai-slim"]


def test_a_second_server_can_stand_below_the_first(photos):
    """The module that lets this package call does so with either; here in a process as the day has it."""
    folder = Path(sys.modules["benchmarks.day"].__file__).parent
    program = (
        "import sys, json; from ask_ladder import make; image = open(sys.argv[1], 'rb').read()\n"
        "ladder = make('second', *sys.argv[2:], 900.0); print(json.dumps([ladder.ask(image) for _ in range(2)]))"
    )
    with RemoteSandbox.started() as upper, RemoteSandbox.started() as lower:
        upper.play("quota_gone")
        lower.play(answer_of(LOWER))
        run = subprocess.run(
            [sys.executable, "-c", program, str(photos / "cat.jpg"), upper.url, lower.url],
            env=client_environment(),
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert [who_said(text) for text in json.loads(run.stdout)] == ["second server"] * 2
        assert (upper.count(), lower.count()) == (1, 2)
