"""A hub may name files by checksums only and lead to safe servers only; what others fetch is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial

import huggingface_hub
import pytest
from huggingface_hub.utils import _http
from loopback_hub import write_model

from vision_backends.backends.local.hub.client import strict_client
from vision_backends.backends.local.hub.hub import HuggingFaceHub
from vision_backends.backends.local.hub.progress import Progress
from vision_backends.backends.local.hub.source import Source
from vision_backends.errors import NotReadyError

SOURCE = Source.parse("acme/tiny")


@pytest.fixture
def published(tmp_path, loopback_hub):
    """The server of acme/tiny."""
    loopback_hub.publish("acme/tiny", write_model(tmp_path / "model"))
    return loopback_hub


@pytest.fixture
def hub(tmp_path, published):
    """The hub with an empty cache."""
    return HuggingFaceHub(cache=tmp_path / "cache", endpoint=published.endpoint)


def files_below(folder):
    """Return the paths of all files, without locks and what marks the folder as a cache."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return {path for path in found if not path.endswith((".lock", "CACHEDIR.TAG"))}


@pytest.mark.parametrize("etag", ["../../../precious", "/tmp/precious", "a" * 39, "A" * 40, "model"])  # noqa: S108 — no file
def test_a_file_is_stored_under_no_name_but_a_checksum(hub, published, tmp_path, etag):
    """The ETag becomes a path, and nothing is written before it has been looked at."""
    published.etag = etag
    before = files_below(tmp_path)
    with pytest.raises(NotReadyError, match="which is not a checksum") as caught:
        hub.fetch(SOURCE, Progress())
    assert caught.value.code == "hub_not_trusted"
    assert etag in str(caught.value)
    assert files_below(tmp_path) == before


def test_weights_are_stored_under_no_name_but_a_checksum_either(hub, published, tmp_path):
    """Theirs is in another header."""
    folder, _ = hub.fetch(SOURCE, Progress())
    (folder / "model.safetensors").resolve().unlink()
    published.etag = "../precious"
    with pytest.raises(NotReadyError, match=r"the ETag '\.\./precious', which is not a checksum"):
        hub.fetch(SOURCE, Progress())
    assert not list(tmp_path.rglob("precious*"))


def test_plain_http_is_spoken_on_this_machine_only(tmp_path):
    """The token would be sent for all to read; nobody is asked, not even for an address."""
    hub = HuggingFaceHub(cache=tmp_path, endpoint="http://hub.invalid:8080")
    with pytest.raises(NotReadyError, match=r"Refused to contact http://hub\.invalid:") as caught:
        hub.offer(SOURCE)
    assert "HF_ENDPOINT" in caught.value.remedy


@pytest.mark.parametrize("xet", [False, True])
def test_a_redirect_to_plain_http_is_not_followed(hub, published, xet):
    """Nor is Xet sent there; the small files have arrived by then, and are kept."""
    published.elsewhere, published.xet = "http://storage.invalid", xet
    with pytest.raises(NotReadyError, match=r"Refused to contact http://storage\.invalid:"):
        hub.fetch(SOURCE, Progress())
    assert published.fetched() == ["config.json", "preprocessor_config.json"]


def test_a_model_that_was_renamed_is_fetched_under_its_old_name(hub, published):
    """The hub leads to the new one, by redirects with ETags of their own."""
    published.renamed["old/name"] = "acme/tiny"
    source = Source.parse("old/name")
    assert hub.fetch(source, Progress()) == hub.cached(source)


def test_what_the_application_fetches_itself_is_its_own_matter(hub, published, tmp_path):
    """Its threads use the same client meanwhile; afterwards it is gone."""
    published.etag = "whatever"
    before = _http._GLOBAL_CLIENT_FACTORY
    with strict_client():
        assert before != _http._GLOBAL_CLIENT_FACTORY
        fetching = threading.Thread(
            target=huggingface_hub.hf_hub_download,
            args=("acme/tiny", "config.json"),
            kwargs={"cache_dir": tmp_path / "theirs", "endpoint": published.endpoint},
        )
        fetching.start()
        fetching.join()
    assert list((tmp_path / "theirs").glob("*/blobs/whatever"))
    assert before == _http._GLOBAL_CLIENT_FACTORY
    huggingface_hub.close_session()


@pytest.mark.parametrize("begun", ["before", "during"])
def test_a_download_of_the_application_survives_that_of_a_model(hub, published, tmp_path, begun):
    """huggingface_hub closes the client of all when it is exchanged."""
    published.publish("acme/large", write_model(tmp_path / "large", megabytes=25))
    published.pace_s = 0.005
    arrived = []

    def download():
        options = {"cache_dir": tmp_path / "theirs", "endpoint": published.endpoint}
        arrived.append(huggingface_hub.hf_hub_download("acme/large", "model.safetensors", **options))

    theirs = threading.Thread(target=download)

    def start():
        theirs.start()
        while not any(path.stat().st_size for path in (tmp_path / "theirs").glob("*/blobs/*.incomplete")):
            time.sleep(0.01)

    if begun == "before":
        start()
    with strict_client():
        hub.fetch(SOURCE, Progress())
        if begun == "during":
            start()
    published.pace_s = 0.0
    theirs.join()
    assert arrived
    huggingface_hub.close_session()


def test_two_models_are_fetched_beside_each_other(hub, published, tmp_path):
    """The one that is done first leaves the client to the other."""
    published.publish("acme/large", write_model(tmp_path / "large", megabytes=10))
    published.pace_s = 0.005
    before = _http._GLOBAL_CLIENT_FACTORY
    fetching = threading.Thread(target=hub.fetch, args=(Source.parse("acme/large"), Progress()))
    fetching.start()
    while not list(hub.cache.glob("*/blobs/*.incomplete")):
        time.sleep(0.01)
    hub.fetch(SOURCE, Progress())
    assert fetching.is_alive()
    assert before != _http._GLOBAL_CLIENT_FACTORY
    published.pace_s = 0.0
    fetching.join()
    assert hub.cached(Source.parse("acme/large")) is not None
    assert before == _http._GLOBAL_CLIENT_FACTORY


def test_what_an_application_sets_meanwhile_stays():
    """Its proxies may have changed."""
    before = _http._GLOBAL_CLIENT_FACTORY
    theirs = partial(_http.default_client_factory)
    try:
        with strict_client():
            huggingface_hub.set_client_factory(theirs)
        assert theirs == _http._GLOBAL_CLIENT_FACTORY
    finally:
        huggingface_hub.set_client_factory(before)


def test_storage_elsewhere_does_not_get_the_token(hub, published):
    """The hub does; whoever serves the weights is another."""
    script = (
        "import sys; from pathlib import Path\n"
        "from vision_backends.backends.local.hub.hub import HuggingFaceHub, Progress, Source\n"
        "HuggingFaceHub(cache=Path(sys.argv[1]), endpoint=sys.argv[2]).fetch(Source.parse('acme/tiny'), Progress())\n"
    )
    env = {**os.environ, "HF_TOKEN": "hf_canary"}
    subprocess.run([sys.executable, "-c", script, str(hub.cache), published.endpoint], env=env, check=True)
    assert hub.cached(SOURCE) is not None
    assert published.tokens == []
    assert "Bearer hf_canary" in published.hub_tokens
