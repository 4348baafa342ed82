"""``vision new-backend``: what it writes passes its own tests, and nothing is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words, path=""):
    """Run a program as a person would, and return what it has printed on both streams."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{path}", "VISION_STATE": "memory"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "options"), [("acme", []), ("acme-live", ["--async"])])
def test_what_it_writes_passes_its_tests_and_answers(vision, name, options):
    """As it stands, plain and asynchronous: by the contract suite, and on a ladder of the configuration beside it."""
    written = vision("new-backend", name, *options)
    assert written.exit_code == 0
    module = name.replace("-", "_")
    files = [f"{module}.py", f"test_{module}.py", "pyproject.toml", "vision.toml"]
    assert written.stdout.split() == [f"{name}/{file}" for file in files]
    assert f"{sys.executable} -m pytest {name}" in written.stderr
    assert " passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", name)
    photo = str(ROOT / "benchmarks/photos/cat.jpg")
    told = run("-m", "vision_backends", "describe", photo, "--config", f"{name}/vision.toml", path=name)
    assert told == "An image of 451 by 300 pixels.\n"


def test_the_package_offers_the_class_by_the_name_of_the_rung(vision):
    """Once installed, ``ladder = ["acme"]`` finds it."""
    vision("new-backend", "acme-vision", "--folder", "here")
    project = tomllib.loads(Path("here/pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["vision_backends.backends"] == {"acme-vision": "acme_vision:AcmeVision"}
    assert "class AcmeVision(Backend)" in Path("here/acme_vision.py").read_text(encoding="utf-8")


def test_the_files_can_be_read_by_programs(vision):
    """One JSON object for each."""
    told = vision("new-backend", "acme", "--json")
    assert told.stdout.splitlines()[0] == '{"path": "acme/acme.py"}'
    assert told.stderr == ""


def test_nothing_is_overwritten(vision):
    """Not even where only one of the files is there."""
    Path("acme").mkdir()
    Path("acme/pyproject.toml").write_text("mine", encoding="utf-8")
    told = vision("new-backend", "acme")
    assert told.exit_code == 2
    assert "acme/pyproject.toml exists. Nothing was written." in told.stderr
    assert os.listdir("acme") == ["pyproject.toml"]  # noqa: PTH208
    assert Path("acme/pyproject.toml").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("3d", "is not a valid name for a backend"),
        ("Acme", "is not a valid name for a backend"),
        ("class", "is not a valid name for a backend"),
        ("../acme", "is not a valid name for a backend"),
        ("acme--two", "is not a valid name for a backend"),
        ("openai", "is a backend of this package"),
        ("json", "There is a module 'json' already"),
        ("numpy", "There is a module 'numpy' already"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_what_can(vision, name, words):
    """A module of that name would hide another one, or could not be imported."""
    told = vision("new-backend", name)
    assert told.exit_code == 2
    assert words in told.stderr
    assert not Path(name).exists()


def test_a_folder_that_cannot_be_written_is_named(vision):
    """Here, because a file stands in its way."""
    Path("file").touch()
    told = vision("new-backend", "acme", "--folder", "file/acme")
    assert told.exit_code == 2
    assert "file/acme cannot be written: Not a directory." in told.stderr
