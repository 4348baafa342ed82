"""``vision bench`` and ``python -m benchmarks``: options, messages, exit codes, and a file that fits its schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import synthetic
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from benchmarks.command import app
from benchmarks.run import REPORT_FILES, report_folder
from benchmarks.sandbox_process import client_environment
from vision_backends.cli import main
from vision_backends.testing import SandboxServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench():
    """The command line in this process, as ``python -m benchmarks``."""

    def run(*words):
        return CliRunner().invoke(app, words, prog_name="bench")

    return run


@pytest.fixture
def config(fresh_user):
    """A configuration in the working directory with the embedded rung."""
    (fresh_user / "vision.toml").write_text('ladder = ["embedded"]\n')


def test_a_run_fits_the_schema_and_says_how_it_was_made(bench, config, lines, tmp_path):
    """Options, configuration, machine, versions, seed and commit."""
    out = tmp_path / "run.json"
    done = bench(
        "quality", "--dataset", str(lines), "--tasks", "detect", "--limit", "2", "--seed", "3", "--out", str(out)
    )
    assert (done.exit_code, done.stdout.strip()) == (0, str(out))
    run = json.loads(out.read_text())
    schema = json.loads(bench("schema").stdout)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(run)
    assert run["command"][0] == "quality"
    assert (run["seed"], run["settings"]["options"]["limit"]) == (3, 2)
    assert run["settings"]["configuration"]["cache"]["enabled"] is False
    assert run["settings"]["configuration"]["state"] == "memory"
    assert run["machine"]["packages"]["onnxruntime"]
    assert run["finished_at"] >= run["started_at"]
    assert [result["images"] for result in run["quality"]] == [2]


def test_a_run_without_a_name_gets_a_new_file(bench, config, lines, fresh_user):
    """In the working directory; its path is the only thing on standard output."""
    done = bench("quality", "--dataset", str(lines), "--tasks", "embed", "--limit", "1")
    assert done.exit_code == 0
    assert (fresh_user / done.stdout.strip()).is_file()


def test_nothing_is_kept_in_the_users_state(bench, config, lines, fresh_user):
    """Neither cache nor ledger nor gates."""
    assert bench("quality", "--dataset", str(lines), "--tasks", "embed", "--limit", "1").exit_code == 0
    assert not list(fresh_user.rglob("*.sqlite*"))


@pytest.mark.parametrize(
    ("words", "trouble"),
    [
        (["quality", "--tasks", "describe,paint"], "--tasks 'paint' is not valid"),
        (["quality", "--backends", "opnai"], "Did you mean 'openai'?"),
        (["quality", "--backends", ","], "--backends"),
        (["quality", "--dataset", "no-such-folder"], "no data set 'no-such-folder'"),
        (["quality", "--budget-usd", "0"], "--budget-usd 0"),
        (["quality", "--config", "none.toml"], "none.toml"),
        (["quality", "--out", "no/such/folder/run.json"], "cannot be written"),
        (["latency", "--concurrency", "1,two"], "--concurrency 'two' is not valid"),
        (["quality", "--resume", "none.json"], "'none.json' cannot be read"),
        (["quality", "--resume", "none.json", "--limit", "2"], "leave out --limit"),
        (["report", "none.json"], "'none.json' cannot be read"),
        (["speed", "--only", "lists,paint"], "--only 'paint' is not a subject"),
        (["paint"], "No such command"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(bench, config, fresh_user, words, trouble):
    """With exit code 2, and no file is left behind."""
    done = bench(*words)
    assert done.exit_code == 2
    assert trouble in " ".join(done.stderr.replace("│", "").split())
    assert not list(fresh_user.glob("benchmark-*"))


def test_a_run_is_resumed_only_with_the_configuration_that_it_was_begun_with(bench, config, lines, fresh_user):
    """Else one run would hold answers of two."""
    out = fresh_user / "run.json"
    assert (
        bench("quality", "--dataset", str(lines), "--tasks", "embed", "--limit", "1", "--out", str(out)).exit_code == 0
    )
    run = json.loads(out.read_text())
    out.write_text(json.dumps(run | {"finished_at": None}))
    (fresh_user / "vision.toml").write_text('ladder = ["embedded"]\n[embedded]\nmin_score = 0.4\n')
    done = bench("quality", "--resume", str(out))
    assert done.exit_code == 2
    assert "configuration has changed" in done.stderr
    (fresh_user / "vision.toml").write_text('ladder = ["embedded"]\n')
    assert bench("quality", "--resume", str(out)).exit_code == 0


def test_vision_bench_is_the_same_program(config, lines, fresh_user, capsys):
    """All words go to it, its help included."""
    with pytest.raises(SystemExit) as ended:
        main(["bench", "quality", "--dataset", str(lines), "--tasks", "embed", "--limit", "1", "--out", "run.json"])
    assert ended.value.code == 0
    assert json.loads((fresh_user / "run.json").read_text())["finished_at"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["bench", "quality", "--help"])
    assert ended.value.code == 0
    assert "vision bench quality" in capsys.readouterr().out


@pytest.fixture
def runs(tmp_path):
    """Two files of runs that nobody has measured."""
    paths = [tmp_path / name for name in ("before.json", "after.json")]
    for path, backends in zip(paths, (("openai", "embedded"), ("embedded",)), strict=True):
        path.write_text(synthetic.make_run(backends=backends, failover=(), examples=()).model_dump_json())
    return paths


def test_each_report_has_a_folder_of_its_own(bench, runs):
    """Beside the first run, named by date and time; what is printed is the path of the page to open."""
    pages = [bench("report", *map(str, words)).stdout.strip() for words in (runs[:1], runs, runs)]
    assert len(set(pages)) == 3
    for page in map(Path, pages):
        assert re.fullmatch(r"report-\d{8}-\d{6}(-\d)?", page.parent.name)
        assert page.parent.parent == runs[0].parent
        assert {path.name for path in page.parent.iterdir()} == set(REPORT_FILES)
        assert page.name == REPORT_FILES[-1]


def test_reports_of_the_same_second_have_folders_of_their_own(tmp_path):
    """A number tells them apart."""
    at = datetime(2026, 11, 28, 21, 46, 0, tzinfo=UTC)
    folders = []
    for _ in range(3):
        folders.append(report_folder(tmp_path / "run.json", at=at))
        folders[-1].mkdir()
    assert [each.name for each in folders] == [f"report-20261128-214600{number}" for number in ("", "-2", "-3")]


def test_a_report_never_takes_the_place_of_another(bench, config, runs, fresh_user, lines):
    """A folder that holds one is refused, and before anything is measured; so is what is no folder."""
    folder = fresh_user / "shown"
    assert bench("report", str(runs[0]), "--folder", str(folder)).stdout.strip() == str(folder / "report.html")
    kept = (folder / "report.html").read_bytes()
    for words in (("report", str(runs[1])), ("all", "--dataset", str(lines), "--out", "run.json")):
        done = bench(*words, "--folder", str(folder))
        assert done.exit_code == 2
        assert "already exists" in done.stderr
        assert "leave it out" in done.stderr
    assert (folder / "report.html").read_bytes() == kept
    assert not (fresh_user / "run.json").exists()
    done = bench("report", str(runs[0]), "--folder", str(runs[1]))
    assert (done.exit_code, "is a file, not a folder" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("typed", "program"),
    [
        (["-m", "benchmarks"], "python -m benchmarks"),
        (["-m", "vision_backends", "bench"], "python -m vision_backends bench"),
        (["-c", "from vision_backends.cli import main; main()", "bench"], "vision bench"),
    ],
)
def test_texts_call_the_program_what_the_reader_typed(config, lines, fresh_user, typed, program):
    """In its help, in the run's file, and on the page."""

    def run(*words):
        environment = client_environment() | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        command = [sys.executable, *typed, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=100).stdout

    assert f"Usage: {program} quality" in run("quality", "--help")
    run(
        "quality",
        "--dataset",
        str(lines),
        "--tasks",
        "embed",
        "--limit",
        "1",
        "--backends",
        "embedded",
        "--out",
        "a.json",
    )
    assert json.loads((fresh_user / "a.json").read_text())["program"] == program
    page = Path(run("report", "a.json").strip()).read_text()
    assert f"{program} quality --backends embedded" in page


def test_an_interrupted_run_says_how_to_go_on_in_the_readers_words(config, lines, fresh_user):
    """The command can be pasted."""
    program = (
        "import benchmarks.quality\n"
        "from benchmarks.command import main\n"
        "def interrupt(*_): raise KeyboardInterrupt\n"
        "benchmarks.quality.measure = interrupt\n"
        f"main(['quality', '--dataset', {str(lines)!r}, '--out', 'a run.json'], name='vision bench')\n"
    )
    environment = client_environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 130
    assert "go on with: vision bench quality --resume 'a run.json'" in done.stderr


def test_a_missing_extra_is_named_with_the_command_that_brings_it(config, lines):
    """Before anything is asked."""
    program = (
        "import sys\n"
        "sys.modules['pycocotools'] = None\n"
        "from benchmarks.command import main\n"
        f"main(['quality', '--dataset', {str(lines)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'vision-backends[bench]'" in done.stderr


def test_a_server_that_is_not_openais_is_named_once(bench, fresh_user, lines):
    """It gets the pictures."""
    with SandboxServer() as server:
        words = f"openai is {server.url.removesuffix('/v1')}, not a server of OpenAI"
        table = f'[openai]\nbase_url = "{server.url}"\napi_key = "{server.api_key}"\n'
        (fresh_user / "named.toml").write_text(table)
        quality = ("quality", "--dataset", str(lines), "--tasks", "detect", "--limit", "1", "--config", "named.toml")
        for backends, times in (("openai,embedded", 1), ("embedded", 0)):
            assert bench(*quality, "--backends", backends, "--out", f"{times}.json").stderr.count(words) == times
