"""``python -m benchmarks speed``: every figure against its target, whatever the figures are."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from benchmarks.checks.timing import Figure
from benchmarks.command import app
from benchmarks.speed.cpu_profile import CpuProfile
from benchmarks.speed.page import show_targets, write_page
from benchmarks.speed.run import SUBJECTS, Section, Speed, Subject, choose_subjects, measure_speed
from benchmarks.speed.upstream import Bucket, running_upstream

MOST_CALLS = {"healthy": 382, "gate blocked": 425, "refused": 563, "cached": 293}
"""Calls of the package's functions for one answer. These limits are to come down with the code, and never to go up."""


@pytest.fixture(scope="module")
def ladder_figures():
    """The figures of the ladder's own cost, by name; counted in a process of their own, before its engine starts."""
    command = [sys.executable, "-m", "benchmarks.speed.ladder", "--json", "--calls=3"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    return {each["name"]: each["value"] for each in json.loads(run.stdout)["figures"]}


@pytest.mark.parametrize("case", MOST_CALLS)
def test_an_answer_takes_no_more_calls_than_it_did(ladder_figures, case):
    """Calls of our own functions in all threads are the same on every machine."""
    calls = ladder_figures[f"{case}: calls of our functions"]
    assert 20 < calls <= MOST_CALLS[case]


def test_a_run_is_told_as_a_table_and_kept_as_page_and_json(tmp_path):
    """All three say how each figure stands to its target."""
    page, kept = tmp_path / "speed.md", tmp_path / "speed.json"
    words = ["speed", "--quick", "--only", "photo", "--out", str(page), "--json", str(kept)]
    done = CliRunner().invoke(app, words, prog_name="bench")
    assert done.exit_code == 0, done.output
    (section,) = json.loads(kept.read_text(encoding="utf-8"))["sections"]
    judged = {each["name"]: each["verdict"] for each in section["figures"] if each["target"] is not None}
    assert len(judged) == 3
    for name, verdict in judged.items():
        assert any(name in line and line.endswith(verdict) for line in done.stdout.splitlines())
    assert page.read_text(encoding="utf-8").startswith("# How fast it is\n")


def test_a_subject_that_fails_or_hangs_is_told_and_the_next_one_measured():
    """A run has no other end than its table."""
    printing = 'print(\'{"figures": [{"name": "calls", "value": 3, "unit": "", "target": 4, "ok": true}]}\')'
    subjects = [
        Subject(name="broken", title="Broken", program=("-c", "raise SystemExit('no such thing')")),
        Subject(name="hanging", title="Hanging", program=("-c", "import time; time.sleep(60)"), longest_s=0.5),
        Subject(name="sound", title="Sound", program=("-c", printing)),
    ]
    told = []
    speed = measure_speed(subjects, quick=False, tell=told.append)
    assert [section.trouble for section in speed.sections] == [
        "no such thing",
        "it took longer than 0.5 s",
        None,
    ]
    assert [(figure.name, figure.verdict) for figure in speed.targets] == [("calls", "ok")]
    assert "Broken: not measured" in "\n".join(show_targets(speed))
    assert "Not measured: no such thing" in write_page(speed, command="vision bench speed")
    assert len(told) == 5


def test_what_has_no_target_stands_below_and_what_is_alike_in_one_grid():
    """A page that lists a hundred lines of numbers is not read."""
    alike = [
        Figure(name=f"{count} inputs: {what}", value=count, unit=unit)
        for count in (1, 10, 100)
        for what, unit in (("time each", "ms"), ("rows", ""))
    ]
    figures = (
        Figure(name="time", value=1.5, unit="ms", target=2, goal=1),
        Figure(name="rate", value=3, unit="×", target=2, goal=2.8, at_least=True),
        Figure(name="alone", value=5, unit="s"),
        *alike,
    )
    section = Section(name="growth", title="Growth", figures=figures, taken_s=1.0, load=None)
    machine = {"processor": "P", "cores": 2, "python": "3"}
    page = write_page(
        Speed(sections=(section,), machine=machine, commit=None, began_at=0.0, quick=False),
        command="vision bench speed",
    )
    lines = page.splitlines()
    assert "| Growth | time | 1.5 ms |  | ≤ 2 (1) ms | ok |" in lines
    assert "| Growth | rate | 3 × |  | ≥ 2 (2.8) × | goal |" in lines
    assert "| alone | 5 s |  |" in lines
    assert "|  | time each (ms) | rows |" in lines
    assert "| 10 inputs | 10 | 10 |" in lines
    assert "2 of 2 targets are reached, 1 of them with the goal." in page


def test_every_subject_is_usual_but_the_local_rung():
    """Which takes longer than all others together."""
    usual = choose_subjects(None, quick=False, local=False)
    assert {subject.name for subject in SUBJECTS} - {subject.name for subject in usual} == {"local"}
    assert choose_subjects(None, quick=False, local=True) == list(SUBJECTS)
    assert all(subject.quick is not None for subject in choose_subjects(None, quick=True, local=False))


def test_the_server_admits_what_it_says_and_counts_what_it_refuses():
    """Callers are told when to come back, in the words of the real API."""
    with running_upstream(per_s=2) as upstream:
        line = http.client.HTTPConnection(urlsplit(upstream.url).netloc, timeout=10)
        replies = []
        for _ in range(3):
            line.request("POST", "/v1/chat/completions", b"{}" * 100)
            reply = line.getresponse()
            replies.append((reply.status, reply.headers["x-ratelimit-limit-requests"], json.load(reply)))
            after_ms = reply.headers["retry-after-ms"]
        line.close()
        counts = upstream.counts()
    statuses = [status for status, _, _ in replies]
    assert (statuses, {limit for _, limit, _ in replies}) == ([200, 200, 429], {"2"})
    assert replies[0][2]["choices"][0]["message"]["content"]
    assert replies[2][2]["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(after_ms) <= 500
    assert (counts["answered"], counts["refused"]) == (2, 1)


def test_a_bucket_is_never_fuller_than_a_second_is_long():
    """However long nobody came."""
    bucket = Bucket(3)
    assert [bucket.admits() for _ in range(4)] == [True, True, True, False]
    assert bucket.headers()["x-ratelimit-remaining-requests"] == "0"


def test_cpu_time_is_found_in_the_module_that_uses_it():
    """In whichever thread, and a thread that waits uses none."""
    over = threading.Event()
    waiting = threading.Thread(target=over.wait)
    waiting.start()
    profile = CpuProfile()
    profile.start()
    for _ in range(400):
        hashlib.sha256(bytes(1_000_000)).digest()
    profile.stop()
    over.set()
    waiting.join()
    shares = profile.shares()
    assert shares["tests.benchmarks.test_speed"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)
