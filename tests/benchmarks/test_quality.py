"""Rungs are asked through the public API, once, within the budget, and what they decline is counted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.datasets import Photo
from benchmarks.quality import measure
from benchmarks.quality.asking import quarter_of
from benchmarks.run_file import RunFile, read_run
from vision_backends import ConfigError, DescribeRequest, open_image
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.testing import SandboxServer

ROOT = Path(__file__).parents[2]

FAKE = "vision_backends.testing.fake:FakeBackend"


@pytest.fixture
def server():
    """An OpenAI server on loopback, in this process."""
    with SandboxServer() as server:
        yield server


@pytest.fixture
def openai_toml(server):
    """A configuration that asks it."""
    return f'[openai]\nbase_url = "{server.url}"\napi_key = "{server.api_key}"\n'


@pytest.fixture
def plain(lines):
    """The same photos, about which nobody has said anything."""
    (lines / "own.jsonl").unlink()
    return lines


def by_task(run, backend):
    """The results of one rung, by task."""
    return {each.contestant.task: each for each in run.quality if each.contestant.backend == backend}


@pytest.mark.timeout(300)  # METEOR's program has to start
def test_the_embedded_rung_is_measured_in_every_task(make_plan, open_run_file):
    """Real models, real photos, real evaluators."""
    plan = make_plan()
    run_file = open_run_file(plan)
    measure(plan, run_file)
    found = by_task(run_file.run, "embedded")
    assert {task: (each.images, each.answered, each.declined) for task, each in found.items()} == dict.fromkeys(
        ("describe", "embed", "detect"), (4, 4, {})
    )
    figures = {task: {metric.name: metric for metric in each.metrics} for task, each in found.items()}
    assert figures["describe"]["ROUGE-L"].value > 0.05
    assert figures["describe"]["CLIPScore"].value is None
    assert 0 <= figures["embed"]["R@1 image↔image"].value <= 1
    assert figures["embed"]["R@1 text→image"].value > 0.5
    assert figures["detect"]["mAP50"].value > 0.3
    assert figures["detect"]["mAP50"].per_class["cat"] > 0.9
    for each in found.values():
        assert (each.contestant.engine, each.contestant.device, each.cost_usd) == ("onnxruntime", "cpu", 0.0)
        assert each.contestant.licence
        assert each.median_s > 0
    assert found["detect"].contestant.published[0].value == pytest.approx(22.9)


def test_examples_show_what_each_rung_said(make_plan, open_run_file):
    """With a small picture, its credit, and boxes in its pixels."""
    plan = make_plan(examples=2, tasks=("detect", "embed"))
    run_file = open_run_file(plan)
    measure(plan, run_file)
    assert len(run_file.run.examples) == 2
    for example in run_file.run.examples:
        assert example.thumbnail.startswith("data:image/jpeg;base64,")
        assert max(example.width, example.height) == 360
        assert example.credit == f"the author of {example.image}"
        detected, embedded = example.answers
        for box in (*example.boxes, *detected.boxes):
            assert 0 <= box.xyxy[0] < box.xyxy[2] <= 361
        assert len(embedded.nearest) == 3
        assert example.image not in embedded.nearest


def test_a_rung_that_is_not_ready_is_counted_as_declined(make_plan, open_run_file):
    """Every image, with the reason; the other rung is measured all the same."""
    plan = make_plan(backends=("openai", "embedded"), tasks=("embed",))
    run_file = open_run_file(plan)
    measure(plan, run_file)
    result = by_task(run_file.run, "openai")["embed"]
    assert (result.answered, result.declined, result.cost_usd) == (0, {"not_ready": 4}, 0.0)
    assert result.reason == "There is no API key for OpenAI."
    assert run_file.run.photos is not None
    assert [(metric.value, metric.note) for metric in result.metrics] == [(None, "it answered nothing")]
    assert by_task(run_file.run, "embedded")["embed"].answered == 4


def test_a_picture_that_cannot_be_read_is_declined_and_the_others_are_measured(lines, make_plan, open_run_file):
    """Broken files are in every real data set."""
    (lines / "cat.jpg").write_bytes(b"no picture")
    plan = make_plan(tasks=("embed", "detect"))
    run_file = open_run_file(plan)
    measure(plan, run_file)
    for result in by_task(run_file.run, "embedded").values():
        assert (result.images, result.answered, result.declined) == (4, 3, {"invalid_image": 1})
        assert all("1 declined images are left out" in metric.note for metric in result.metrics)


def test_a_rung_with_a_text_tower_has_all_figures(make_plan, open_run_file):
    """Captions and images are compared in one space, quarters with quarters."""
    plan = make_plan(backends=(FAKE,), tasks=("embed",))
    run_file = open_run_file(plan)
    measure(plan, run_file)
    (result,) = run_file.run.quality
    assert result.contestant.backend == "fake"
    values = {metric.name: metric.value for metric in result.metrics}
    assert all(0 <= values[f"R@1 {direction}"] <= 1 for direction in ("image→text", "text→image", "image↔image"))


def test_two_views_of_a_photo_share_no_pixel(lines):
    """Else a copy would be found by its pixels."""
    photo = Photo(name="cat", source=lines / "cat.jpg")
    whole = np.asarray(open_image(photo.read()).rgb())
    first, second = (np.asarray(quarter_of(photo, first=first)) for first in (True, False))
    height, width = (side // 2 for side in whole.shape[:2])
    assert np.array_equal(first, whole[:height, :width])
    assert np.array_equal(second, whole[-height:, -width:])


def test_random_weights_are_not_measured(make_plan, open_run_file):
    """The local rung is not even asked."""
    plan = make_plan(backends=("local",), tasks=("detect",), random_weights=True)
    run_file = open_run_file(plan)
    measure(plan, run_file)
    (result,) = run_file.run.quality
    assert result.contestant.random_weights
    assert (result.images, result.metrics[0].value) == (0, None)
    assert "random weights" in result.metrics[0].note


def test_what_is_paid_for_is_booked(server, openai_toml, make_plan, open_run_file):
    """The run's sum is the sum of the results, and that of the server's bill."""
    plan = make_plan(openai_toml, backends=("openai",), tasks=("embed",))
    run_file = open_run_file(plan)
    measure(plan, run_file)
    (result,) = run_file.run.quality
    assert result.answered == 4
    assert run_file.spent_usd == pytest.approx(result.cost_usd)
    assert run_file.spent_usd > 0
    # Three views of each of four photos are described and then embedded; captions are one request for each photo.
    assert len(server.requests) == 4 * 3 * 2 + 4


def test_the_run_stops_before_the_budget_is_passed(server, openai_toml, plain, make_plan, open_run_file):
    """All rungs are measured on the same images, and the report says why there are fewer."""
    options = {"backends": ("openai", "embedded"), "tasks": ("describe",), "dataset": str(plain)}
    free = open_run_file(make_plan(openai_toml, **options, limit=2), "free.json")
    measure(make_plan(openai_toml, **options, limit=2), free)
    asked = OpenAIBackend(api_key=server.api_key, base_url=server.url)
    estimates = [
        asked.estimate(DescribeRequest(), [open_image(plain / name)]).cost_usd for name in ("cat.jpg", "rocket.jpg")
    ]

    budget_usd = free.spent_usd + max(estimates) * 0.9
    plan = make_plan(openai_toml, **options, budget_usd=budget_usd)
    run_file = open_run_file(plan)
    measure(plan, run_file)
    assert 0 < run_file.spent_usd <= budget_usd
    assert run_file.run.spent_usd == run_file.spent_usd
    images = {result.contestant.backend: result.images for result in run_file.run.quality}
    assert images["openai"] == images["embedded"]
    assert 0 < images["openai"] < 4
    assert "left of the budget" in run_file.run.stopped


def test_a_budget_needs_prices(server, openai_toml, make_plan, open_run_file):
    """Of a model whose price nobody knows no answer is paid for."""
    plan = make_plan(
        openai_toml + 'model = "nobody-knows-1"\n', backends=("openai",), tasks=("describe",), budget_usd=5.0
    )
    with pytest.raises(ConfigError, match="cannot count what 'nobody-knows-1' costs"):
        measure(plan, open_run_file(plan))
    assert len(server.requests) == 0


def test_a_lasting_refusal_is_asked_about_once_and_again_when_resumed(server, openai_toml, make_plan, open_run_file):
    """A dead quota costs one request, is declined for every image, and asked again after topping up."""
    server.play("quota_gone")
    plan = make_plan(openai_toml, backends=("openai",), tasks=("detect",))
    run_file = open_run_file(plan)
    measure(plan, run_file)
    assert by_task(run_file.run, "openai")["detect"].declined == {"quota_exhausted": 4}
    assert len(server.requests) == 1
    server.reset()
    run_file = open_run_file(plan)
    measure(plan, run_file)
    assert by_task(run_file.run, "openai")["detect"].answered == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on_and_pays_for_nothing_twice(
    server, openai_toml, plain, make_plan, tmp_path, number
):
    """But for the one request that was on its way, whose answer nobody could keep."""
    plan = make_plan(openai_toml, backends=("openai",), dataset=str(plain))
    run = tmp_path / "run.json"
    command = [sys.executable, "-m", "benchmarks", "quality"]
    options = ["--config", str(plan.config), "--backends", "openai", "--dataset", plan.dataset, "--out", str(run)]
    process = subprocess.Popen([*command, *options, "--resamples", "10"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while len(server.requests) < 9 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (130 if number is signal.SIGINT else -number)
    assert ("--resume" in told) is (number is signal.SIGINT)
    assert read_run(run).finished_at is None
    before = RunFile.resume(run).spent_usd
    assert before > 0

    subprocess.run([*command, "--resume", str(run)], cwd=ROOT, check=True, capture_output=True, timeout=110)
    finished = read_run(run)
    assert finished.finished_at is not None
    assert finished.stopped is None
    assert {each.answered for each in finished.quality} == {4}
    assert not run.with_suffix(".partial.jsonl").exists()
    # Each photo is described, detected, and its three views embedded, which is a description and a vector each.
    assert 32 <= len(server.requests) <= 32 + 2
