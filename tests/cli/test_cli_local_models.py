"""Models in memory, as a table of whatever is known of them."""

from __future__ import annotations

import pytest

from vision_backends.cli.rendering.status import print_models
from vision_backends.reports import RungStatus


def shown(capsys, **facts):
    """Return the lines that are printed for some facts of a rung."""
    print_models(RungStatus(backend="local", local=True, tasks={}, facts=facts))
    return capsys.readouterr().out.splitlines()


def test_every_model_has_a_row_and_every_fact_a_column(capsys):
    """Units stand in the cells; what is not known of a model is a dash; a commit is shortened."""
    lines = shown(
        capsys,
        caption={"model": "acme/tiny", "revision": None, "state": "being fetched: 1 of 2 MB, 50%"},
        open_vocabulary={
            "model": "acme/finder",
            "revision": "0123456789abcdef0123456789abcdef01234567",
            "state": "loaded",
            "memory_bytes": 1_234_500_000,
            "idle_s": 61.4,
            "queue": 3,
            "speedup": 2.5,
            "engine": {"image": "openvino", "text": "torch"},
        },
    )
    assert lines[0] == ""
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "local model revision state memory idle queue speedup engine",
        "caption acme/tiny - being fetched: 1 of 2 MB, 50% - - - - -",
        "open vocabulary acme/finder 0123456789ab loaded 1,234 MB 61 s 3 2.5 image openvino, text torch",
    ]


@pytest.mark.parametrize("facts", [{}, {"base_url": "http://127.0.0.1"}, {"models": {"nanodet": "loaded"}}])
def test_a_rung_without_such_facts_prints_nothing(capsys, facts):
    """Not even an empty line."""
    assert shown(capsys, **facts) == []


def test_the_status_shows_the_local_models(vision, use_ladder):
    """Before anything is fetched or loaded, as a fresh process finds them."""
    use_ladder("local", "embedded")
    lines = [" ".join(line.split()) for line in vision("status").stdout.splitlines()]
    assert "local model revision state" in lines
    assert "caption Salesforce/blip-image-captioning-base - not fetched" in lines
