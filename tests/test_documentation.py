"""What the documentation shows is run: programs, configuration, commands, paths and links."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", *ROOT.glob("docs/*.md"))
}

HELP = dict(
    re.findall(
        r"^Usage: vision ?([a-z ]*?) ?[\[{](.*?)(?=^Usage:|\Z)",
        (ROOT / "tests" / "cli" / "help.txt").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
"""What each command says of itself, by its name; ``tests/cli`` holds this to the program."""


def blocks(language):
    """Return all code blocks of one language, each named after its document."""
    found = []
    for name, text in DOCUMENTS.items():
        for number, code in enumerate(re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL), 1):
            found.append(pytest.param(code, id=f"{name}-{number}"))
    return found


def commands():
    """Return all lines that call the program."""
    lines = [line for block in blocks("console") for line in block.values[0].splitlines()]
    return sorted({line.partition("#")[0].strip() for line in lines if line.startswith("$ vision ")})


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
        assert router.explain("describe").chosen is not None


@pytest.mark.parametrize("line", commands())
def test_the_command_and_its_options_exist(line):
    """They are those of the program's own help."""
    words = line.split()[2:]
    if words[0].startswith("--"):
        command, options = "", words[:1]
    else:
        command = max((name for name in HELP if name and f"{' '.join(words)} ".startswith(f"{name} ")), key=len)
        options = [word for word in words if word.startswith("-")]
    assert [option for option in options if f"\n{option} " not in HELP[command]] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    """To a file of the checkout, and to a heading of it where they name one."""
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", DOCUMENTS[name]):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]


def test_every_document_is_reached_from_the_readme():
    """A page that nothing links to is not read."""
    assert [path.name for path in ROOT.glob("docs/*.md") if f"(docs/{path.name})" not in DOCUMENTS["README.md"]] == []


def test_the_map_names_every_room_and_recipes_name_files_that_are_there():
    """A file that is moved takes its recipe along."""
    text = DOCUMENTS["CONTRIBUTING.md"]
    rooms = [path.name for path in (ROOT / "vision_backends").iterdir() if (path / "__init__.py").exists()]
    assert [room for room in rooms if f"`{room}/`" not in text] == []
    paths = re.findall(r"`((?:vision_backends|tests|docs|benchmarks)/[\w/.]+)`", text)
    assert len(paths) > 20
    assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_short_commands_are_those_of_the_project():
    """In CONTRIBUTING.md and in the hooks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tasks = set(project["tool"]["poe"]["tasks"])
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `poe (\w+)`", DOCUMENTS["CONTRIBUTING.md"], re.MULTILINE)) == tasks
    assert set(re.findall(r"entry: poe (\w+)", hooks)) < tasks


def test_the_version_is_the_one_of_the_package():
    """The changelog has what is released, or what is coming."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"[{project['version']}]" in changelog or "[Unreleased]" in changelog
