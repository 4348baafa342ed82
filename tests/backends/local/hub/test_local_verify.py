"""Every file is compared with the checksum that the hub has recorded, and its own table of contents."""

from __future__ import annotations

import json

import pytest
from loopback_hub import write_model

from vision_backends.backends.local.hub.hub import HuggingFaceHub
from vision_backends.backends.local.hub.progress import Progress
from vision_backends.backends.local.hub.source import Source
from vision_backends.backends.local.hub.verify import verify_files


@pytest.fixture
def fetched(tmp_path, loopback_hub):
    """A model in the cache."""
    loopback_hub.publish("acme/tiny", write_model(tmp_path / "model"))
    hub = HuggingFaceHub(cache=tmp_path / "cache", endpoint=loopback_hub.endpoint)
    return hub.fetch(Source.parse("acme/tiny"), Progress())[0]


def verdicts(folder):
    """Return the state of each file, and what is said of it."""
    return {each.file: (each.state, each.detail) for each in verify_files(folder, progress=Progress())}


def test_sound_files_have_the_checksum_that_the_cache_is_named_by(fetched, loopback_hub):
    """Git's sha1 or sha256; nothing is asked on the network, and every byte is read."""
    loopback_hub.asked.clear()
    progress = Progress()
    found = list(verify_files(fetched, progress=progress))
    assert [each.file for each in found] == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert all(each.state == "sound" and each.good for each in found)
    assert [each.detail.split()[0] for each in found] == ["git's", "sha256", "git's"]
    assert sum(each.size_bytes for each in found) == progress.done_bytes == progress.total_bytes
    assert loopback_hub.asked == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_single_wrong_bit_is_found(fetched, name):
    """In a small file and in the weights."""
    content = bytearray((fetched / name).read_bytes())
    content[-3] ^= 1
    (fetched / name).resolve().write_bytes(content)
    found = verdicts(fetched)
    state, detail = found.pop(name)
    assert state == "damaged"
    assert detail.startswith("its ")
    assert {state for state, _ in found.values()} == {"sound"}


def test_weights_that_are_cut_short_are_found_without_a_checksum(tmp_path):
    """In a folder of the user's nobody has recorded one."""
    folder = write_model(tmp_path / "model")
    assert {state for state, _ in verdicts(folder).values()} == {"unrecorded"}
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert verdicts(folder)["model.safetensors"] == ("damaged", "model.safetensors is cut short")
    weights.write_bytes(b"no tensors")
    assert verdicts(folder)["model.safetensors"] == ("damaged", "model.safetensors is not a safetensors file")


def test_missing_weights_are_found(tmp_path):
    """The only file, or a shard that the index names."""
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert verdicts(folder)["model.safetensors"] == ("missing", "there is no model.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = verdicts(folder)
    assert found["model-00001-of-00002.safetensors"][0] == "unrecorded"
    assert found["model-00002-of-00002.safetensors"][0] == "missing"
    assert "model.safetensors" not in found


def test_a_link_into_nothing_is_found(fetched):
    """The cache has been tidied up by hand."""
    (fetched / "config.json").resolve().unlink()
    assert verdicts(fetched)["config.json"] == ("missing", "the cache links to a file that is gone")


def test_a_blob_that_is_itself_a_link_is_known_by_its_own_name(fetched, tmp_path):
    """Newer caches share blobs between models under another kind of hash."""
    blob = (fetched / "model.safetensors").resolve()
    blob.rename(tmp_path / ("0" * 64))
    blob.symlink_to(tmp_path / ("0" * 64))
    assert verdicts(fetched)["model.safetensors"][0] == "sound"


def test_a_file_that_cannot_be_read_is_damaged(fetched, tmp_path):
    """The others are read all the same."""
    for name in ("config.json", "model.safetensors"):
        blob = (fetched / name).resolve()
        blob.unlink()
        blob.symlink_to("/proc/self/mem")
    found = verdicts(fetched)
    assert found.pop("config.json") == ("damaged", "it cannot be read: Input/output error")
    assert found.pop("model.safetensors")[0] == "damaged"
    assert {state for state, _ in found.values()} == {"sound"}
