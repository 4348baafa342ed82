"""A model that is not here: commands end with their answers, so that none promises to fetch it later."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from conftest import drain, process_env
from loopback_hub import write_model

LOCAL = """
[local]
caption_model = "acme/tiny"
download = "{download}"
"""
FAKE = "vision_backends.testing.fake:FakeBackend"
QUESTION = ("--prompt", "What is it?")
"""Which BLIP is known not to answer once it is here: so nothing is loaded, which would take seconds."""

MISSING = "local: acme/tiny is not on this machine yet. Run: vision models pull acme/tiny"


@pytest.fixture
def hub(loopback_hub, tmp_path, monkeypatch):
    """A hub with acme/tiny, of 2 MB."""
    loopback_hub.publish("acme/tiny", write_model(tmp_path / "tiny", megabytes=2, config={"model_type": "blip"}))
    monkeypatch.setenv("HF_ENDPOINT", loopback_hub.endpoint)
    return loopback_hub


@pytest.fixture
def at_terminal():
    """The command at a terminal whose user types something; returns exit code, standard output and the screen."""

    def run(*arguments, typed):
        keyboard, terminal = pty.openpty()
        screen = io.BytesIO()
        reader = threading.Thread(target=drain, args=(keyboard, screen))
        reader.start()
        command = [sys.executable, "-m", "vision_backends", *arguments]
        env = process_env({"COLUMNS": "200", "TERM": "xterm"})
        with subprocess.Popen(command, stdin=terminal, stdout=-1, stderr=terminal, env=env) as process:
            os.write(keyboard, typed)
            out, _ = process.communicate(timeout=60)
        os.close(terminal)
        reader.join()
        os.close(keyboard)
        return process.returncode, out.decode(), re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue().decode())

    return run


@pytest.mark.parametrize("download", ["background", "never"])
def test_a_script_is_told_the_command_that_fetches_a_model(hub, vision_process, make_photo, use_ladder, download):
    """Nothing is begun that would end with the process, and nobody is asked."""
    use_ladder("local", FAKE, more=LOCAL.format(download=download))
    done = vision_process("describe", make_photo())
    assert done.returncode == 0
    assert done.stderr.decode() == f"vision: fake answered, because {MISSING}\n"
    assert hub.asked == []


def test_it_is_told_where_nothing_can_answer_as_well(hub, vision_process, make_photo, use_ladder):
    """In the table of rungs."""
    use_ladder("local", more=LOCAL.format(download="background"))
    done = vision_process("describe", make_photo())
    assert done.returncode == 3
    assert "→ Run: vision models pull acme/tiny" in done.stderr.decode()


def test_at_a_terminal_it_is_fetched_with_a_bar_if_the_user_agrees(
    hub, at_terminal, make_photo, use_ladder, fresh_user
):
    """What it costs is shown before."""
    use_ladder("local", FAKE, more=LOCAL.format(download="background"))
    code, out, screen = at_terminal("describe", make_photo(), *QUESTION, typed=b"y\n")
    assert (code, out) == (0, "fake says to 'What is it?': 64×48 px\n")
    assert "Fetch 2 MB? [y/N]" in screen
    assert "acme/tiny ━" in screen
    assert MISSING not in screen
    weights = [*(fresh_user / "huggingface").rglob("*.safetensors")]
    assert [file.stat().st_size > 2_000_000 for file in weights] == [True]


def test_at_a_terminal_a_no_leaves_it_to_the_next_rung(hub, at_terminal, make_photo, use_ladder):
    """Who says no is told the command for later."""
    use_ladder("local", FAKE, more=LOCAL.format(download="background"))
    code, out, screen = at_terminal("describe", make_photo(), typed=b"\n")
    assert (code, out) == (0, "fake says: 64×48 px\n")
    assert MISSING in screen
    assert not [line for line in hub.asked if "/resolve/" in line]


def test_nobody_is_asked_where_a_better_rung_answers(hub, at_terminal, make_photo, use_ladder):
    """The model is not needed."""
    use_ladder(FAKE, "local", more=LOCAL.format(download="background"))
    code, out, screen = at_terminal("describe", make_photo(), typed=b"")
    assert (code, out, screen) == (0, "fake says: 64×48 px\n", "")
    assert hub.asked == []


@pytest.mark.parametrize("path", ["mistyped.png", "empty", "notes"])
def test_nothing_is_fetched_for_what_nobody_can_be_asked_about(
    hub, at_terminal, vision_process, use_ladder, fresh_user, path
):
    """A path that is mistyped, and folders without images, are told first."""
    (fresh_user / "empty").mkdir()
    (fresh_user / "notes" / "more").mkdir(parents=True)
    use_ladder("local", FAKE, more=LOCAL.format(download="background"))
    code, _, screen = at_terminal("describe", path, typed=b"")
    assert (code, hub.asked) == (2, [])
    assert screen.count(path) == 1
    use_ladder("local", FAKE, more=LOCAL.format(download="wait"))
    assert vision_process("describe", path).returncode == 2
    assert hub.asked == []


def test_a_script_whose_configuration_waits_for_models_fetches_first(hub, vision_process, make_photo, use_ladder):
    """However long that takes: the time of the call begins when it is here."""
    use_ladder("local", FAKE, more=LOCAL.format(download="wait"))
    done = vision_process("describe", make_photo(), *QUESTION)
    assert done.stdout.decode() == "fake says to 'What is it?': 64×48 px\n"
    assert MISSING not in done.stderr.decode()
    assert [line for line in hub.asked if "/resolve/" in line]


def test_a_hub_that_cannot_be_reached_leaves_it_to_the_next_rung(vision_process, make_photo, use_ladder):
    """What went wrong and the command for later are both told."""
    use_ladder("local", FAKE, more=LOCAL.format(download="wait"))
    done = vision_process("describe", make_photo())
    assert (done.returncode, bool(done.stdout)) == (0, True)
    assert MISSING in done.stderr.decode()
    assert done.stderr.count(b"\n") == 2


@pytest.mark.parametrize("download", ["background", "wait"])
def test_a_local_rung_of_another_name_obeys_its_own_table(hub, vision_process, make_photo, use_ladder, download):
    """A command fetches where that table says so, and nothing behind the back of a script."""
    more = LOCAL.format(download="never") + (
        f'[backends.small]\nkind = "local"\ncaption_model = "acme/tiny"\ndownload = "{download}"\n'
    )
    use_ladder("small", "embedded", more=more)
    result = vision_process("describe", make_photo(), *(QUESTION if download == "wait" else ()))
    fetched = any("model.safetensors" in line and "/resolve/" in line for line in hub.asked)
    assert fetched is (download == "wait")
    assert fetched or hub.asked == []
    assert (b"small: acme/tiny is not on this machine yet" in result.stderr) is not fetched
