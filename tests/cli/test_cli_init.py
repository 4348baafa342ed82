"""``vision init``: what it finds, what it proposes, what it asks, and the file that it writes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import tomllib

import pytest
from conftest import process_env

from vision_backends import Router
from vision_backends.backends.model_cards import model_cards
from vision_backends.cli.config_file import write_config_file
from vision_backends.cli.proposal import embedded_rung, local_rung, to_file
from vision_backends.cli.rendering.exits import BAD_INPUT, INTERRUPTED
from vision_backends.cli.surroundings import Surroundings, looks_at_images
from vision_backends.config.loading import load_settings, read_configuration
from vision_backends.errors import InvalidRequestError
from vision_backends.testing import SandboxServer
from vision_backends.testing.sandbox import Fault

KEY = "sk-canary-0123456789abcdef"
WITH_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture(autouse=True)
def alone(fresh_user, monkeypatch):
    """A machine on which nothing is found that a test has not put there, and no file."""
    (fresh_user / "vision.toml").unlink()
    monkeypatch.delenv("VISION_CONFIG")
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_TOKEN"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def ollama(monkeypatch):
    """An Ollama with a model that sees and one that does not, where its variable says."""
    models = ["llama3.2:3b", "qwen3-vl:4b", "llava:7b"]
    with SandboxServer(keyless=True, models=models, owner="library") as server:
        monkeypatch.setenv("OLLAMA_HOST", server.root_url.partition("//")[2])
        yield server


@pytest.fixture
def lmstudio():
    """An LM Studio with two models that see."""
    with SandboxServer(keyless=True, models=["qwen2.5-vl-7b", "pixtral-12b"], owner="organization_owner") as server:
        yield server


@pytest.fixture
def at_terminal(fresh_user):
    """The command at a terminal of 80 columns: what a person types at each question → exit code and screen."""

    def run(*arguments: str, types: tuple[str, ...]) -> tuple[int, str]:
        command = [sys.executable, "-c", WITH_TERMINAL, "-m", "vision_backends", "init", *arguments]
        keyboard, terminal = pty.openpty()
        process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=process_env({"COLUMNS": "80"}),
            start_new_session=True,
        )
        os.close(terminal)
        screen, left, asked = b"", list(types), 0
        end = time.monotonic() + 60
        with contextlib.suppress(OSError):  # the terminal is closed
            while time.monotonic() < end:
                if select.select([keyboard], [], [], 0.1)[0]:
                    screen += os.read(keyboard, 4096)
                questions = len(re.findall(rb"(\]|out): ", screen.replace(b"\r\n", b"")))
                if left and questions > asked:
                    asked = questions
                    os.write(keyboard, left.pop(0).encode())
        code = process.wait(timeout=10)
        os.close(keyboard)
        assert left == [], screen.decode()
        return code, screen.decode().replace("\r\n", "\n")

    return run


def own_file(home):
    """Return the place of the user's own configuration."""
    return home / ".config" / "vision-backends" / "vision.toml"


class TestWithoutQuestions:
    """For scripts, with ``--yes``."""

    def test_the_ladder_is_made_of_what_is_there(self, vision_process, fresh_user, ollama, lmstudio):
        """Each rung with its reason; the file is the user's own, loads, and its ladder answers."""
        env = {"OPENAI_API_KEY": KEY}
        run = vision_process("init", "--yes", "--server", lmstudio.root_url, env=env)
        assert (run.returncode, run.stdout.decode()) == (0, f"{own_file(fresh_user)}\n")
        text = own_file(fresh_user).read_text("utf-8")
        assert KEY not in text + run.stderr.decode()
        read = tomllib.loads(text)
        assert [name for name in read["ladder"] if name != "local"] == ["openai", "lmstudio", "ollama", "embedded"]
        assert read["backends"]["ollama"] == {
            "kind": "openai",
            "preset": "ollama",
            "base_url": ollama.url.replace("127.0.0.1", "localhost"),
            "model": "qwen3-vl:4b",
        }
        assert read["backends"]["lmstudio"]["model"] == "qwen2.5-vl-7b"
        reasons = " ".join(text.replace("#", "").split())
        for words in ("OPENAI_API_KEY is set", "qwen3-vl:4b is said to see images", "always answers"):
            assert words in reasons
        assert "# Also there: llava:7b.\n" in text
        assert max(map(len, text.splitlines())) <= 80

    def test_the_ladder_that_was_written_answers(self, vision, fresh_user, make_photo, ollama, lmstudio):
        """The first server describes; when it hangs up, the next one does."""
        assert vision("init", "--yes", "--server", lmstudio.root_url).exit_code == 0
        photo = make_photo()
        first = vision("describe", photo, "--json")
        assert json.loads(first.stdout)["trace"]["backend"] == "lmstudio"
        lmstudio.play("quota_gone")
        with Router.from_config(cache={"enabled": False}) as router:
            assert router.describe(photo).trace.backend == "ollama"
        assert {request.model for request in ollama.requests if request.method == "POST"} == {"qwen3-vl:4b"}

    def test_nothing_is_sent_to_servers_but_questions_for_their_models(self, vision, ollama, lmstudio):
        """Neither a key nor a picture, and no more than one question each, and Ollama's own."""
        assert vision("init", "--yes", "--out", "-", "--server", lmstudio.root_url).exit_code == 0
        assert [request.path for request in ollama.requests] == ["/v1/models", "/api/tags"]
        assert [request.path for request in lmstudio.requests] == ["/v1/models", "/api/tags"]
        assert {request.size_bytes for request in (*ollama.requests, *lmstudio.requests)} == {0}
        assert all("authorization" not in request.headers for request in ollama.requests)

    def test_with_nothing_there_the_last_rung_is_the_ladder(self, vision, fresh_user):
        """And a sentence says what would bring a better one, if it is missing."""
        result = vision("init", "--yes", "--out", "-")
        ladder = tomllib.loads(result.stdout)["ladder"]
        assert ladder[-1] == "embedded"
        assert set(ladder) <= {"local", "embedded"}
        assert not own_file(fresh_user).exists()

    def test_a_provider_whose_model_nobody_can_guess_is_left_out(self, vision, monkeypatch):
        """The file says how to add it."""
        monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
        text = vision("init", "--yes", "--out", "-").stdout
        assert "openrouter" not in tomllib.loads(text)["ladder"]
        words = " ".join(text.replace("#", "").split())
        assert "OPENROUTER_API_KEY is set, but no model was named. Put openrouter on the ladder" in words
        assert "AZURE" not in text
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
        assert "azure" not in vision("init", "--yes", "--out", "-").stdout
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")
        words = " ".join(vision("init", "--yes", "--out", "-").stdout.replace("#", "").split())
        assert 'into [backends.azure]: deployment, endpoint and kind = "azure".' in words

    def test_a_server_without_a_model_that_sees_is_left_out(self, vision):
        """And named, with what its models are."""
        with SandboxServer(keyless=True, models=["llama3.2:3b"], owner="vllm") as server:
            url = server.root_url
            result = vision("init", "--yes", "--out", "-", "--server", url)
        assert "backends" not in tomllib.loads(result.stdout)
        assert f"{url} has no model that is known to see images." in " ".join(result.stdout.replace("#", "").split())
        assert "vLLM at" in result.stderr
        assert "llama3.2:3b" in result.stderr

    def test_a_server_that_hangs_or_talks_nonsense_is_as_good_as_not_there(self, vision):
        """It costs a moment, and no message that nobody understands."""
        with SandboxServer(keyless=True) as slow, SandboxServer(keyless=True) as odd:
            slow.play("stall")
            odd.play("html_200")
            result = vision("init", "--yes", "--out", "-", "--server", slow.root_url, "--server", odd.root_url)
        assert result.exit_code == 0
        assert "backends" not in tomllib.loads(result.stdout)
        assert "nothing at" in result.stderr

    def test_a_server_under_two_names_is_one_rung_and_its_many_models_do_not_fill_the_screen(self, vision):
        """The first name counts."""
        models = [f"llava:{number}b" for number in range(40)]
        with SandboxServer(keyless=True, models=models, owner="vllm") as server:
            port = server.root_url.rpartition(":")[2]
            urls = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]
            result = vision("init", "--yes", "--out", "-", "--server", urls[0], "--server", urls[1])
        tables = tomllib.loads(result.stdout)["backends"]
        assert [table["base_url"] for table in tables.values()] == [f"{urls[0]}/v1"]
        assert "32 more" in " ".join(result.stderr.split())
        assert len(result.stdout.splitlines()) < 40

    def test_only_servers_on_this_machine_are_looked_at(self, vision):
        """Whoever passes another address is told where it belongs."""
        result = vision("init", "--yes", "--server", "https://example.com/v1")
        assert result.exit_code == BAD_INPUT
        assert "is not the http:// address of a server on this machine" in result.stderr

    def test_what_openais_variable_names_is_no_server_of_openais(self, vision, monkeypatch):
        """It needs no key, and the reason says whose it is."""
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8765/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        result = vision("init", "--yes", "--out", "-", "--with-keys")
        assert "http://127.0.0.1:8765: OPENAI_BASE_URL names it" in result.stdout
        assert KEY not in result.stdout

    def test_the_report_can_be_read_by_programs(self, vision, fresh_user):
        """File and ladder."""
        report = json.loads(vision("init", "--yes", "--here", "--json").stdout)
        assert report["file"] == str(fresh_user / "vision.toml")
        assert report["ladder"][-1] == {"name": "embedded", "reason": "ships with the package, and always answers"}


class TestTheFile:
    """Where it is, who may read it, and that none is lost."""

    def test_one_in_the_folder_is_trusted_as_it_was_written(self, vision, fresh_user, ollama):
        """Until somebody changes it; a server's address is what a file that was only found may not set."""
        assert vision("init", "--yes", "--here").exit_code == 0
        assert not own_file(fresh_user).exists()
        assert read_configuration().found == "trusted"
        assert load_settings().table("ollama")["model"] == "qwen3-vl:4b"
        with (fresh_user / "vision.toml").open("a", encoding="utf-8") as file:
            file.write("# more\n")
        result = vision("status")
        assert result.exit_code == BAD_INPUT
        assert "then run: vision trust vision.toml\n" in result.stderr

    def test_one_that_exists_is_not_replaced_unasked(self, vision, fresh_user):
        """Unless that is asked for; the message says how."""
        own_file(fresh_user).parent.mkdir(parents=True)
        own_file(fresh_user).write_text("deadline_s = 5\n", encoding="utf-8")
        refused = vision("init", "--yes")
        assert refused.exit_code == BAD_INPUT
        assert "--replace" in refused.stderr
        assert own_file(fresh_user).read_text("utf-8") == "deadline_s = 5\n"
        assert vision("init", "--yes", "--replace").exit_code == 0
        assert "embedded" in load_settings().ladder

    def test_keys_are_written_only_when_that_is_asked_for_and_read_by_nobody_else(
        self, vision, fresh_user, monkeypatch
    ):
        """Nobody else may read the file then; one without them is as any."""
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert vision("init", "--yes", "--out", "plain.toml").exit_code == 0
        (fresh_user / "any").touch()
        assert KEY not in (fresh_user / "plain.toml").read_text("utf-8")
        readable = (fresh_user / "any").stat().st_mode & 0o644
        assert (fresh_user / "plain.toml").stat().st_mode & 0o777 == readable
        result = vision("init", "--yes", "--with-keys")
        assert own_file(fresh_user).stat().st_mode & 0o777 == 0o600
        monkeypatch.delenv("OPENAI_API_KEY")
        assert load_settings().table("openai")["api_key"] == KEY
        assert KEY not in result.stderr + result.stdout

    def test_a_link_to_it_stays_a_link(self, vision, fresh_user):
        """People keep such files elsewhere."""
        (fresh_user / "dotfiles").mkdir()
        (fresh_user / "dotfiles" / "vision.toml").write_text("deadline_s = 5\n", encoding="utf-8")
        own_file(fresh_user).parent.mkdir(parents=True)
        own_file(fresh_user).symlink_to(fresh_user / "dotfiles" / "vision.toml")
        assert vision("init", "--yes", "--replace").exit_code == 0
        assert own_file(fresh_user).is_symlink()
        assert "ladder" in (fresh_user / "dotfiles" / "vision.toml").read_text("utf-8")

    def test_a_place_that_cannot_be_written_is_an_error_that_names_it(self, vision, fresh_user):
        """Here a folder is in the way."""
        (fresh_user / "folder").mkdir()
        result = vision("init", "--yes", "--replace", "--out", "folder")
        assert result.exit_code == BAD_INPUT
        assert "'folder' cannot be written" in result.stderr
        assert [path.name for path in fresh_user.iterdir() if path.name.startswith(".folder")] == []

    def test_another_file_that_wins_here_is_named(self, vision, fresh_user):
        """So that nobody wonders."""
        (fresh_user / "vision.toml").write_text("deadline_s = 5\n", encoding="utf-8")
        result = vision("init", "--yes")
        assert "vision.toml is read here as well, and wins key by key" in result.stderr
        assert vision("init", "--yes", "--here", "--out", "x").exit_code == BAD_INPUT

    def test_a_file_that_appears_meanwhile_is_not_replaced(self, fresh_user):
        """Nothing remains of what was to be written, either."""
        (fresh_user / "there.toml").write_text("mine", encoding="utf-8")
        with pytest.raises(InvalidRequestError, match="is not replaced unasked"):
            write_config_file(fresh_user / "there.toml", "x", replace=False, is_secret=True)
        assert (fresh_user / "there.toml").read_text("utf-8") == "mine"
        assert [path.name for path in fresh_user.iterdir()] == ["there.toml"]


class TestQuestions:
    """At a terminal; Enter accepts."""

    def test_enter_accepts_everything(self, at_terminal, fresh_user, ollama):
        """Three questions, and nothing that is wider than the screen; what is here is shown a picture."""
        code, screen = at_terminal(types=("\n", "\n", "\n"))
        assert code == 0
        assert "ollama" in load_settings().ladder
        assert "Proposed ladder, best first:\n  1 ollama" in screen
        assert "vision: ollama: qwen3-vl:4b sees images (found out on " in screen
        ours = [line for line in screen.splitlines() if "vision: " not in line and "?" not in line]
        assert [line for line in ours if len(line) > 80 and not line.startswith("/")] == []  # but for a path

    def test_no_asks_rung_by_rung(self, at_terminal, fresh_user, ollama, monkeypatch):
        """Which to keep, and which model; what is not there is asked for once more."""
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        typed = ("n\n", "n\n", "\n", "qwen\n", "llava:7b\n", "n\n", "n\n", "\n")
        code, screen = at_terminal(types=typed if local_is_proposed() else (*typed[:5], *typed[6:]))
        assert code == 0, screen
        assert "there is no qwen there" in screen
        assert load_settings().ladder == ("ollama", "embedded")
        assert load_settings().table("ollama")["model"] == "llava:7b"
        assert "fits" not in own_file(fresh_user).read_text("utf-8")

    def test_a_server_that_sees_nothing_is_left_out(self, at_terminal, fresh_user, ollama):
        """What its name says is one thing; nothing else is lost for it."""
        said = {"error": {"message": "This model does not support image input.", "type": "invalid_request_error"}}
        ollama.play(Fault(name="text only", status=400, body=said, paths=("/v1/chat/completions",)))
        code, screen = at_terminal("--here", types=("\n", "\n", "\n"))
        assert code == 0
        assert "sees no images" in screen
        assert "ollama" not in load_settings().ladder
        assert load_settings().ladder[-1] == "embedded"

    def test_nothing_that_costs_money_is_asked_without_a_yes(self, at_terminal, monkeypatch):
        """Enter is a no there; a server that cannot be reached stays on the ladder after a yes."""
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        code, screen = at_terminal("--here", types=("\n", "\n", "\n"))
        assert (code, "for a fraction of a cent? [y/N]" in screen) == (0, True)
        assert "vision: openai:" not in screen
        with SandboxServer() as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            server.play("quota_gone")
            code, screen = at_terminal("--replace", types=("\n", "y\n", "\n"))
            assert (code, load_settings().ladder[0]) == (0, "openai")
        assert KEY not in screen

    def test_a_model_that_nobody_can_guess_is_asked_for(self, at_terminal, fresh_user, monkeypatch):
        """It is written as it was typed, whatever characters it has."""
        monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
        code, _ = at_terminal("--here", types=('qwen/"vl"\n', "\n", "\n", "\n"))
        assert code == 0
        table = tomllib.loads((fresh_user / "vision.toml").read_text("utf-8"))["backends"]["openrouter"]
        assert table == {"kind": "openai", "preset": "openrouter", "model": 'qwen/"vl"'}

    def test_a_deployment_of_azure_has_the_address_that_its_variable_names(self, at_terminal, fresh_user, monkeypatch):
        """Without the variable nobody knows whose resource it is."""
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")
        code, screen = at_terminal("--here", types=("eyes\n", "\n", "\n", "\n"))
        assert (code, "Which deployment of Azure OpenAI" in screen) == (0, True)
        table = load_settings().table("azure")
        assert table == {"kind": "azure", "endpoint": "https://mine.openai.azure.com", "deployment": "eyes"}
        with Router.from_config() as router:
            assert router.explain("describe").verdicts[0].model == "eyes"
            assert router.explain("describe").verdicts[0].error is None

    @pytest.mark.parametrize("types", [("\x03",), ("\n", "\x03"), ("\n", "\x04")])
    def test_ctrl_c_leaves_nothing(self, at_terminal, fresh_user, types):
        """At any question; end of input is the same."""
        code, _ = at_terminal(types=types)
        assert code == INTERRUPTED
        assert not own_file(fresh_user).parent.exists()

    def test_another_file_is_replaced_only_after_a_yes(self, at_terminal, fresh_user):
        """Enter keeps it."""
        (fresh_user / "vision.toml").write_text("deadline_s = 5\n", encoding="utf-8")
        code, screen = at_terminal("--here", types=("\n", "\n"))
        assert (code, "vision.toml exists. Replace it? [y/N]: " in screen) == (0, True)
        assert "nothing was written" in screen
        assert (fresh_user / "vision.toml").read_text("utf-8") == "deadline_s = 5\n"
        assert at_terminal("--here", types=("\n", "y\n"))[0] == 0
        assert "ladder" in (fresh_user / "vision.toml").read_text("utf-8")

    def test_nobody_at_a_terminal_is_an_error_that_says_what_to_pass(self, vision_process, fresh_user):
        """Nothing is looked at or written."""
        run = vision_process("init")
        assert run.returncode == BAD_INPUT
        assert "Pass --yes" in run.stderr.decode()
        assert "What is here" not in run.stderr.decode()
        assert not own_file(fresh_user).exists()


def local_is_proposed() -> bool:
    """Return whether this machine has room for the default captioner."""
    from vision_backends.cli.surroundings import look_around

    return local_rung(look_around()) is not None


def found_with(*names: str, gpu: str | None = None, free_bytes: int = 64_000_000_000) -> Surroundings:
    """Return surroundings in which some models are on this machine."""
    cached = tuple(card for card in model_cards() if card.name in names)
    return Surroundings(extras={"local": True}, cached=cached, gpu=gpu, free_bytes=free_bytes)


SMALL, LARGE = "HuggingFaceTB/SmolVLM-256M-Instruct", "Qwen/Qwen3-VL-2B-Instruct"


@pytest.mark.parametrize(
    ("found", "model"),
    [
        (found_with(), None),
        (found_with(SMALL, LARGE), SMALL),
        (found_with(SMALL, LARGE, gpu="NVIDIA L4, 23034 MiB"), LARGE),
        (found_with(SMALL, LARGE, gpu="NVIDIA L4, 23034 MiB", free_bytes=3_000_000_000), SMALL),
    ],
)
def test_the_local_model_is_one_that_is_there_and_suits_the_machine(found, model):
    """The largest on a GPU, the smallest without, as far as memory goes; else the default, which is fetched."""
    rung = local_rung(found)
    assert rung.table == ({} if model is None else {"caption_model": model})
    assert ("is on this machine already" if model else "it is fetched") in rung.reason


@pytest.mark.parametrize("found", [Surroundings(extras={"local": False}), found_with(free_bytes=500_000_000)])
def test_there_is_no_local_rung_without_packages_or_memory(found):
    """It could answer nothing."""
    assert local_rung(found) is None
    assert tomllib.loads(to_file([embedded_rung()], about="x"))["ladder"] == ["embedded"]


@pytest.mark.parametrize(
    "name", ["qwen3-vl:4b", "Qwen/Qwen2.5-VL-7B", "llava:7b", "gemma3:12b", "llama3.2-vision", "google/gemma-4-12b"]
)
def test_models_that_see_are_known_by_their_names(name):
    """Those that people run themselves."""
    assert looks_at_images(name)


@pytest.mark.parametrize("name", ["llama3.2:3b", "gpt-oss:20b", "qwen3:8b", "nomic-embed-text", "gemma3n:e4b", "vllm"])
def test_models_of_words_are_not_taken_for_such(name):
    """A rung that cannot see helps nobody."""
    assert not looks_at_images(name)
