"""What `import vision_backends` gives, and what it costs."""

import ast
import importlib
import inspect
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import vision_backends
import vision_backends.testing
from vision_backends import errors

HEAVY = {
    "torch",
    "transformers",
    "onnxruntime",
    "openai",
    "numpy",
    "PIL",
    "pydantic",
    "pydantic_settings",
    "rich",
    "typer",
}
LIGHT_STATEMENTS = (
    "import vision_backends",
    "from vision_backends import *",
    "import vision_backends.testing",
    "from vision_backends.testing import FakeBackend",
    "import vision_backends.drawing",
    "from vision_backends.search import ImageIndex",
)


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after a statement."""
    package = Path(vision_backends.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"],
        env=os.environ | {"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(run.stdout)}


@pytest.mark.parametrize("statement", LIGHT_STATEMENTS)
def test_importing_is_light(statement):
    """Nothing heavy is imported before it is needed (promise 9)."""
    loaded = modules_after(statement)
    assert "vision_backends" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_call_that_stays_on_this_machine_imports_no_client_of_a_server():
    """Neither the HTTP client nor OpenAI's SDK."""
    photo = Path(__file__).parents[1] / "benchmarks" / "photos" / "cat.jpg"
    loaded = modules_after(
        f"""
from vision_backends import Router
with Router.from_config() as router:
    router.describe({str(photo)!r}, local_only=True, backend="embedded")
"""
    )
    assert "onnxruntime" in loaded
    assert loaded.isdisjoint({"aiohttp", "openai", "torch", "transformers"})


def test_every_public_name_can_be_imported():
    """`__all__` promises nothing that is not there, lazy names included."""
    for name in vision_backends.__all__:
        assert getattr(vision_backends, name) is not None, name
    assert inspect.isclass(vision_backends.Router)
    assert inspect.isclass(vision_backends.AsyncRouter)


def test_type_checkers_and_python_find_every_name_in_the_same_place():
    """What is imported for type checkers, what is imported when it is used, and `__all__` name the same."""
    tree = ast.parse(Path(vision_backends.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    checked = {alias.name: node.module for node in block.body for alias in node.names}
    assert {name: f"vision_backends.{home}" for name, home in vision_backends._HOMES.items()} == checked
    assert sorted(checked) == sorted(vision_backends.__all__)
    assert set(vision_backends.__all__) <= set(dir(vision_backends))
    assert set(errors.__all__) <= set(vision_backends.__all__)


@pytest.mark.parametrize("module", [vision_backends, vision_backends.testing])
def test_an_unknown_name_is_an_attribute_error(module):
    """Lazy modules fail as others do."""
    with pytest.raises(AttributeError, match="has no attribute 'Roter'"):
        module.Roter  # noqa: B018 — asking is the point


@pytest.mark.parametrize("name", vision_backends.testing.__all__)
def test_every_testing_tool_can_be_imported(name):
    """The tools for users' tests are where their `__all__` says."""
    assert getattr(vision_backends.testing, name).__name__ == name


def test_the_package_is_typed():
    """Type checkers read the annotations only where this file is (PEP 561)."""
    assert files("vision_backends").joinpath("py.typed").is_file()


def test_public_classes_say_what_they_are():
    """Whoever asks for help gets some."""
    for name in vision_backends.__all__:
        value = getattr(vision_backends, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
            assert importlib.import_module(value.__module__).__doc__, name
