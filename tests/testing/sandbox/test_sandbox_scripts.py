"""Scripts, chaos and what is recorded of them."""

from __future__ import annotations

import json
from dataclasses import replace

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_backends.testing.sandbox import FAULTS, HEALTHY, Chaos, Fault, Script, Step
from vision_backends.testing.sandbox.fault_table import dump_fault, parse_fault
from vision_backends.testing.sandbox.player import Player
from vision_backends.testing.sandbox.script import parse_plan

CHAT = "/v1/chat/completions"


def _played(player, count, path=CHAT, model="m"):
    return [player.next(path, model).name for _ in range(count)]


def test_a_script_plays_its_steps_in_order_and_then_nothing():
    """Healthy steps are steps too."""
    player = Player()
    player.play(Script.of(("healthy", 2), ("quota_gone", 3), "server_error"))
    assert _played(player, 8) == ["healthy"] * 2 + ["quota_gone"] * 3 + ["server_error"] + ["healthy"] * 2


def test_a_script_can_repeat_or_end_with_a_step_for_ever():
    """``repeat`` begins again; ``None`` never ends."""
    player = Player()
    player.play(Script.of("healthy", "slow_down", repeat=True))
    assert _played(player, 4) == ["healthy", "slow_down"] * 2
    player.play(Script.of(("overloaded", None)))
    assert _played(player, 50) == ["overloaded"] * 50


def test_an_empty_script_plays_nothing():
    """And is gone after the first request."""
    player = Player()
    player.play(Script(()))
    assert _played(player, 2) == ["healthy"] * 2


def test_the_newest_plan_comes_first_and_the_one_before_goes_on():
    """Plans lie on a stack; a plan that has run out is gone."""
    player = Player()
    player.play(parse_plan("quota_gone"))
    player.play(parse_plan("server_error", times=2))
    assert _played(player, 4) == ["server_error"] * 2 + ["quota_gone"] * 2
    player.heal()
    assert _played(player, 1) == ["healthy"]


def test_a_step_waits_for_a_request_that_it_matches():
    """Requests for something else leave it, and fall to the plan beneath."""
    player = Player()
    player.play(parse_plan("overloaded"))
    player.play(Script.of(replace(FAULTS["quota_gone"], paths=("/v1/embeddings",))))
    assert _played(player, 2) == ["overloaded"] * 2
    assert _played(player, 2, path="/v1/embeddings") == ["quota_gone", "overloaded"]


def test_what_was_played_is_recorded_and_replays_the_same():
    """A recording is a script, and plays the same faults to the same requests."""
    player, again = Player(), Player()
    player.play(Chaos(seed=7, rate=0.5))
    first = _played(player, 200)
    again.play(player.recorded())
    assert _played(again, 200) == first
    assert sum(step.times for step in player.recorded().steps) == 200


@given(seed=st.integers(), index=st.integers(0, 10_000), rate=st.floats(0, 1))
@settings(max_examples=50)
def test_chaos_is_a_function_of_seed_and_index(seed, index, rate):
    """The order in which requests come plays no part."""
    assert Chaos(seed=seed, rate=rate).fault_at(index) is Chaos(seed=seed, rate=rate).fault_at(index)


def test_chaos_keeps_its_rate_and_uses_the_whole_table():
    """At 1 every request meets a fault, and each fault has its turn."""
    names = {step.fault.name for step in Chaos(rate=1.0).script(3000).steps}
    assert names == set(FAULTS) - {"healthy"}
    assert {step.fault for step in Chaos(rate=0.0).script(50).steps if step.fault is not HEALTHY} == set()
    hit = sum(step.fault is not HEALTHY for step in Chaos(rate=0.2).script(2000).steps)
    assert 340 < hit < 460


def test_chaos_of_one_seed_is_pinned():
    """The choices stay the same from version to version, so that a recorded seed keeps its meaning."""
    chaos = Chaos(seed=1, rate=0.5, faults=("quota_gone", "overloaded", "stall"))
    names = [chaos.fault_at(index).name for index in range(8)]
    assert names == ["healthy", "healthy", "quota_gone", "overloaded", *["healthy"] * 4]


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_goes_to_json_and_back(name):
    """By its name alone, or with what was changed."""
    assert json.loads(json.dumps(dump_fault(FAULTS[name]))) == name
    changed = replace(FAULTS[name], delay_s=0.5, paths=("/v1/embeddings",), headers={"a": "b", "c": None})
    assert parse_fault(json.loads(json.dumps(dump_fault(changed)))) == changed


def test_a_new_fault_goes_to_json_and_back():
    """Also one that the table does not know."""
    fault = Fault(name="mine", status=599, body={"error": None}, sends="half", then="close")
    assert parse_fault(json.loads(json.dumps(dump_fault(fault)))) == fault
    assert parse_fault({"status": 500}) == Fault(status=500)


def test_scripts_are_saved_and_loaded(tmp_path):
    """A file holds the whole script, times, order and changed faults."""
    script = Script.of(("healthy", 10), (replace(FAULTS["slow"], delay_s=0.1), None), repeat=True)
    script.save(tmp_path / "script.json")
    assert Script.load(tmp_path / "script.json") == script


def test_plans_are_read_from_json():
    """Names, objects, steps in short and chaos."""
    assert parse_plan("slow", times=2) == Script((Step(FAULTS["slow"], 2),))
    assert parse_plan({"name": "slow", "delay_s": 2}) == Script((Step(replace(FAULTS["slow"], delay_s=2), None),))
    assert parse_plan({"steps": ["slow", {"play": "stall", "times": 3}]}) == Script.of("slow", ("stall", 3))
    chaos = Chaos(seed=3, rate=0.1, faults=("stall",))
    assert parse_plan(json.loads(json.dumps(chaos.to_dict()))) == chaos
    assert parse_plan(chaos) is chaos


@pytest.mark.parametrize(
    "wrong",
    [
        "no_such_fault",
        3,
        None,
        {"nme": "slow"},
        {"name": "slow", "delay_s": "long"},
        {"steps": 3},
        {"steps": [{"play": "slow", "times": 0}]},
        {"steps": ["no_such_fault"]},
        {"seed": 1, "rate": 2},
        {"seed": 1, "speed": 2},
        {"seed": 1, "faults": []},
    ],
)
def test_what_is_no_plan_is_refused(wrong):
    """With a sentence that names the value."""
    with pytest.raises(ValueError, match=r"."):
        parse_plan(wrong)


def test_a_script_is_what_the_sdk_meets(server, call):
    """Over the wire: healthy, two dead, healthy again."""
    server.play(Script.of("healthy", ("quota_gone", 2)))
    call.chat()
    for _ in range(2):
        with pytest.raises(openai.RateLimitError):
            call.chat()
    call.chat()
    assert [request.fault for request in server.requests] == ["healthy", "quota_gone", "quota_gone", "healthy"]
    assert server.recorded == Script.of("healthy", ("quota_gone", 2), "healthy")
