"""What the router reports about its ladder, as text and as JSON."""

import dataclasses
import json

import pytest

from vision_backends import Explanation, RungStatus, Verdict

SHUT = Verdict(
    backend="openai",
    ready=False,
    model="gpt-vision",
    error="quota_exhausted",
    reason="The account has no quota left.",
    remedy="Add credit.",
    retry_after_s=30.0,
)
ABSENT = Verdict(backend="local", ready=False, error="not_ready", reason="It is not installed.")
READY = Verdict(backend="embedded", ready=True, model="nanodet", expected_s=0.0234)
SPARE = Verdict(backend="spare", ready=True, model="another")


def test_the_first_ready_rung_is_chosen():
    """The ladder is asked from the top."""
    assert Explanation(task="describe", verdicts=(SHUT, READY, SPARE)).chosen == "embedded"


def test_nobody_is_chosen_when_nobody_is_ready():
    """An explanation does not pretend."""
    explanation = Explanation(task="describe", verdicts=(SHUT, ABSENT))
    assert explanation.chosen is None
    assert str(explanation).startswith("describe: no backend would answer\n")


def test_an_explanation_reads_as_a_table():
    """Each rung has a line that says who would answer, who stands by, and what stands in the way."""
    assert str(Explanation(task="detect", verdicts=(SHUT, ABSENT, READY, SPARE))).splitlines() == [
        "detect: embedded would answer",
        "  openai    quota_exhausted: The account has no quota left.",
        "            → Add credit.",
        "  local     not_ready: It is not installed.",
        "  embedded  answers: nanodet, about 0.023 s",
        "  spare     stands by: another",
    ]


def test_an_explanation_names_the_spaces_of_rungs_that_are_ready():
    """Each in a line of its own, so that it can be copied."""
    ready = dataclasses.replace(READY, space="a@1", spaces=("a@1", "b@1"))
    report = Explanation(task="embed", verdicts=(dataclasses.replace(SHUT, space="c@1", spaces=("c@1",)), ready))
    assert [line.strip() for line in str(report).splitlines() if "@1" in line] == ["space a@1", "space b@1"]


def test_an_explanation_without_rungs_is_one_line():
    """A task may have nobody on its ladder."""
    assert str(Explanation(task="embed", verdicts=())) == "embed: no backend would answer"


def test_an_explanation_is_json():
    """Everything that it knows reaches a program, and None stays unknown."""
    report = json.loads(json.dumps(Explanation(task="detect", verdicts=(SHUT, READY)).to_dict()))
    assert report["task"] == "detect"
    assert report["chosen"] == "embedded"
    assert report["verdicts"][0] == {
        "backend": "openai",
        "ready": False,
        "model": "gpt-vision",
        "space": None,
        "spaces": [],
        "error": "quota_exhausted",
        "reason": "The account has no quota left.",
        "remedy": "Add credit.",
        "code": None,
        "retry_after_s": 30.0,
        "expected_s": None,
        "notes": [],
        "unpriced": [],
    }


def test_a_status_is_json():
    """A rung's verdicts are told task by task, beside what the backend says of itself."""
    status = RungStatus(backend="embedded", local=True, tasks={"detect": READY}, facts={"threads": 2})
    report = json.loads(json.dumps(status.to_dict()))
    assert report == {
        "schema_version": 1,
        "backend": "embedded",
        "local": True,
        "tasks": {"detect": READY.to_dict()},
        "facts": {"threads": 2},
    }


@pytest.mark.parametrize("record", [READY, Explanation(task="embed", verdicts=())])
def test_reports_are_frozen(record):
    """A report says how things stood when it was made."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, "another")
