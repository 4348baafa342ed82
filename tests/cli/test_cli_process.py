"""The command as a process of its own: streams, signals, names of any bytes, and what is imported."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest
from conftest import process_env

from vision_backends.storage import open_store

OTHERS_WORK = {
    "vision_backends.backends.local.models.captioner",
    "vision_backends.backends.local.models.detector",
    "vision_backends.backends.local.models.embedder",
    "vision_backends.backends.local.runtime.loaded_model",
    "vision_backends.backends.local.runtime.micro_batcher",
}
"""Modules that a rung does not need to say why it cannot answer."""

SECRET_NAME = b"caf\xe9\n[red].png"


def test_python_m_is_the_command(vision_process, make_photo):
    """UTF-8 on standard output, nothing on standard error."""
    done = vision_process("describe", make_photo())
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, "fake says: 64×48 px\n", b"")


def test_an_image_can_be_piped_in(vision_process, make_photo, fresh_user):
    """Binary, as it is."""
    done = vision_process("describe", "-", stdin=(fresh_user / make_photo()).read_bytes())
    assert done.stdout.decode() == "fake says: 64×48 px\n"


def test_a_name_of_any_bytes_is_opened_shown_and_handed_on(vision_process, make_photo):
    """It stays on its line, and JSON has it so that programs can open the file again."""
    make_photo(os.fsdecode(SECRET_NAME))
    many = vision_process("describe", SECRET_NAME, b"missing\xff.png")
    assert many.returncode == 4
    assert many.stdout.decode().splitlines() == ["caf\\udce9\\n[red].png: fake says: 64×48 px"]
    assert "missing\\udcff.png" in many.stderr.decode()
    source = json.loads(vision_process("describe", SECRET_NAME, "--json").stdout)["source"]
    assert os.fsencode(source) == SECRET_NAME


def test_an_answer_that_the_terminal_cannot_encode_is_still_given(vision_process, make_photo, use_ladder):
    """With escapes; JSON stays valid."""
    use_ladder("rungs:Spanish")
    make_photo()
    russian = {"PYTHONIOENCODING": "koi8-r"}
    assert vision_process("describe", "photo.png", env=russian).stdout == b"Un ni\\xf1o\n"
    for env in (russian, {"PYTHONIOENCODING": "ascii"}):
        assert json.loads(vision_process("describe", "photo.png", "--json", env=env).stdout)["text"] == "Un niño"


def test_a_pipe_that_closes_ends_it_without_a_word(make_photo, use_ladder):
    """As `| head -1` does in the middle of a long list."""
    use_ladder("rungs:Slow")
    names = [make_photo(f"{number}.png", size=(8, 8)) for number in range(3)]
    command = [sys.executable, "-m", "vision_backends", "describe", *names]
    with subprocess.Popen(command, stdout=-1, stderr=-1, env=process_env()) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_ctrl_c_ends_it_without_a_word(make_photo, use_ladder, fresh_user):
    """At once, although the backend is still at work."""
    use_ladder("rungs:Stuck")
    command = [sys.executable, "-m", "vision_backends", "describe", make_photo()]
    with subprocess.Popen(command, stdout=-1, stderr=-1, env=process_env()) as process:
        while not (fresh_user / "asked").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        out, err = process.communicate()
        assert time.monotonic() - interrupted < 5.0
    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_was_answered_before_an_end_in_the_middle_is_printed_and_booked(
    make_photo, use_ladder, fresh_user, vision, ending, code
):
    """Answers were paid for, whoever ends the program."""
    use_ladder("rungs:StuckAtLast")
    env = process_env({"VISION_STATE": str(fresh_user / "state.sqlite")})
    names = [make_photo(f"{number}.png", size=(20 + number, 8)) for number in range(3)]
    command = [sys.executable, "-m", "vision_backends", "describe", *names, make_photo("last.png", size=(9, 9))]
    with subprocess.Popen(command, stdout=-1, stderr=-1, env=env) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in names]
        while not (fresh_user / "asked").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(ending)
        out, err = process.communicate(timeout=30)
    assert lines == [f"{name}: stuck says: {20 + number}×8 px\n" for number, name in enumerate(names)]
    assert (process.returncode, out, err) == (code, b"", b"vision: interrupted after 3 of 4\n")
    with closing(open_store(fresh_user / "state.sqlite")) as store:
        assert [row.outcome for row in store.rows()][:3] == ["answered"] * 3


def test_standard_input_that_is_the_terminal_is_not_waited_for():
    """Nobody types an image."""
    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "vision_backends", "describe", "-"]
    done = subprocess.run(command, stdin=terminal, capture_output=True, timeout=60, check=False, env=process_env())
    os.close(terminal)
    os.close(keyboard)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"pipe an image into it" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], {"pydantic", "numpy", "PIL", "onnxruntime", "openai", "torch"}),
        (["--version"], {"pydantic", "rich", "numpy", "PIL", "onnxruntime", "openai", "torch"}),
        (
            ["describe", "photo.png"],
            {"rich", "onnxruntime", "openai", "torch", "http.server", "vision_backends.testing.sandbox"},
        ),
    ],
)
def test_a_command_imports_only_what_it_needs(make_photo, arguments, heavy):
    """The cold start is what a person waits for."""
    make_photo()
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from vision_backends.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, check=True, env=process_env())
    assert heavy.isdisjoint(done.stderr.decode().split())


def test_the_last_rung_answers_without_importing_what_the_others_compute_with(make_photo, fresh_user):
    """Without a key and without weights they only have to say so; of numpy it needs no masked arrays."""
    (fresh_user / "vision.toml").unlink(missing_ok=True)
    make_photo()
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from vision_backends.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", program, "describe", "photo.png", "--json"]
    env = {name: value for name, value in process_env().items() if not name.startswith(("VISION_", "OPENAI_"))}
    done = subprocess.run(command, capture_output=True, check=True, env=env, cwd=fresh_user)
    assert json.loads(done.stdout)["trace"]["backend"] == "embedded"
    unneeded = {"openai", "aiohttp", "torch", "transformers", "pydantic_settings", "numpy.ma", *OTHERS_WORK}
    assert unneeded.intersection(done.stderr.decode().split()) == set()


@pytest.mark.parametrize(("own", "seen"), [({}, "4"), ({"OPENBLAS_THREAD_TIMEOUT": "20"}, "20")])
def test_the_threads_of_numpy_sleep_until_there_is_work(make_photo, fresh_user, own, seen):
    """They would look for it for longer than a model takes for an image; who has set how long is obeyed."""
    (fresh_user / "vision.toml").unlink(missing_ok=True)
    make_photo()
    program = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy':\n"
        "            print('numpy', os.environ.get('OPENBLAS_THREAD_TIMEOUT'), file=sys.stderr)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "from vision_backends.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    print('after', os.environ.get('OPENBLAS_THREAD_TIMEOUT'), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program, "describe", "photo.png", "--quiet"]
    env = {name: value for name, value in process_env(own).items() if not name.startswith(("VISION_", "OPENAI_"))}
    done = subprocess.run(command, capture_output=True, check=True, env=env, cwd=fresh_user)
    assert done.stderr.decode().splitlines() == [f"numpy {seen}", f"after {own.get('OPENBLAS_THREAD_TIMEOUT')}"]


def test_the_end_looks_for_no_garbage_in_memory_that_goes_as_a_whole(make_photo):
    """Which would take longer than a small model takes for an image."""
    program = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print(gc.get_freeze_count(), file=sys.stderr))\n"
        "from vision_backends.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", program, "describe", make_photo()]
    done = subprocess.run(command, capture_output=True, check=True, env=process_env())
    assert int(done.stderr) > 10_000


def run_with(redirection: str, *arguments: str, unbuffered: str = "") -> tuple[int, str, str]:
    """Run the command with a stream that a shell has redirected; return exit code and both streams."""
    shell = f'exec "$0" -m vision_backends "$@" {redirection}'
    env = process_env({"PYTHONUNBUFFERED": unbuffered})
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable, *arguments], capture_output=True, env=env, timeout=60, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        (["describe", "photo.png"], ""),
        (["describe", "photo.png", "--stream"], "1"),
        (["embed", "photo.png", "--json"], ""),
        (["models"], "1"),
        (["--help"], ""),
        (["--version"], "1"),
    ],
)
def test_a_full_disk_is_called_what_it_is(make_photo, arguments, unbuffered):
    """It is no bug of this program."""
    make_photo()
    code, _, err = run_with(">/dev/full", *arguments, unbuffered=unbuffered)
    assert (code, err) == (2, "vision: Standard output cannot be written: No space left on device.\n")


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_an_answer_is_given_also_where_nothing_can_be_told(make_photo, use_ladder, redirection):
    """Why it is degraded is the less important part; the exit code stays."""
    use_ladder("rungs:Dead", "vision_backends.testing.fake:FakeBackend")
    assert run_with(redirection, "describe", make_photo()) == (0, "fake says: 64×48 px\n", "")
    assert run_with(redirection, "describe", "missing.png")[0] == 2
    assert run_with(redirection, "describe", "--paint")[0] == 2


@pytest.mark.parametrize("arguments", [["describe", "photo.png"], ["describe", "photo.png", "--json"], ["models"]])
def test_output_that_was_closed_is_not_wanted(make_photo, arguments):
    """The command does its work all the same."""
    make_photo()
    assert run_with(">&-", *arguments) == (0, "", "")


def test_standard_input_that_was_closed_is_empty():
    """There is no image in it."""
    code, _, err = run_with("<&-", "describe", "-")
    assert code == 2
    assert "is empty" in err
