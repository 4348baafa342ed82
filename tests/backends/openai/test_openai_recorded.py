"""What real servers have answered, played again: each preset is held to what its server did on that day.

The recordings are made by ``python benchmarks/checks/servers.py NAME --record``.
"""

from __future__ import annotations

import json
from datetime import date

import pytest

from benchmarks.checks.servers import QUESTIONS, RECORDINGS, understood
from vision_backends import OpenAIBackend
from vision_backends.config.presets import presets
from vision_backends.testing.sandbox import Fault, Script

RECORDED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RECORDINGS.glob("*.json"))}

ROWS = [
    pytest.param(name, row, id=f"{name}-{row['question']}")
    for name, made in RECORDED.items()
    for row in made["questions"]
]


def test_there_are_recordings_with_version_and_day():
    """Of every server that the command can start."""
    assert set(RECORDED) == {"litellm", "transformers"}
    for name, made in RECORDED.items():
        assert made["title"] == presets()[name].title
        assert made["version"]
        assert date.fromisoformat(made["day"]) >= date(2026, 11, 28)


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_it_is_understood_as_it_was_then_and_asked_no_more(sandbox, name, row):
    """The same fields go out, no request more, and the same comes of the replies."""
    exchanges = row["exchanges"]
    sandbox.play(
        Script.of(
            *(
                Fault(name="recorded", status=each["status"], body=each["body"], headers=each["headers"])
                for each in exchanges
            )
        )
    )
    (question,) = [each for each in QUESTIONS if each.name == row["question"]]
    backend = OpenAIBackend(preset=name, base_url=sandbox.url, **{"api_key": None, **row["settings"]})
    assert understood(question, backend) == {key: row[key] for key in ("answer", "error") if key in row}
    assert [request.path for request in sandbox.requests] == [f"/v1{each['path']}" for each in exchanges]
    assert [sorted(request.body) for request in sandbox.requests] == [each["sent"] for each in exchanges]
