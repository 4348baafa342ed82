"""What the commands say of themselves, word for word as in ``help.txt``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from vision_backends.cli import main
from vision_backends.cli.app import COMMANDS as TABLE

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash")
GOLDEN = Path(__file__).with_name("help.txt")
COMMANDS = (
    *(
        "",
        "describe",
        "ask",
        "detect",
        "embed",
        "index",
        "search",
        "dedupe",
        "status",
        "usage",
        "logs",
        "reset",
        "cache",
        "cache info",
        "cache clear",
    ),
    *("models", "models list", "models show", "models pull", "models verify", "models remove"),
    *("init", "doctor", "config", "trust", "sandbox", "new-backend"),
    *(
        "bench",
        "bench quality",
        "bench latency",
        "bench failover",
        "bench speed",
        "bench all",
        "bench report",
        "bench schema",
    ),
)


@pytest.fixture
def help_of(vision, monkeypatch):
    """The help of a command in one line per row, without the frames and types that Typer draws as it likes."""
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("COLUMNS", "200")

    def ask(command: str) -> str:
        result = vision(*command.split(), "--help")
        assert (result.exit_code, result.stderr) == (0, "")
        rows = (re.sub(r"[│╭╮╰╯─|]|<\S+>", " ", line) for line in result.stdout.splitlines())
        return "\n".join(" ".join(row.split()) for row in rows if row.strip())

    return ask


def test_the_help_is_as_it_was_agreed_upon(help_of):
    """Whoever changes an option changes this file, and sees what users will read."""
    said = "\n\n".join(help_of(command) for command in COMMANDS)
    assert said + "\n" == GOLDEN.read_text(encoding="utf-8")


def test_every_command_is_in_the_help(help_of):
    """None is hidden, and each has words of its own."""
    for command in COMMANDS[1:]:
        *group, name = command.split()
        assert re.search(rf"^{name} \w", help_of(" ".join(group)), re.MULTILINE)


def test_the_help_says_of_a_command_what_the_command_says_of_itself(help_of):
    """The benchmark's own help is another program's."""
    sentences = {name: sentence for rows in TABLE.values() for name, _, sentence in rows if name != "bench"}
    assert sentences == {name: help_of(name).splitlines()[1] for name in sentences}


def test_the_help_imports_no_command():
    """Nor anything that only commands need."""
    program = """
import sys
from vision_backends.cli import main
try:
    main(["--help"])
finally:
    print(*sys.modules, file=sys.stderr)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(run.stderr.split())
    assert "vision_backends.cli.app" in loaded
    assert not [name for name in loaded if name.startswith("vision_backends.cli.commands.")]
    assert loaded.isdisjoint({"asyncio", "numpy", "pydantic", "vision_backends.images", "vision_backends.router"})


@pytest.mark.parametrize("arguments", [[], ["paint"], ["describe", "--paint"]])
def test_what_cannot_be_understood_is_a_usage_error(vision, arguments):
    """Exit code 2; without any argument the help is shown."""
    result = vision(*arguments)
    assert result.exit_code == 2
    assert "Usage: vision" in result.stdout + result.stderr


def test_the_version_is_printed(capsys):
    """By the function that the console script calls, which leaves with exit code 0."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("vision")


def test_shells_complete_the_names_of_backends(vision, monkeypatch):
    """Typer's script asks the command like this."""
    monkeypatch.setenv("_VISION_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "vision describe --backend e")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert vision().stdout == "embedded\n"


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("vision reset e", "embedded\n"),
        ("vision usage --by ta", "task\n"),
        ("vision sandbox --play quota_gone_r", "quota_gone_retry_after\n"),
        ("vision describe --backends local,em", "local,embedded\n"),
        ("vision describe --backends local,lo", "\n"),
        ("vision bench fail", "failover\n"),
        ("vision bench quality --bu", "--budget-usd\n"),
        ("vision bench latency --backends local,em", "local,embedded\n"),
        ("vision bench all --tasks detect,e", "detect,embed\n"),
        ("vision bench quality --dataset sam", "sample\n"),
        ("vision bench speed --only one,pho", "one,photo\n"),
        ("vision bench report run", "\n"),
    ],
)
def test_shells_complete_what_else_has_names(vision, monkeypatch, words, completed):
    """Backends, keys to group by, faults to play, and what the benchmark takes; of several, none is offered twice."""
    monkeypatch.setenv("_VISION_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert vision().stdout == completed


def test_help_calls_the_program_what_was_typed_and_completion_what_is_installed(fresh_user):
    """As a module it has another name, under which no shell completes anything."""

    def run(*words):
        command = [sys.executable, "-m", "vision_backends", *words]
        surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=60, check=True).stdout

    assert "Usage: python -m vision_backends status" in run("status", "--help")
    assert "_VISION_COMPLETE=complete_bash" in run("--show-completion", "bash")


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_completes_with_the_script_that_the_command_gives_it(fresh_user):
    """In a shell as it is, the commands of the benchmark too."""
    command = fresh_user / "vision"
    command.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "from vision_backends.cli import main; main()" "$@"\n'
    )
    command.chmod(0o755)
    words = ("bench la", "bench latency --ro", "usage --by ta")
    program = 'eval "$(_VISION_COMPLETE=source_bash vision)"; declare -F _vision_completion\n' + "\n".join(
        f"COMP_WORDS=(vision {each}); COMP_CWORD={len(each.split())}; _vision_completion vision; echo ${{COMPREPLY[*]}}"
        for each in words
    )
    surroundings = {**os.environ, "PATH": f"{fresh_user}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [str(BASH), "--norc", "-c", program], env=surroundings, capture_output=True, text=True, timeout=60, check=True
    )
    assert (run.stdout, run.stderr) == ("_vision_completion\nlatency\n--rounds\ntask\n", "")


def test_an_installation_without_the_benchmark_says_so_but_not_to_a_shell(fresh_user):
    """A package with nothing beside it; what a shell completes is no place for messages."""
    (fresh_user / "vision_backends").symlink_to(ROOT / "vision_backends")
    surroundings = {**os.environ, "PYTHONPATH": str(fresh_user)}
    asked = {"_VISION_COMPLETE": "complete_bash", "COMP_WORDS": "vision bench qu", "COMP_CWORD": "2"}
    call = partial(subprocess.run, capture_output=True, text=True, timeout=60, check=False)
    program = [sys.executable, "-c", "from vision_backends.cli import main; main()", "bench", "quality"]
    run = call(program, env=surroundings)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("vision: The benchmark is not installed.")
    run = call(program, env=surroundings | asked)
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "", "")


def test_shells_complete_file_names_themselves(vision, monkeypatch):
    """The command offers nothing, and they fall back to files."""
    monkeypatch.setenv("_VISION_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "vision describe ph")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert vision().stdout.strip() == ""
