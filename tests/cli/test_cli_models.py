"""``vision models``: the list, and what is fetched, checked and removed, against a hub on loopback."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from conftest import drain, process_env
from loopback_hub import commit_of, write_model

from vision_backends.backends.model_cards import asset, model_cards

MAIN = commit_of("main")

LOCAL = """
[local]
caption_model = "acme/tiny"
embedding_model = "acme/second@next"
detection_model = "{folder}"
open_vocabulary_model = ""
"""


@pytest.fixture
def published(loopback_hub, tmp_path, use_ladder, monkeypatch):
    """A hub with acme/tiny and acme/second, both configured beside a folder."""
    folder = write_model(tmp_path / "own")
    loopback_hub.publish("acme/tiny", write_model(tmp_path / "tiny", megabytes=2), licence="bsd-3-clause")
    loopback_hub.publish("acme/second", folder, licence=None).branches["next"] = folder
    use_ladder("embedded", more=LOCAL.format(folder=folder))
    monkeypatch.setenv("HF_ENDPOINT", loopback_hub.endpoint)
    return loopback_hub


@pytest.fixture
def run(published, vision_streams):
    """The command in this process; returns exit code and both streams as text."""
    return partial(vision_streams, "models")


@pytest.fixture
def run_process(published, vision_process):
    """The same as a process."""

    def start(*arguments):
        done = vision_process("models", *arguments)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return start


@pytest.fixture
def run_at_terminal(published):
    """The command at a terminal whose user types something; returns exit code, standard output and the screen."""

    def start(*arguments, typed):
        keyboard, terminal = pty.openpty()
        screen = io.BytesIO()
        reader = threading.Thread(target=drain, args=(keyboard, screen))
        reader.start()
        command = [sys.executable, "-m", "vision_backends", "models", *arguments]
        env = process_env({"COLUMNS": "100", "TERM": "xterm"})
        with subprocess.Popen(command, stdin=terminal, stdout=-1, stderr=terminal, env=env) as process:
            os.write(keyboard, typed)
            out, _ = process.communicate(timeout=60)
        os.close(terminal)
        reader.join()
        os.close(keyboard)
        return process.returncode, out.decode(), re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue().decode())

    return start


@pytest.fixture
def cache(fresh_user):
    """Where models are kept."""
    return fresh_user / "huggingface" / "hub"


def records(text):
    """Return the objects of JSON lines by their names."""
    return {each["name"]: each for each in map(json.loads, text.splitlines())}


def test_every_card_is_a_row(vision):
    """With its licence; without a command the list is what is meant."""
    result = vision("models", "list")
    assert result.exit_code == 0
    for card in model_cards():
        row = next(line for line in result.stdout.splitlines() if line.startswith(f"{card.name}  "))
        assert card.licence in row
        assert card.restriction is None or f"* {card.name}: {card.restriction}" in result.stdout
        assert card.file is None or "in the package" in row
    assert vision("models").stdout == result.stdout
    assert vision("models", "--json").stdout == vision("models", "list", "--json").stdout


def test_json_has_whole_cards_and_what_is_here(vision):
    """One object per line."""
    found = records(vision("models", "--json").stdout)
    assert list(found)[: len(model_cards())] == [card.name for card in model_cards()]
    for card in model_cards():
        assert found[card.name]["card"]["licence"] == card.licence
        if card.file is not None:
            assert found[card.name]["state"] == "installed"
            assert found[card.name]["revision"] == card.revision
            assert Path(found[card.name]["folder"]) == asset("")


def test_configured_models_without_a_card_are_rows_too(run, tmp_path):
    """Folders included; a model that is configured with a revision stands under that."""
    found = records(run("--json")[1])
    assert found["acme/tiny"]["configured_as"] == ["caption_model"]
    assert found["acme/second@next"]["state"] == "absent"
    assert found[str(tmp_path / "own")]["state"] == "installed"
    assert found[str(tmp_path / "own")]["card"] is None
    table = run("list")[1]
    assert re.search(r"^acme/tiny +- +\? +\? +no +- +caption_model$", table, re.MULTILINE)


def test_an_option_before_the_command_is_not_lost_in_silence(vision):
    """It would be heard by nobody."""
    result = vision("models", "--json", "list")
    assert result.exit_code == 2
    assert "vision models list" in result.stderr


def test_a_card_is_shown_in_full(vision):
    """Under its short name as well as its full one."""
    result = vision("models", "show", "clip-vit-b-32")
    assert result.exit_code == 0
    assert result.stdout == vision("models", "show", "sentence-transformers/clip-ViT-B-32").stdout
    card = next(card for card in model_cards() if card.alias == "clip-vit-b-32")
    for figure in card.quality:
        assert f"{figure.value:g} {figure.metric} ({figure.source})" in result.stdout
    assert json.loads(vision("models", "show", card.alias, "--json").stdout)["card"]["dimension"] == 512


def test_a_model_is_fetched_shown_checked_and_removed(run, run_process, published, cache):
    """The way of a model through its life; a second fetch asks nobody."""
    code, out, err = run_process("pull", "acme/tiny")
    assert (code, out) == (0, f"acme/tiny: here, revision {MAIN}, 2 MB\n")
    assert re.search(r"licence +bsd-3-clause", err)
    assert re.search(r"size +2 MB$", err, re.MULTILINE)
    assert f"{published.endpoint}/acme/tiny" in err
    assert re.search(rf"into +{re.escape(str(cache))}, [\d.]+ GB free", err)
    published.asked.clear()
    assert run("pull", "acme/tiny")[:2] == (0, out)
    assert records(run("--json")[1])["acme/tiny"]["state"] == "installed"
    code, table, err = run_process("verify", "acme/tiny")
    assert (code, err) == (0, "")
    assert len(re.findall(r"^acme/tiny .* sound ", table, re.MULTILINE)) == 3
    assert published.asked == []
    code, out, err = run_process("remove", "acme/tiny")
    assert (code, out) == (0, "acme/tiny: removed, 2 MB are free again\n")
    assert f"revision {MAIN} main" in err
    assert "the next request that needs it fetches it again" in err
    assert not list(cache.glob("models--acme--tiny"))
    code, _, err = run("remove", "acme/tiny")
    assert code == 2
    assert "is not in the cache" in err


def test_all_configured_models_are_fetched_at_once(run, published):
    """Folders need not be; JSON says what is here afterwards."""
    code, out, _ = run("pull", "--all-configured", "--json")
    assert code == 0
    found = records(out)
    assert list(found) == ["acme/tiny", "acme/second@next"]
    assert {each["state"] for each in found.values()} == {"installed"}
    assert found["acme/second@next"]["revision"] == commit_of("next")
    assert run("pull", "--all-configured")[0] == 0


def test_one_failure_does_not_keep_the_others_from_being_fetched(run, published, tmp_path):
    """It is told, and the exit code is that of the failure."""
    bad = write_model(tmp_path / "bad", config={"auto_map": {"AutoModel": "evil.Model"}})
    published.publish("acme/bad", bad)
    code, out, err = run("pull", "acme/bad", "acme/tiny", "--json")
    assert code == 3
    assert "config.json asks to run code of its own (auto_map)" in err
    assert records(out)["acme/tiny"]["state"] == "installed"
    assert records(out)["acme/bad"]["state"] != "installed"
    assert "model.safetensors" in published.fetched()[-1:]
    assert published.fetched().count("model.safetensors") == 1


def test_damage_is_found_and_mended(run, cache):
    """By the command that the check names."""
    assert run("pull", "acme/tiny")[0] == 0
    weights = next(cache.glob("models--acme--tiny/snapshots/*/model.safetensors")).resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, out, err = run("verify", "acme/tiny", "--json")
    assert code == 3
    states = {each["file"]: each["state"] for each in map(json.loads, out.splitlines())}
    assert states.pop("model.safetensors") == "damaged"
    assert set(states.values()) == {"sound"}
    assert err == "vision: acme/tiny is incomplete or damaged. Run: vision models pull --repair acme/tiny\n"
    code, _, err = run("pull", "--repair", "acme/tiny")
    assert code == 0
    assert "model.safetensors is damaged and has to be fetched again" in err
    assert re.search(r"size +2 MB, of which [0-9]+ bytes are here$", err, re.MULTILINE)
    assert run("verify", "acme/tiny")[0] == 0


@pytest.mark.parametrize(("name", "listed"), [("config.json", "config.json"), ("preprocessor_config.json", "-")])
def test_a_small_file_that_is_not_there_is_missed_and_comes_anew(run, cache, tmp_path, name, listed):
    """Though nothing is wrong with any that is; in the cache as in a folder of the user's."""
    assert run("pull", "acme/tiny")[0] == 0
    next(cache.glob(f"models--acme--tiny/snapshots/*/{name}")).unlink()
    code, out, err = run("verify", "acme/tiny", "--json")
    assert code == 3
    bad = [each for each in map(json.loads, out.splitlines()) if each["state"] not in {"sound", "unrecorded"}]
    assert [(each["file"], each["state"]) for each in bad] == [(listed, "missing")]
    assert name in bad[0]["detail"]
    assert err == "vision: acme/tiny is incomplete or damaged. Run: vision models pull --repair acme/tiny\n"
    assert run("pull", "--repair", "acme/tiny")[0] == 0
    assert run("verify", "acme/tiny")[0] == 0
    (tmp_path / "own" / name).unlink()
    code, out, err = run("verify", str(tmp_path / "own"))
    assert (code, name in out) == (3, True)
    assert "Save or copy it again" in err


def test_what_was_cut_short_is_mended_by_an_ordinary_fetch(run, published, cache):
    """It does not look whole, so nobody has to know that it needs a repair."""
    assert run("pull", "acme/tiny")[0] == 0
    weights = next(cache.glob("models--acme--tiny/snapshots/*/model.safetensors")).resolve()
    weights.write_bytes(weights.read_bytes()[:-5])
    published.asked.clear()
    code, out, err = run("pull", "acme/tiny", "--json")
    assert (code, json.loads(out)["state"]) == (0, "installed")
    assert "model.safetensors is damaged" in err
    assert published.fetched() == ["model.safetensors"]


def test_what_is_not_whole_after_all_is_a_failure(run, published, tmp_path):
    """The publisher has uploaded half of it; everything is as announced, and yet it cannot be used."""
    folder = write_model(tmp_path / "half")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-5])
    published.publish("acme/half", folder)
    code, out, err = run("pull", "acme/half")
    assert (code, out) == (3, "")
    assert "model.safetensors is cut short" in err
    code, out, _ = run("pull", "acme/half", "--json")
    assert (code, json.loads(out)["state"]) == (3, "partly")


def test_weights_are_fetched_by_xet_where_the_hub_offers_it(run, published, cache):
    """Several models may share them then; damage is found, mended and removed as ever."""
    published.xet = True
    assert run("pull", "acme/tiny")[0] == 0
    assert published.fetched()[-1] == "model.safetensors"
    assert any("/reconstructions/" in line for line in published.asked)
    assert run("verify", "acme/tiny")[0] == 0
    shared = next(cache.glob("models--acme--tiny/snapshots/*/model.safetensors")).resolve()
    assert shared.is_relative_to(cache / "blobs")
    content = shared.read_bytes()
    shared.write_bytes(content[:-1] + b"x")
    assert run("verify", "acme/tiny")[0] == 3
    assert run("pull", "--repair", "acme/tiny")[0] == 0
    assert run("verify", "acme/tiny")[0] == 0
    code, out, _ = run("remove", "acme/tiny")
    assert (code, out) == (0, "acme/tiny: removed, 2 MB are free again\n")
    assert not [path for path in cache.rglob("*") if path.is_file() and path.read_bytes() == content]


def test_what_xet_sends_is_compared_with_the_listing_too(run, published, tmp_path):
    """Its client takes the chunks as they come."""
    published.xet = True
    published.chunks_of = write_model(tmp_path / "other", megabytes=2, seed=1) / "model.safetensors"
    code, out, err = run("pull", "acme/tiny")
    assert (code, out) == (3, "")
    assert "model.safetensors of acme/tiny arrived damaged" in err
    assert records(run("--json")[1])["acme/tiny"]["state"] == "partly"
    published.chunks_of = None
    assert run("pull", "acme/tiny")[0] == 0


def test_links_into_nothing_are_no_bug_but_a_flaw(run, cache, use_ladder, vision_streams, make_photo, tmp_path):
    """Every command goes on, and the one that mends does; the next rung answers meanwhile."""
    assert run("pull", "acme/tiny")[0] == 0
    config = next(cache.glob("models--acme--tiny/snapshots/*/config.json"))
    config.resolve().unlink()
    (config.parent / "README.md").symlink_to("gone")
    (tmp_path / "own" / "index.md").symlink_to("gone")
    use_ladder("local", "embedded", more=LOCAL.format(folder=tmp_path / "own") + 'download = "never"\n')
    assert records(run("--json")[1])["acme/tiny"]["state"] == "partly"
    assert vision_streams("status")[0] == 0
    _, out, err = vision_streams("describe", make_photo(), "--json")
    assert json.loads(out)["trace"]["backend"] == "embedded"
    assert "acme/tiny is not on this machine" in err
    code, out, _ = run("verify", "acme/tiny")
    assert code == 3
    assert "the cache links to a file that is gone" in out
    assert run("pull", "--repair", "acme/tiny")[0] == 0
    assert run("verify", "acme/tiny")[0] == 0


def test_everything_that_is_here_is_checked(run):
    """Shipped models, fetched ones and folders; what is not here needs no check, unless it is named."""
    assert run("pull", "acme/tiny")[0] == 0
    code, out, _ = run("verify", "--all", "--json")
    assert code == 0
    checked = {each["model"]: each["state"] for each in map(json.loads, out.splitlines())}
    assert {"acme/tiny", "nanodet-g-416", "efficientnet-lite0-224"} < set(checked)
    assert "unrecorded" in checked.values()
    code, out, err = run("verify", "acme/second@next")
    assert code == 3
    assert "it is not on this machine" in out
    assert "pull --repair acme/second@next" in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["pull"], 2, "Name models, or pass --all-configured"),
        (["pull", "acme/tiny", "--all-configured"], 2, "Name models, or pass --all-configured"),
        (["verify"], 2, "Name models, or pass --all"),
        (["pull", "nanodet-g-416"], 2, "ships with the package"),
        (["pull", "nanodet-g-416@v2"], 2, "one revision only"),
        (["remove", "nanodet-g-416"], 2, "ships with the package"),
        (["pull", "./nowhere"], 2, "is a folder of your own"),
        (["pull", "acme/clip-vit-b-33"], 3, "has no access to it"),
        (["pull", "clip-vit-b-33"], 3, "Did you mean sentence-transformers/clip-ViT-B-32?"),
        (["pull", "acme/tiny@v9"], 3, "'acme/tiny@v9'"),
        (["list", "--config", "missing.toml"], 2, "missing.toml"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, arguments, code, says):
    """With an exit code that tells usage from the rest, and without anything fetched."""
    found = run(*arguments)
    assert found[:2] == (code, "")
    assert says in found[2]
    assert found[2].count("\n") == 1


def test_without_a_network_only_what_is_not_here_fails(run):
    """And says which command to run later."""
    assert run("pull", "acme/tiny")[0] == 0
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert run("pull", "acme/tiny", env=offline)[0] == 0
    code, out, err = run("pull", "--all-configured", env=offline)
    assert (code, out) == (3, "")
    assert "With a network connection, run: vision models pull acme/second@next" in err
    assert run("pull", "acme/second@next", env={"HF_HUB_OFFLINE": "1"})[0] == 3


def test_a_cache_that_cannot_be_written_is_named(run, fresh_user):
    """The list still works."""
    (fresh_user / "occupied").write_text("")
    env = {"HF_HOME": str(fresh_user / "occupied" / "huggingface")}
    code, out, err = run("pull", "acme/tiny", env=env)
    assert (code, out) == (3, "")
    assert "cannot be written" in err
    assert err.rstrip().endswith("Make it writable, or set HF_HOME to another folder.")
    assert run("list", env=env)[0] == 0


def test_somebody_at_a_terminal_is_asked_first(run_at_terminal, published, cache):
    """No is taken for an answer, and yes shows how fast it goes."""
    code, out, screen = run_at_terminal("pull", "acme/tiny", typed=b"n\n")
    assert (code, out) == (0, "")
    assert "Fetch 2 MB? [y/N]" in screen
    assert "nothing was fetched" in screen
    assert published.fetched() == []
    published.pace_s = 0.02
    code, out, screen = run_at_terminal("pull", "acme/tiny", typed=b"y\n")
    assert code == 0
    assert "MB/s" in screen
    code, out, screen = run_at_terminal("remove", "acme/tiny", typed=b"\n")
    assert (code, out) == (0, "")
    assert "nothing was removed" in screen
    assert list(cache.glob("models--acme--tiny/snapshots/*/model.safetensors"))
    assert run_at_terminal("remove", "acme/tiny", "--yes", typed=b"")[0] == 0
    assert not list(cache.glob("models--acme--tiny"))


def test_ctrl_c_keeps_what_has_arrived_whole(published, run, tmp_path):
    """The same command fetches the rest, and says how much that is."""
    published.publish("acme/large", write_model(tmp_path / "large", megabytes=25))
    published.pace_s = 0.02
    command = [sys.executable, "-m", "vision_backends", "models", "pull", "acme/large"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, env=process_env()) as process:
        while "model.safetensors" not in published.fetched():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert err.endswith(b"vision: files that have arrived whole are kept; the same command fetches the others\n")
    published.pace_s = 0.0
    published.asked.clear()
    code, _, err = run("pull", "acme/large")
    assert code == 0
    assert re.search(r"size +25 MB, of which [0-9]+ bytes are here", err)
    assert published.fetched() == ["model.safetensors"]


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("vision models pull dfine-s", "dfine-small-coco\n"),
        ("vision models show IDEA-Research/g", "IDEA-Research/grounding-dino-tiny\n"),
    ],
)
def test_shells_complete_the_names_of_models(vision, monkeypatch, words, completed):
    """Short ones; full ones once there is a slash."""
    monkeypatch.setenv("_VISION_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert vision().stdout.startswith(completed)


def test_models_of_every_local_rung_are_configured_ones(run, fresh_user):
    """Each with the table that names it; a limit in a table is no model's."""
    path = fresh_user / "vision.toml"
    more = '[backends.small]\nkind = "local"\ncaption_model = "acme/second"\nrequests_per_minute = 5\n'
    path.write_text(path.read_text(encoding="utf-8") + more, encoding="utf-8")
    found = records(run("--json")[1])
    assert found["acme/tiny"]["configured_as"] == ["caption_model"]
    assert found["acme/second"]["configured_as"] == ["backends.small.caption_model"]
    assert "as [backends.small] caption_model" in run("show", "acme/second")[1]


def test_names_can_be_copied_from_a_terminal_of_80_columns(vision_at_terminal, monkeypatch):
    """Each stands whole on one line, and so does what a model is configured as."""
    monkeypatch.setenv("COLUMNS", "80")
    _, screen = vision_at_terminal("models")
    table, _, below = screen.partition("caption_model = ")
    assert {line.split()[0] for line in table.splitlines()[2:] if line[0] != " "} == {
        each.name for each in model_cards()
    }
    assert max(map(len, table.splitlines())) <= 80
    assert below.startswith("Salesforce/blip-image-captioning-base\n")
    monkeypatch.setenv("COLUMNS", "200")
    assert "configured as" in vision_at_terminal("models")[1]


def test_a_name_that_is_nearly_that_of_a_model_is_asked_about(vision):
    """A model of the hub may be called so nevertheless."""
    result = vision("models", "show", "dfine-smal")
    assert result.exit_code == 0
    assert "dfine-smal is not a model in the list. Did you mean ustc-community/dfine-small-coco?" in result.stderr
    assert "Did you mean" not in vision("models", "show", "nanodet-g-416").stderr
