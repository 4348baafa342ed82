"""What is installed with the package: declared, bounded, and free of what is known to be wrong."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: texts for name, texts in PROJECT["optional-dependencies"].items() if name != "dev"}
SHIPPED = [Requirement(text) for text in sum(EXTRAS.values(), PROJECT["dependencies"])]
ADVISORIES = tomllib.loads((ROOT / "tests" / "advisories.toml").read_text(encoding="utf-8"))

OPTIONAL = {"gevent", "supervision"}
"""Imported only where the application has them."""

BY_CALENDAR = {"certifi"}
"""Its versions are dates, and the newest certificates are what it is for."""


def imports_of(folder):
    """Yield the top-level modules of others that a folder's files import anywhere."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module.partition(".")[0]


def test_every_direct_import_is_declared():
    """What comes along with something else today may not tomorrow."""
    ours = {*sys.stdlib_module_names, "vision_backends", "benchmarks"}
    imported = set(imports_of(ROOT / "vision_backends")) - ours - OPTIONAL
    declared = {canonicalize_name(requirement.name) for requirement in SHIPPED}
    distributions = packages_distributions()
    missing = {
        module
        for module in imported
        if not declared & {canonicalize_name(name) for name in distributions.get(module, [module])}
    }
    assert len(imported) > 10
    assert not missing


@pytest.mark.parametrize("requirement", SHIPPED, ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_floor_and_a_ceiling(requirement):
    """A new major version is let in when the tests have seen it."""
    operators = {each.operator for each in requirement.specifier}
    assert ">=" in operators
    assert "<" in operators or requirement.name in BY_CALENDAR


@pytest.mark.parametrize("requirement", SHIPPED, ids=lambda requirement: requirement.name)
def test_no_floor_is_known_to_be_vulnerable(requirement):
    """By the dated list of advisories beside this file."""
    fixed = ADVISORIES["fixed"].get(str(canonicalize_name(requirement.name)))
    if fixed is not None:
        (floor,) = (Version(each.version) for each in requirement.specifier if each.operator == ">=")
        assert floor >= Version(fixed["version"]), fixed["ids"]


def test_every_advisory_is_about_something_that_is_shipped():
    """An entry that is never compared protects nobody."""
    assert set(ADVISORIES["fixed"]) <= {str(canonicalize_name(requirement.name)) for requirement in SHIPPED}
