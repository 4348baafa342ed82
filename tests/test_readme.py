"""What the README promises is run."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """Return the README's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_programs_run(code):
    """Each block is a whole program, run from the checkout as a reader would."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("table", blocks("toml"))
def test_the_configuration_is_valid(table, tmp_path):
    """It makes a router."""
    from vision_backends import Router

    path = tmp_path / "vision.toml"
    path.write_text(table, encoding="utf-8")
    with Router.from_config(path) as router:
        assert router.explain("describe").chosen == "embedded"


def test_every_command_exists():
    """The commands of the README are those of `vision --help`."""
    shown = {line.split()[2] for line in "\n".join(blocks("console")).splitlines() if line.startswith("$ vision")}
    run = subprocess.run(
        [sys.executable, "-m", "vision_backends", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert shown
    assert all(re.search(rf"\b{command}\b", run.stdout) for command in shown)


def test_the_version_is_the_one_of_the_package():
    """The changelog has what is released, or what is coming."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"[{project['version']}]" in changelog or "[Unreleased]" in changelog
