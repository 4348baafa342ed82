"""Names are told from folders, and models are fetched from a hub on loopback as from the real one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from filelock import FileLock
from loopback_hub import commit_of, write_model

from vision_backends.backends.local.hub.checkpoint import read_checkpoint
from vision_backends.backends.local.hub.hub import HuggingFaceHub
from vision_backends.backends.local.hub.progress import Progress
from vision_backends.backends.local.hub.source import Source
from vision_backends.backends.local.installed import find_holding
from vision_backends.backends.requests import EmbedRequest
from vision_backends.errors import ModelNotFoundError, NotReadyError
from vision_backends.testing import FakeClock

COMMIT = commit_of("main")

FETCH = """
import sys, threading
from pathlib import Path
from vision_backends.backends.local.hub.hub import HuggingFaceHub, Progress, Source
hub = HuggingFaceHub(cache=Path(sys.argv[1]), endpoint=sys.argv[2])
fetching = threading.Thread(target=hub.fetch, args=(Source.parse("acme/tiny"), Progress()), daemon=True)
fetching.start()
fetching.join() if sys.argv[3] == "all" else sys.stdin.read()
"""


@pytest.fixture
def serve(tmp_path, loopback_hub):
    """A publisher of one folder as acme/tiny; returns the hub with an empty cache, and its server."""

    def start(folder, **more):
        loopback_hub.publish("acme/tiny", folder, **more)
        return HuggingFaceHub(cache=tmp_path / "cache", endpoint=loopback_hub.endpoint), loopback_hub

    return start


@pytest.fixture
def fetching():
    """A starter of processes that fetch acme/tiny, all of it or until their input ends."""
    started = []

    def start(hub, server, until="all"):
        command = [sys.executable, "-c", FETCH, str(hub.cache), server.endpoint, until]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_half(cache):
    """Return the file that is arriving, once the first ten megabytes are there, of which huggingface_hub makes one."""
    for _ in range(500):
        there = [path for path in cache.glob("*/blobs/*.incomplete") if path.stat().st_size >= 10_000_000]
        if there:
            return there[0]
        time.sleep(0.02)
    raise AssertionError(list(cache.rglob("*")))


@pytest.mark.parametrize(
    ("name", "repository", "revision"),
    [
        ("acme/tiny", "acme/tiny", None),
        ("gpt2", "gpt2", None),
        ("acme/tiny@v1.0", "acme/tiny", "v1.0"),
        (f"acme/tiny@{COMMIT}", "acme/tiny", COMMIT),
    ],
)
def test_names_are_models_of_the_hub(name, repository, revision):
    """With a branch, tag or commit behind an @."""
    source = Source.parse(name)
    assert (source.folder, source.repository, source.revision) == (None, repository, revision)
    assert source.commit == (COMMIT if revision == COMMIT else None)
    assert source.short_name == repository


@pytest.mark.parametrize(
    "name",
    [
        *("/abs/model", "./model", ".model", ".", "../model", "~/model", "a/b/c", "..", "acme/..", "~nosuchuser/model"),
        *("m" * 300, f"acme/{'m' * 300}", "/m" * 3000, "\N{HIRAGANA LETTER A}" * 90, "acme/\0"),
        *("acme/tiny@../main", "acme/tiny@/main"),
    ],
)
def test_whatever_looks_like_a_path_is_a_folder(name):
    """Even where it is not there yet; the name for spaces does not tell where it lies."""
    source = Source.parse(name)
    assert source.repository is None
    assert source.folder.is_absolute()
    assert "/" not in source.short_name
    assert source.folder_exists == (name in {".", ".."})


def test_a_folder_that_cannot_be_is_told_like_one_that_is_not_there(make_backend, tmp_path):
    """The names come from a configuration, where anything may stand."""
    for name in ("~nosuchuser/model", "m" * 300):
        backend = make_backend(embedding_model=name, hub=HuggingFaceHub(cache=tmp_path))
        with pytest.raises(NotReadyError, match=r"in \[local\] does not exist"):
            backend.check(EmbedRequest())
        assert find_holding(Source.parse(name), HuggingFaceHub(cache=tmp_path)).state == "absent"


def test_a_folder_in_the_working_directory_stands_in_for_no_model_of_the_hub(fresh_user, make_backend, tmp_path):
    """A download could bring one along that is called like the default model; who means it is told how to write it."""
    (fresh_user / "acme" / "tiny").mkdir(parents=True)
    backend = make_backend(embedding_model="acme/tiny", hub=HuggingFaceHub(cache=tmp_path), download="never")
    with pytest.raises(NotReadyError) as caught:
        backend.check(EmbedRequest())
    assert "write ./acme/tiny in [local]" in caught.value.remedy
    assert Source.parse("acme/tiny").repository == "acme/tiny"
    assert Source.parse("./acme/tiny").folder == fresh_user / "acme" / "tiny"


@pytest.mark.parametrize("kind", ["clip", "sentence_clip"])
def test_a_model_is_fetched_once_and_found_again(serve, model_copy, kind, capfd):
    """Weights come last, pickles not at all; afterwards the cache answers without network, and nothing is printed."""
    folder = model_copy(kind)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "README.md").write_text("a card")
    capfd.readouterr()
    hub, server = serve(folder)
    source, progress = Source.parse("acme/tiny"), Progress()
    assert hub.cached(source) is None
    fetched, commit = hub.fetch(source, progress)
    assert commit == COMMIT
    checkpoint = read_checkpoint(fetched, revision=commit)
    assert (checkpoint.kind, checkpoint.revision) == ("clip", COMMIT)
    assert progress.done_bytes == progress.total_bytes > 10_000
    assert server.fetched()[-1] == "model.safetensors"
    assert not {"pytorch_model.bin", "README.md"} & set(server.fetched())
    server.asked.clear()
    assert hub.cached(source) == (fetched, COMMIT)
    assert hub.cached(Source.parse(f"acme/tiny@{COMMIT}")) == (fetched, COMMIT)
    assert server.asked == []
    assert capfd.readouterr() == ("", "")


def test_a_second_fetch_takes_what_is_there_already(serve, model):
    """What was interrupted goes on."""
    hub, server = serve(model("clip"))
    hub.fetch(Source.parse("acme/tiny"), Progress())
    server.asked.clear()
    progress = Progress()
    hub.fetch(Source.parse("acme/tiny"), progress)
    assert server.fetched() == []
    assert progress.done_bytes == progress.total_bytes > 0


def test_an_unknown_model_is_told_apart_from_an_outage(serve, model):
    """The one needs another name, the other patience."""
    hub, _ = serve(model("clip"))
    with pytest.raises(ModelNotFoundError, match="no model 'acme/other'"):
        hub.fetch(Source.parse("acme/other"), Progress())
    gone = HuggingFaceHub(cache=hub.cache, endpoint="http://127.0.0.1:9")
    with pytest.raises(NotReadyError, match="could not be fetched") as caught:
        gone.fetch(Source.parse("acme/tiny"), Progress())
    assert caught.value.remedy == "With a network connection, run: vision models pull acme/tiny"


def test_a_model_without_safetensors_is_not_fetched(serve, model_copy):
    """Nothing is downloaded that would not be loaded."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub, server = serve(folder)
    with pytest.raises(NotReadyError, match="publishes no safetensors weights"):
        hub.fetch(Source.parse("acme/tiny"), Progress())
    assert server.fetched() == []


def test_the_robots_safetensors_are_taken_where_the_publisher_has_none(serve, model, model_copy):
    """They are the same weights; an offer by anybody else is not looked at. Later calls find them without network."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    offers = [("SFconvertbot", model("clip")), ("mallory", model("siglip"))]
    hub, server = serve(folder, offers=offers)
    source = Source.parse("acme/tiny")
    fetched, commit = hub.fetch(source, Progress())
    assert commit == commit_of("refs/pr/1")
    assert read_checkpoint(fetched).kind == "clip"
    server.asked.clear()
    assert hub.cached(source) == (fetched, commit)
    assert server.asked == []


def test_an_offer_of_anybody_is_found_only_by_who_has_pinned_it(serve, model, model_copy):
    """Without a revision it is the robot's conversion, whatever else has been fetched meanwhile."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub, _ = serve(folder, offers=[("mallory", model("siglip")), ("SFconvertbot", model("clip"))])
    source, pinned = Source.parse("acme/tiny"), Source.parse("acme/tiny@refs/pr/1")
    theirs = hub.fetch(pinned, Progress())
    assert hub.cached(pinned) == theirs
    assert hub.cached(source) is None
    ours = hub.fetch(source, Progress())
    assert ours[1] == commit_of("refs/pr/2")
    assert hub.cached(source) == hub.cached(Source.parse("acme/tiny@refs/pr/2")) == ours
    assert hub.cached(pinned) == theirs


def test_a_branch_that_moves_during_the_fetch_is_found_as_it_was(serve, model):
    """What was offered is here, and what the branch stands for by now is not."""
    hub, server = serve(model("clip"))
    server.repositories["acme/tiny"].branches["next"] = model("clip")
    offer = replace(hub.offer(Source.parse("acme/tiny@next")), branch="main")
    folder, commit = hub.take(offer, Progress())
    assert commit == commit_of("next")
    assert hub.cached(Source.parse("acme/tiny")) == (folder, commit)
    assert [path.name for path in folder.parent.iterdir()] == [commit]
    assert not list((folder.parents[1] / "refs").glob("*.tmp"))


def test_what_a_branch_stands_for_has_to_be_a_commit(serve, tmp_path):
    """It becomes a path; anyone who may write to the cache could name another folder."""
    hub, _ = serve(write_model(tmp_path / "model"))
    hub.fetch(Source.parse("acme/tiny"), Progress())
    (hub.cache / "models--acme--tiny" / "refs" / "main").write_text("../../../model")
    assert hub.cached(Source.parse("acme/tiny")) is None


def test_a_pinned_revision_is_taken_as_it_is(serve, model, model_copy):
    """Nothing else is looked for; a branch of an offer may be pinned by name."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub, _ = serve(folder, offers=[("SFconvertbot", model("clip"))])
    with pytest.raises(NotReadyError, match="no safetensors"):
        hub.fetch(Source.parse(f"acme/tiny@{COMMIT}"), Progress())
    source = Source.parse("acme/tiny@refs/pr/1")
    fetched, commit = hub.fetch(source, Progress())
    assert commit == commit_of("refs/pr/1")
    assert hub.cached(source) == (fetched, commit)


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("config.json", '{"auto_map": {"AutoModel": "evil.Model"}}', "remote_code"),
        ("config.json", '{"vision_config": {"auto_map": {"AutoConfig": "evil--x.C"}}}', "remote_code"),
        ("config.json", '{"transformers_weights": "adapter_model.bin"}', "other_weights"),
        ("adapter_config.json", '{"base_model_name_or_path": "other/model"}', "remote_code"),
        ("modules.json", '[{"type": "sentence_transformers.models.Dense", "path": ""}]', "not_supported"),
        ("preprocessor_config.json", None, "incomplete"),
    ],
)
def test_what_the_small_files_forbid_costs_no_weights(serve, tmp_path, file, content, code):
    """Remote code, adapters, models for texts only."""
    folder = write_model(tmp_path / "model")
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    hub, server = serve(folder)
    with pytest.raises(NotReadyError) as caught:
        hub.fetch(Source.parse("acme/tiny"), Progress())
    assert caught.value.code == code
    assert server.fetched()
    assert "model.safetensors" not in server.fetched()


def test_an_offer_says_what_it_costs_before_anything_is_fetched(serve, tmp_path):
    """Size, licence, commit and address; afterwards nothing of it is missing."""
    hub, server = serve(write_model(tmp_path / "model", megabytes=1.0), licence="cc-by-nc-4.0")
    offer = hub.offer(Source.parse("acme/tiny"))
    assert (offer.licence, offer.commit, offer.branch) == ("cc-by-nc-4.0", COMMIT, "main")
    assert offer.address == f"{server.endpoint}/acme/tiny"
    assert hub.missing(offer) == list(offer.files)
    assert offer.size_bytes > 1_000_000
    assert not hub.cache.exists()
    hub.take(offer, Progress())
    assert hub.missing(offer) == []


def test_the_size_of_a_large_file_may_be_stated_with_its_checksum_only(serve, tmp_path):
    """The hub has two places for it."""
    large = {"rfilename": "words.txt", "size": None, "lfs": {"sha256": "0" * 64, "size": 3, "pointerSize": 134}}
    hub, _ = serve(write_model(tmp_path / "model"), listed=[large])
    assert {file.name: file.size_bytes for file in hub.offer(Source.parse("acme/tiny")).settings}["words.txt"] == 3


@pytest.mark.parametrize(
    "name", ["../../precious.json", "/precious.json", "a/../../../precious.json", "..\\precious.json"]
)
def test_names_that_lead_out_of_the_cache_are_not_followed(serve, tmp_path, name):
    """Neither is such a file fetched nor, when the cache is checked, read."""
    (tmp_path / "precious.json").write_text("{}")
    listed = [{"rfilename": name, "size": 2, "blobId": "0" * 40}]
    hub, _ = serve(write_model(tmp_path / "model"), listed=listed)
    offer = hub.offer(Source.parse("acme/tiny"))
    assert [file.name for file in offer.settings] == ["config.json", "preprocessor_config.json"]
    hub.take(offer, Progress())
    assert hub.damaged(offer, Progress()) == []
    assert (tmp_path / "precious.json").read_text() == "{}"


@pytest.mark.parametrize(
    "stated",
    [
        {"size": 3},
        {"blobId": "0" * 40},
        {"size": 3, "blobId": "../" * 13 + "x"},
        {"size": 3, "blobId": "0" * 40, "lfs": {"sha256": "../" * 21 + "x", "size": 3, "pointerSize": 134}},
    ],
)
def test_a_file_of_which_the_hub_states_no_size_and_checksum_is_not_fetched(serve, tmp_path, stated):
    """Nothing could tell whether it has arrived, and a checksum becomes the name of a file; unwanted ones may be so."""
    hub, server = serve(write_model(tmp_path / "model"), listed=[{"rfilename": "words.bin", **stated}])
    hub.offer(Source.parse("acme/tiny"))
    server.repositories["acme/tiny"].listed = [{"rfilename": "words.txt", **stated}]
    with pytest.raises(NotReadyError, match=r"states no size or checksum for words\.txt"):
        hub.offer(Source.parse("acme/tiny"))


def test_a_commit_that_is_none_names_no_folder(serve, tmp_path):
    """It would become a path."""
    hub, server = serve(write_model(tmp_path / "model"))
    server.repositories["acme/tiny"].commit = "../../somewhere"
    with pytest.raises(NotReadyError, match="does not say which commit"):
        hub.offer(Source.parse("acme/tiny"))


def test_a_model_that_is_open_to_others_only_needs_a_login(serve, tmp_path):
    """The remedy says how."""
    hub, _ = serve(write_model(tmp_path / "model"), gated=True)
    with pytest.raises(ModelNotFoundError) as caught:
        hub.fetch(Source.parse("acme/tiny"), Progress())
    assert "hf auth login" in caught.value.remedy


def test_a_full_disk_is_noticed_before_the_fetch(serve, tmp_path):
    """Nothing arrives that could not be kept."""
    hub, server = serve(write_model(tmp_path / "model"))
    offer = hub.offer(Source.parse("acme/tiny"))
    weights = replace(offer.weights[0], size_bytes=10**18)
    with pytest.raises(NotReadyError, match="1000000000000 MB are to be fetched") as caught:
        hub.take(replace(offer, weights=(weights,)), Progress())
    assert caught.value.code == "disk_full"
    assert server.fetched() == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, loopback_hub):
    """With what to do; a file is where the folder should be."""
    loopback_hub.publish("acme/tiny", write_model(tmp_path / "model"))
    (tmp_path / "occupied").write_text("")
    hub = HuggingFaceHub(cache=tmp_path / "occupied" / "hub", endpoint=loopback_hub.endpoint)
    with pytest.raises(NotReadyError, match="occupied") as caught:
        hub.fetch(Source.parse("acme/tiny"), Progress())
    assert caught.value.code == "cache_not_writable"
    assert caught.value.remedy == "Make it writable, or set HF_HOME to another folder."


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_arrives_otherwise_than_listed_is_not_believed(serve, tmp_path, name):
    """Be it small or large, and whatever the hub says when the file itself is asked for; nothing of it is kept."""
    hub, _ = serve(write_model(tmp_path / "model"))
    offer = hub.offer(Source.parse("acme/tiny"))
    file = tmp_path / "model" / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b" ")
    with pytest.raises(NotReadyError, match=f"{name} of acme/tiny arrived damaged"):
        hub.take(offer, Progress())
    assert not [path for path in hub.cache.glob("*/blobs/*") if path.read_bytes() == file.read_bytes()]
    file.write_bytes(content)
    folder, _ = hub.take(offer, Progress())
    assert (folder / name).read_bytes() == content


def test_a_file_of_another_commit_is_not_believed(serve, tmp_path):
    """It would stay in the folder of that one, where nobody has asked for it."""
    hub, server = serve(write_model(tmp_path / "model"))
    server.commit = "b" * 40
    with pytest.raises(NotReadyError, match=r"config\.json of acme/tiny arrived damaged"):
        hub.fetch(Source.parse("acme/tiny"), Progress())
    assert not list(hub.cache.glob("*/snapshots/*/*"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_more_than_was_announced_is_not_written(serve, tmp_path, name):
    """The disk would fill up; of such a file nothing is kept."""
    hub, server = serve(write_model(tmp_path / "model"))
    folder, _ = hub.fetch(Source.parse("acme/tiny"), Progress())
    size_bytes = (folder / name).stat().st_size
    (folder / name).resolve().unlink()
    server.surplus = b"x"
    with pytest.raises(NotReadyError, match=f"more than the {size_bytes} bytes that it announced"):
        hub.fetch(Source.parse("acme/tiny"), Progress())
    assert not (folder / name).exists()
    assert not list(hub.cache.glob("*/blobs/*.incomplete"))


def test_a_connection_that_breaks_off_is_taken_up_again(serve, tmp_path):
    """Within one fetch; the rest counts as the rest, not as too much."""
    hub, server = serve(write_model(tmp_path / "model", megabytes=25))
    server.cut_after_bytes = 15_000_000
    progress = Progress()
    folder, _ = hub.fetch(Source.parse("acme/tiny"), progress)
    assert server.asked[-1].endswith(" bytes=10485760-")
    assert progress.done_bytes == progress.total_bytes
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()


def test_damaged_files_come_anew(serve, tmp_path):
    """Large and small ones; sound ones are not fetched twice."""
    hub, server = serve(write_model(tmp_path / "model"))
    source = Source.parse("acme/tiny")
    folder, _ = hub.fetch(source, Progress())
    for name in ("model.safetensors", "config.json"):
        content = bytearray((folder / name).read_bytes())
        content[-3] ^= 1
        (folder / name).resolve().write_bytes(content)
    offer, progress = hub.offer(source), Progress()
    assert hub.missing(offer) == []
    assert [file.name for file in hub.damaged(offer, progress)] == ["config.json", "model.safetensors"]
    assert progress.done_bytes == progress.total_bytes == offer.size_bytes
    server.asked.clear()
    hub.take(offer, Progress())
    assert server.fetched() == ["config.json", "model.safetensors"]
    assert hub.damaged(offer, Progress()) == []


def test_what_another_revision_has_is_not_fetched_twice(serve, tmp_path):
    """Unless it is damaged there."""
    hub, server = serve(write_model(tmp_path / "model"))
    server.repositories["acme/tiny"].branches["next"] = tmp_path / "model"
    folder, _ = hub.fetch(Source.parse("acme/tiny"), Progress())
    (folder / "config.json").resolve().write_text("{")
    server.asked.clear()
    offer = hub.offer(Source.parse("acme/tiny@next"))
    assert hub.missing(offer) == []
    other, _ = hub.take(offer, Progress())
    assert server.fetched() == ["config.json"]
    assert (other / "config.json").read_text() == (folder / "config.json").read_text() != "{"


def disk_bytes(folder):
    """Return how much the files in a folder take, without what huggingface_hub notes beside them."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files if {"blobs", "snapshots"} & set(path.parts))


@pytest.mark.parametrize("had_links", [False, True])
def test_a_disk_without_links_takes_what_was_announced(serve, tmp_path, monkeypatch, had_links):
    """Each revision has its own copy there, also of files that came when links could be made."""
    hub, server = serve(write_model(tmp_path / "model"))
    server.repositories["acme/tiny"].branches["next"] = tmp_path / "model"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_SYMLINKS", not had_links)
    first = hub.offer(Source.parse("acme/tiny"))
    assert hub.room_bytes(first) == first.size_bytes
    hub.take(first, Progress())
    assert disk_bytes(hub.cache) == first.size_bytes
    second = hub.offer(Source.parse("acme/tiny@next"))
    assert hub.room_bytes(second) == (0 if had_links else second.size_bytes)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_SYMLINKS", True)
    assert hub.room_bytes(second) == second.size_bytes
    hub.take(second, Progress())
    assert disk_bytes(hub.cache) == first.size_bytes + second.size_bytes
    assert hub.room_bytes(second) == 0


def test_room_for_copies_is_asked_for_as_well(serve, tmp_path, monkeypatch):
    """Before the first of them is made."""
    hub, server = serve(write_model(tmp_path / "model"))
    server.repositories["acme/tiny"].branches["next"] = tmp_path / "model"
    hub.fetch(Source.parse("acme/tiny"), Progress())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_SYMLINKS", True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(NotReadyError, match="are to be fetched, but only 0 MB are free") as caught:
        hub.fetch(Source.parse("acme/tiny@next"), Progress())
    assert caught.value.code == "disk_full"
    assert not (hub.home("acme/tiny") / "snapshots" / commit_of("next")).exists()


def test_a_killed_fetch_goes_on_with_the_files_that_are_not_here(serve, fetching, tmp_path):
    """Those that had arrived are not fetched twice, and of the one that had not, nothing is left lying about."""
    hub, server = serve(write_model(tmp_path / "model", megabytes=25))
    server.pace_s = 0.01
    process = fetching(hub, server)
    arriving = wait_for_half(hub.cache)
    process.kill()
    process.wait()
    source = Source.parse("acme/tiny")
    assert hub.cached(source) is None
    offer = hub.offer(source)
    assert hub.missing(offer) == list(offer.weights)
    assert arriving.exists()
    server.pace_s = 0.0
    server.asked.clear()
    progress = Progress()
    folder, _ = hub.take(offer, progress)
    assert server.fetched() == ["model.safetensors"]
    assert progress.done_bytes == progress.total_bytes == offer.size_bytes
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
    assert not list(hub.cache.glob("*/blobs/*.incomplete"))


def test_two_processes_fetch_it_once(serve, fetching, tmp_path):
    """The second waits for the first."""
    hub, server = serve(write_model(tmp_path / "model", megabytes=25))
    server.pace_s = 0.01
    first = fetching(hub, server)
    wait_for_half(hub.cache)
    progress = Progress()
    second = threading.Thread(target=hub.fetch, args=(Source.parse("acme/tiny"), progress))
    second.start()
    while not progress.stage.startswith("waiting for another process"):
        time.sleep(0.01)
    server.pace_s = 0.002  # it stands before the file, so the first may hurry
    second.join(60)
    assert first.wait(20) == 0
    assert server.fetched().count("model.safetensors") == 1
    assert progress.done_bytes == progress.total_bytes


@pytest.mark.parametrize("xet", [False, True])
def test_the_end_of_the_interpreter_does_not_wait_for_a_fetch(serve, fetching, tmp_path, xet):
    """Nor does it end in a crash, though the thread that fetches is stopped amidst."""
    hub, server = serve(write_model(tmp_path / "model", megabytes=25))
    server.pace_s, server.xet = 0.1, xet
    process = fetching(hub, server, until="end of input")
    while "model.safetensors" not in server.fetched():
        time.sleep(0.02)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert hub.missing(hub.offer(Source.parse("acme/tiny")))


def in_shards(folder, *names):
    """Give the weights of a folder the first name, with an index that names all; return the folder."""
    (folder / "model.safetensors").rename(folder / names[0])
    weight_map = {f"tensor {number}": name for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("shard", ["model-00001-of-00001.safetensors", "model.safetensors-00001-of-00001.safetensors"])
def test_shards_are_fetched_under_all_their_usual_names(serve, tmp_path, shard):
    """Qwen has published some with the suffix twice; nothing else that ends like a shard is fetched."""
    folder = in_shards(write_model(tmp_path / "model"), shard)
    for other in ("diffusion_pytorch_model-1-of-2.safetensors", "text/model-00001-of-00001.safetensors"):
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_bytes(b"another model")
    hub, _ = serve(folder)
    source = Source.parse("acme/tiny")
    assert [file.name for file in hub.offer(source).weights] == [shard]
    fetched, _ = hub.fetch(source, Progress())
    assert read_checkpoint(fetched).parameters > 0
    assert hub.cached(source) == (fetched, COMMIT)


def test_an_index_without_shards_is_refused(serve, tmp_path):
    """The message says what is missing."""
    hub, server = serve(in_shards(write_model(tmp_path / "model"), "weights.part1.safetensors"))
    with pytest.raises(NotReadyError, match=r"publishes model\.safetensors\.index\.json, but no shards") as caught:
        hub.fetch(Source.parse("acme/tiny"), Progress())
    assert (caught.value.code, server.fetched()) == ("no_safetensors", [])
    assert caught.value.remedy == "Choose another model under [local]."


def test_shards_that_the_index_names_and_nobody_publishes_cost_no_weights(serve, tmp_path):
    """The index decides which there must be."""
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    hub, server = serve(in_shards(write_model(tmp_path / "model"), *shards))
    with pytest.raises(NotReadyError, match=r"model-00002-of-00002\.safetensors is missing"):
        hub.fetch(Source.parse("acme/tiny"), Progress())
    assert shards[0] not in server.fetched()


def test_a_file_that_cannot_be_read_is_damaged(serve, tmp_path):
    """It comes anew like any other; what a link out of the cache leads to is left alone."""
    hub, _ = serve(write_model(tmp_path / "model"))
    source = Source.parse("acme/tiny")
    folder, _ = hub.fetch(source, Progress())
    (tmp_path / "precious.json").write_text("{}")
    for name, target in {
        "config.json": "/proc/self/mem",
        "preprocessor_config.json": tmp_path / "precious.json",
    }.items():
        (folder / name).unlink()
        (folder / name).symlink_to(target)
    offer = hub.offer(source)
    assert [file.name for file in hub.damaged(offer, Progress())] == ["config.json", "preprocessor_config.json"]
    hub.take(offer, Progress())
    assert hub.damaged(offer, Progress()) == []
    assert (tmp_path / "precious.json").read_text() == "{}"


def test_a_link_into_nothing_makes_a_model_incomplete_and_no_more(serve, model, make_backend):
    """Another program has tidied up; a fetch mends it."""
    hub, _ = serve(model("clip"))
    folder, _ = hub.fetch(Source.parse("acme/tiny"), Progress())
    (folder / "config.json").resolve().unlink()
    (folder / "README.md").symlink_to("gone")
    clock = FakeClock()
    backend = make_backend(embedding_model="acme/tiny", hub=hub, download="never", clock=clock)
    assert backend.status()["embedding"]["state"] == "not fetched"
    with pytest.raises(NotReadyError, match="not on this machine"):
        backend.check(EmbedRequest())
    hub.fetch(Source.parse("acme/tiny"), Progress())
    assert not (folder / "README.md").is_symlink()
    clock.advance(2)  # what another program does is noticed after a second
    assert backend.status()["embedding"]["state"] == "not loaded"
    backend.check(EmbedRequest())


def test_after_the_fetch_nothing_asks_the_network(loopback_hub, model, fresh_user, photos):
    """A whole process that loads the model, converts it and answers with it, while the hub listens.

    OpenVINO's maker would like to hear of its import and of every conversion, and to number this user in the home.
    """
    loopback_hub.publish("acme/tiny", model("clip"))
    HuggingFaceHub(endpoint=loopback_hub.endpoint, cache=fresh_user / "huggingface" / "hub").fetch(
        Source.parse("acme/tiny"), Progress()
    )
    assert loopback_hub.fetched()
    loopback_hub.asked.clear()
    (fresh_user / "vision.toml").write_text(
        'ladder = ["local"]\nstate = "memory"\n[local]\nembedding_model = "acme/tiny"\nengine = "openvino"\n'
    )
    code = f"""
import atexit, sys
def tell(event, args):
    if event in {{"socket.connect", "socket.getaddrinfo", "socket.sendto"}}:
        print("network:", event, flush=True)
sys.addaudithook(tell)
atexit.register(lambda: print(sorted(name for name in sys.modules if name.startswith("openvino"))))
from vision_backends.cli import main
main(["embed", {str(photos / "cat.jpg")!r}, "--json"])
"""
    env = {**os.environ, "HF_ENDPOINT": loopback_hub.endpoint, "VISION_CONFIG": "vision.toml"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=100
    )
    found, modules = done.stdout.splitlines()
    assert json.loads(found)["space"] == f"local/acme/tiny@{COMMIT}"
    assert loopback_hub.asked == []
    assert "'openvino'" in modules
    assert "openvino_telemetry" not in modules
    assert list(fresh_user.glob(".cache/**/model.xml")) != []
    assert {path.name for path in fresh_user.iterdir()} <= {".cache", "huggingface", "vision.toml"}


class TestWhatTheHubSays:
    """Each refusal has its own words and remedy."""

    @pytest.fixture
    def tell(self, tmp_path, loopback_hub):
        """A fetch from a hub that refuses as told; returns the error."""

        def fetch(name="acme/tiny"):
            with pytest.raises((ModelNotFoundError, NotReadyError)) as caught:
                HuggingFaceHub(cache=tmp_path / "cache", endpoint=loopback_hub.endpoint).fetch(
                    Source.parse(name), Progress()
                )
            return caught.value

        return fetch

    def test_a_token_that_is_not_accepted(self, tell, loopback_hub, tmp_path, monkeypatch):
        """The network is not to blame, and the token is not shown."""
        loopback_hub.publish("acme/tiny", write_model(tmp_path / "tiny"))
        loopback_hub.refused_tokens = {"Bearer hf_stale"}
        monkeypatch.setenv("HF_TOKEN", "hf_stale")
        error = tell()
        assert error.code == "bad_token"
        assert "HF_TOKEN" in error.remedy
        assert "hf_stale" not in str(error)

    def test_a_token_that_cannot_be_sent(self, tell, loopback_hub, tmp_path, monkeypatch):
        """Copied with an invisible character."""
        loopback_hub.publish("acme/tiny", write_model(tmp_path / "tiny"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret\u200b")
        error = tell()
        assert error.code == "bad_token"
        assert "hf_secret" not in str(error)

    def test_a_gated_model(self, tell, loopback_hub, tmp_path):
        """Its name is right, and logging in again would not help."""
        loopback_hub.publish("acme/tiny", write_model(tmp_path / "tiny"), gated=True)
        error = tell()
        assert error.code == "gated"
        assert "access" in error.remedy


class TestAFileThatAnotherProcessHolds:
    """Its lock is waited for as long as something arrives, and never in silence."""

    @pytest.fixture
    def locked(self, loopback_hub, tmp_path):
        """A hub whose cache has a lock that is held, its file, and a function that lets it go."""
        loopback_hub.publish("acme/tiny", write_model(tmp_path / "published"))
        hub = HuggingFaceHub(cache=tmp_path / "cache", endpoint=loopback_hub.endpoint, stalled_s=0.5)
        (config,) = [file for file in hub.offer(Source.parse("acme/tiny")).settings if file.name == "config.json"]
        path = hub.cache / ".locks" / "models--acme--tiny" / f"{config.digest}.lock"
        path.parent.mkdir(parents=True)
        lock = FileLock(path, thread_local=False)
        lock.acquire()
        yield hub, path, lock.release
        lock.release()

    def test_one_that_brings_nothing_is_named_with_what_to_do(self, locked, caplog):
        """Neither the fetch nor who waits for it hangs for ever."""
        hub, path, _ = locked
        progress = Progress()
        with pytest.raises(NotReadyError) as caught:
            hub.fetch(Source.parse("acme/tiny"), progress)
        assert (caught.value.code, str(path) in caught.value.message) == ("locked", True)
        assert "delete that file" in caught.value.remedy
        assert str(path) in progress.stage
        assert str(path) in caplog.text

    def test_one_that_brings_something_is_waited_for(self, locked):
        """A large file may take longer than anybody wants to wait for nothing."""
        hub, path, release = locked
        blobs = hub.home("acme/tiny") / "blobs"
        blobs.mkdir(parents=True)
        over = threading.Event()

        def bring():
            for size in range(1, 16):
                (blobs / f"{path.stem}.1234.incomplete").write_bytes(bytes(size))
                over.wait(0.1)
            release()

        bringing = threading.Thread(target=bring)
        bringing.start()
        progress = Progress(stage="being fetched")
        folder, _ = hub.fetch(Source.parse("acme/tiny"), progress)
        bringing.join()
        assert (folder / "config.json").is_file()
        assert progress.stage == "being fetched"
