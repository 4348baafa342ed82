"""A run's file is whole at any moment, and a run that was cut off knows what it has done and paid."""

from __future__ import annotations

import json

import pytest

from benchmarks.records import Contestant, QualityResult
from benchmarks.run_file import BudgetReached, RunFile, read_run
from vision_backends import InvalidRequestError


def result(answered):
    """A result of one rung."""
    contestant = Contestant(backend="embedded", task="detect")
    return QualityResult(contestant=contestant, dataset="own", images=4, answered=answered)


def test_what_was_noted_is_there_after_a_kill(make_plan, open_run_file):
    """Also the money; a line that was cut off is as if it had not been asked."""
    plan = make_plan()
    run_file = open_run_file(plan)
    run_file.note("a", {"text": "one\u2028line"}, usd=0.25)
    run_file.spend(0.5)
    partial = run_file.path.with_suffix(".partial.jsonl")
    with partial.open("a") as file:
        file.write('{"key": "b", "val')
    again = open_run_file(plan)
    assert again.recall("a") == {"text": "one\u2028line"}
    assert not again.done("b")
    assert again.spent_usd == 0.75
    again.note("b", 2)
    assert open_run_file(plan).recall("b") == 2


def test_a_result_is_replaced_by_the_same_measured_again(make_plan, open_run_file):
    """A resumed run has no rung twice."""
    run_file = open_run_file(make_plan())
    run_file.add_quality(result(1))
    run_file.add_quality(result(4))
    assert [each.answered for each in read_run(run_file.path).quality] == [4]


def test_a_finished_run_leaves_only_its_file(make_plan, open_run_file):
    """And cannot be resumed."""
    run_file = open_run_file(make_plan())
    run_file.note("a", 1)
    run_file.finish()
    assert {path.name for path in run_file.path.parent.glob("run*")} == {"run.json"}
    assert read_run(run_file.path).finished_at
    with pytest.raises(InvalidRequestError, match="is finished"):
        RunFile.resume(run_file.path)


def test_nothing_is_asked_once_the_budget_is_spent(make_plan, open_run_file):
    """Also in a run that was resumed."""
    run_file = open_run_file(make_plan(budget_usd=1.0))
    run_file.check_budget()
    assert run_file.left_usd == 1.0
    with pytest.raises(BudgetReached, match=r"budget of \$1 is spent"):
        run_file.spend(1.0)
    with pytest.raises(BudgetReached):
        open_run_file(make_plan()).check_budget()


def test_a_file_that_is_there_is_not_overwritten(make_plan, open_run_file):
    """A run may have cost money."""
    plan = make_plan()
    run_file = open_run_file(plan)
    with pytest.raises(InvalidRequestError, match="already exists"):
        RunFile.begin(run_file.path, plan, command=[], configuration={})


@pytest.mark.parametrize("text", ["no JSON", "{}", json.dumps({"version": "vision-backends-benchmark/2"})])
def test_what_is_no_run_is_said(tmp_path, text):
    """By the name of the file."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=r"other\.json"):
        read_run(path)


def test_a_run_holds_no_secret(make_plan, open_run_file):
    """Neither the plan's settings nor anything else carries the key along."""
    plan = make_plan('[openai]\napi_key = "sk-very-secret"\n', backends=("openai",))
    assert "sk-very-secret" not in open_run_file(plan).path.read_text()
    assert "sk-very-secret" not in repr(plan)
