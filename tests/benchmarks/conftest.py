"""Plans, run files and small data sets in the published formats, made of real photos."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from benchmarks.plan import Plan, settings_to_measure
from benchmarks.run_file import RunFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAID = {
    "astronaut.jpg": ["A woman in an orange suit smiles.", "An astronaut in front of a flag.", "A smiling astronaut."],
    "cat.jpg": ["A cat looks up.", 'Close-up of a "tabby" cat; green eyes.', "It's a brown cat that doesn't blink."],
    "coffee.jpg": ["A cup of coffee on a table.", "An espresso with a spoon.", "Coffee in a white cup, on wood."],
    "rocket.jpg": ["A rocket on its launch pad.", "A rocket lit at night.", "The launch of a rocket."],
}

SEEN = {
    "astronaut.jpg": [("person", (10, 0, 480, 512))],
    "cat.jpg": [("cat", (2, 0, 440, 300))],
    "coffee.jpg": [("cup", (120, 80, 400, 340)), ("spoon", (350, 200, 560, 300))],
    "rocket.jpg": [],
}


@pytest.fixture
def lines(photos, tmp_path) -> Path:
    """A folder with four photos and a file of lines about them."""
    folder = tmp_path / "own"
    folder.mkdir()
    rows = []
    for name, captions in SAID.items():
        shutil.copy(photos / name, folder / name)
        boxes = [{"label": label, "xyxy": xyxy} for label, xyxy in SEEN[name]]
        rows.append({"image": name, "captions": captions, "boxes": boxes, "credit": f"the author of {name}"})
    (folder / "own.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def make_plan(lines) -> Callable[..., Plan]:
    """A maker of plans for the embedded rung on four photos; takes a configuration's text, and options."""

    def make(toml: str = "", *, backends: tuple[str, ...] = ("embedded",), **options: object) -> Plan:
        config = lines.parent / "vision.toml"
        config.write_text(toml, encoding="utf-8")
        settings, names = settings_to_measure(config, backends=backends)
        usual = {"dataset": str(lines), "resamples": 50, "config": config}
        return Plan.model_validate(usual | {"backends": names, "settings": settings} | options)

    return make


@pytest.fixture
def open_run_file(tmp_path) -> Callable[..., RunFile]:
    """A maker of run files; opens one again that is there."""

    def make(plan: Plan, name: str = "run.json") -> RunFile:
        path = tmp_path / name
        return (
            RunFile.resume(path) if path.exists() else RunFile.begin(path, plan, command=["quality"], configuration={})
        )

    return make
