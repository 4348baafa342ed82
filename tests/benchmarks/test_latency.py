"""What is timed is counted right; how long anything takes is no business of a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from benchmarks.datasets import Photo
from benchmarks.latency import measure
from benchmarks.latency.stage import staged
from benchmarks.latency.subjects import Sample, meet
from benchmarks.latency.summary import split_of
from benchmarks.percentiles import percentiles
from benchmarks.plan import Plan, settings_to_measure
from benchmarks.records import Run
from benchmarks.run_file import RunFile
from vision_backends import Router

PAID, TIRED, PRICELESS = "paid:PaidBackend", "paid:TiredBackend", "paid:PricelessBackend"


@pytest.fixture
def make_plan(photos):
    """A maker of plans that take seconds."""

    def make(*backends, **options):
        settings, names = settings_to_measure(None, backends=backends)
        small = {"rounds": 3, "processes": 1, "concurrency": (1, 4), "load_s": 0.02, "dataset": str(photos), "limit": 2}
        return Plan(parts=("latency",), backends=names, settings=settings, **(small | options))

    return make


@pytest.fixture
def make_run_file(tmp_path):
    """A maker of run files."""

    def make(plan):
        return RunFile.begin(tmp_path / "run.json", plan, command=("latency",), configuration={})

    return make


def timed(run_file):
    """Return the results of a run file by rung and task."""
    return {(each.contestant.backend, each.contestant.task): each for each in run_file.run.latency}


def test_every_rung_and_task_is_timed_as_often_as_the_plan_says(make_plan, make_run_file):
    """Warm calls, fresh processes and callers are counted; the file says what it should."""
    plan = make_plan("embedded")
    run_file = make_run_file(plan)
    measure(plan, run_file)
    results = timed(run_file)
    assert list(results) == [("embedded", task) for task in ("describe", "embed", "detect")]
    for result in results.values():
        assert (len(result.warm_s), len(result.cold_s)) == (3, 1)
        assert [(load.concurrency, load.failed) for load in result.loads] == [(1, 0), (4, 0)]
        for load in result.loads:
            assert load.calls >= load.concurrency
            assert load.p50_s <= load.p90_s <= load.p99_s
        assert min(result.warm_s) < min(result.cold_s)  # Python has to start, and the models to load
        assert result.split.model_s > 0
        assert result.split.decode_s > 0
        assert (result.split.queue_s, result.split.wire_s) == (None, None)
        assert result.memory_bytes > 30e6
        assert (result.cost_per_1000_usd, result.note) == (0, None)
        assert result.contestant.engine == "onnxruntime"
    assert Run.model_validate_json(run_file.path.read_text()).latency == run_file.run.latency


def test_a_resumed_run_measures_nothing_again(make_plan, make_run_file):
    """Not one of its calls is made twice: the times are the very same."""
    plan = make_plan("embedded", tasks=("embed",))
    run_file = make_run_file(plan)
    measure(plan, run_file)
    again = RunFile.resume(run_file.path)
    assert again.run.latency == run_file.run.latency
    again.run = again.run.model_copy(update={"latency": ()})
    measure(plan, again)
    assert again.run.latency == run_file.run.latency


def test_a_rung_without_a_key_is_left_out_and_says_why(make_plan, make_run_file):
    """The reason stands in its note, and nothing is made up."""
    plan = make_plan("openai", tasks=("describe",))
    run_file = make_run_file(plan)
    measure(plan, run_file)
    (result,) = run_file.run.latency
    assert result.note == "Not measured: There is no API key for OpenAI."
    assert (result.cold_s, result.warm_s, result.loads, result.memory_bytes) == ((), (), (), None)


def test_the_openai_rung_is_measured_against_a_server_on_this_machine(make_plan, make_run_file, monkeypatch):
    """Its wire is real, its price is not, and the note says what it stands for."""
    monkeypatch.setattr("benchmarks.latency.stage.SERVICE_S", {"talk": 0.25, "/v1/embeddings": 0.05})
    small = {"rounds": 1, "processes": 1, "concurrency": (1,)}
    plan = make_plan("openai", tasks=("embed",), sandbox=True, budget_usd=1e-6, **small)
    run_file = make_run_file(plan)
    measure(plan, run_file)
    (result,) = run_file.run.latency
    assert (run_file.spent_usd, run_file.run.stopped) == (0, None)
    assert (len(result.warm_s), len(result.cold_s)) == (1, 1)
    assert result.split.wire_s > 0.1  # the server takes its time, first for a description and then for its vector
    assert result.split.model_s is None
    assert result.cost_per_1000_usd is None
    assert "a server on this machine" in result.note


def test_what_answers_cost_is_booked_and_scaled_to_a_thousand(make_plan, make_run_file):
    """The call that introduces a rung costs as well; a paid rung gets no call that is not counted."""
    plan = make_plan(PAID, tasks=("describe",), load_s=60, processes=2)
    run_file = make_run_file(plan)
    measure(plan, run_file)
    (result,) = run_file.run.latency
    calls = 1 + 3 + 3 * (1 + 4) + 2
    assert [load.calls for load in result.loads] == [3, 12]
    assert result.cost_per_1000_usd == pytest.approx(10)
    assert run_file.spent_usd == pytest.approx(calls * 0.01)


def test_a_result_says_on_which_engines_a_model_runs(make_plan, make_run_file):
    """Its parts may run on different ones; why is no business of a table."""
    plan = make_plan(PAID, tasks=("describe",), rounds=1, processes=1, concurrency=(1,))
    run_file = make_run_file(plan)
    measure(plan, run_file)
    (result,) = run_file.run.latency
    contestant = result.contestant
    assert (contestant.engine, contestant.device, contestant.dtype) == ("openvino and torch", "cpu", "float32")


@pytest.mark.parametrize("concurrency", [(1,), (8,)])
def test_a_rung_that_costs_more_than_is_left_is_measured_no_further(make_plan, make_run_file, concurrency):
    """The others go on, and the run says why there is no more."""
    plan = make_plan(PAID, "embedded", tasks=("describe",), budget_usd=0.055, concurrency=concurrency, load_s=0.2)
    run_file = make_run_file(plan)
    measure(plan, run_file)
    paid, free = run_file.run.latency
    assert len(paid.warm_s) == 3
    assert paid.cold_s == ()
    assert paid.note.startswith("Measured no further: ")
    assert (len(free.warm_s), len(free.cold_s), free.note) == (3, 1, None)
    assert run_file.run.stopped.startswith("Latency of paid: ")
    assert run_file.spent_usd < 0.055 + 0.01 * concurrency[0]  # what was on its way when the last cent was spent


def test_a_rung_whose_price_nobody_knows_is_not_measured_on_a_budget(make_plan, make_run_file):
    """One call was made to learn that."""
    plan = make_plan(PRICELESS, tasks=("describe",), budget_usd=1.0)
    run_file = make_run_file(plan)
    measure(plan, run_file)
    (result,) = run_file.run.latency
    assert result.note == "Not measured: The price of toy is unknown, so that no budget can hold."
    assert (result.warm_s, result.cold_s, result.loads) == ((), (), ())


def test_a_rung_that_fails_is_counted_as_failing(make_plan, make_run_file):
    """No time of a failure stands among those of answers."""
    plan = make_plan(TIRED, tasks=("describe",), concurrency=(1,))
    run_file = make_run_file(plan)
    measure(plan, run_file)
    (result,) = run_file.run.latency
    assert (result.warm_s, result.loads) == ((), ())
    assert len(result.cold_s) == 1  # in a process of its own, where it is not tired yet
    assert result.note.startswith("3 of 3 warm calls failed, the last one: ")


def test_models_without_weights_stand_on_the_disk_as_long_as_they_are_measured(make_plan, make_run_file, photos):
    """The result names who has published the real one, and no folder of this machine."""
    pytest.importorskip("transformers")
    plan = make_plan("local", tasks=("detect",), random_weights=True)
    plan.settings.local.update(engine="torch", dtype="float32")  # no trial of what else would be faster here
    run_file = make_run_file(plan)
    cache = user_cache_path()
    with staged(plan) as stage:
        folder = stage.plan.settings.local["detection_model"]
        assert user_cache_path().is_relative_to(Path(folder).parent)  # where converted models would be left behind
        with Router.from_config(stage.plan.settings) as router:
            (subject,) = meet(stage, router, run_file, Photo(name="cat", source=photos / "cat.jpg"))
        assert subject.declined is None
        contestant = subject.contestant
    assert (contestant.model, contestant.random_weights) == ("ustc-community/dfine-small-coco", True)
    assert (contestant.device, contestant.revision) == ("cpu", None)
    assert folder not in json.dumps(contestant.model_dump())
    assert not Path(folder).exists()
    assert user_cache_path() == cache
    assert "detection_model" not in plan.settings.local


def call(elapsed_s, **timing):
    """Return an answered call."""
    parts = {"decode_s": None, "queue_s": None, "model_s": None, "wire_s": None}
    return Sample(elapsed_s=elapsed_s, timing=parts | timing, usd=0.0)


def test_the_time_is_split_into_medians_and_a_rest():
    """The rest is that of each call; a part that nobody has measured stays unknown."""
    calls = [call(10.0, decode_s=1.0, model_s=7.0), call(12.0, decode_s=2.0, model_s=6.0), call(30.0, decode_s=3.0)]
    split = split_of(calls)
    assert (split.decode_s, split.model_s, split.queue_s, split.other_s) == (2.0, 6.5, None, 4.0)


def test_where_nobody_has_measured_nothing_is_split():
    """Not even a rest: it would be all of the time."""
    assert set(split_of([Sample(elapsed_s=1.0, timing=None, usd=0.0), call(2.0)]).model_dump().values()) == {None}
    assert set(split_of([]).model_dump().values()) == {None}


def test_percentiles_lie_between_measurements():
    """Of 0 to 100 in any order they are their own numbers."""
    assert percentiles([*range(100, -1, -1)]) == (50, 90, 99)
    assert percentiles([2.0]) == (2, 2, 2)
