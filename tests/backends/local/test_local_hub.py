"""Names are told from folders, and models are fetched from a hub on loopback as from the real one."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from vision_backends.backends.local.checkpoint import read_checkpoint
from vision_backends.backends.local.hub import HuggingFaceHub, Source
from vision_backends.backends.local.loading import Progress
from vision_backends.errors import ModelNotFoundError, NotReadyError

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a fetch needs."""

    folder: Path
    offers: list[tuple[str, Path]]
    asked: list[str]

    def do_GET(self):
        """Serve a file or the list of files."""
        self.asked.append(f"{self.command} {self.path}")
        parts = [unquote(part) for part in self.path.split("?")[0].split("/")]
        if parts[1:5] == ["api", "models", "acme", "tiny"]:
            body = self.discussions() if parts[5:] == ["discussions"] else self.listing(parts[-1])
            self.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        elif parts[1:4] == ["acme", "tiny", "resolve"]:
            folder, commit = self.revision(parts[4])
            content = (folder / "/".join(parts[5:])).read_bytes()
            self.reply(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit})  # noqa: S324
        else:
            self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})

    def revision(self, name):
        """Return folder and commit of a branch or commit."""
        for number, (_, folder) in enumerate(self.offers, 1):
            if name in {f"refs/pr/{number}", str(number) * 40}:
                return folder, str(number) * 40
        return self.folder, COMMIT

    def listing(self, name):
        """Return what the hub says about one revision."""
        folder, commit = self.revision(name)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": p.relative_to(folder).as_posix(), "size": p.stat().st_size} for p in files]
        return {"id": "acme/tiny", "modelId": "acme/tiny", "sha": commit, "siblings": siblings}

    def discussions(self):
        """Return the open pull requests."""
        each = {"title": "Adding `safetensors` variant of this model", "status": "open", "isPullRequest": True}
        when = {"createdAt": "2023-01-01T00:00:00.000Z", "repo": {"name": "acme/tiny", "type": "model"}}
        rows = [{**each, **when, "num": n, "author": {"name": who}} for n, (who, _) in enumerate(self.offers, 1)]
        return {"discussions": rows, "count": len(rows), "start": 0}

    do_HEAD = do_GET  # noqa: N815 — the library's name

    def reply(self, status, body, headers):
        """Send a whole reply."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def serve(tmp_path):
    """A maker of hubs that serve one folder, each with an empty cache."""
    servers = []

    def start(folder, *, offers=()):
        asked = []
        handler = type("Handler", (Hub,), {"folder": folder, "offers": list(offers), "asked": asked})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return HuggingFaceHub(cache=tmp_path / "cache", endpoint=f"http://127.0.0.1:{server.server_port}"), asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


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


@pytest.mark.parametrize("name", ["/abs/model", "./model", "../model", "~/model", "a/b/c", "..", "acme/.."])
def test_whatever_looks_like_a_path_is_a_folder(name):
    """Even where it is not there yet; the name for spaces does not tell where it lies."""
    source = Source.parse(name)
    assert source.repository is None
    assert source.folder.is_absolute()
    assert "/" not in source.short_name


def test_a_folder_that_is_there_comes_before_the_hub(fresh_user):
    """A name of two parts may be either."""
    (fresh_user / "acme" / "tiny").mkdir(parents=True)
    assert Source.parse("acme/tiny").folder == fresh_user / "acme" / "tiny"


@pytest.mark.parametrize("kind", ["clip", "sentence_clip"])
def test_a_model_is_fetched_once_and_found_again(serve, model_copy, kind, capfd):
    """Weights come last, pickles not at all; afterwards the cache answers without network, and nothing is printed."""
    folder = model_copy(kind)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "README.md").write_text("a card")
    capfd.readouterr()
    hub, asked = serve(folder)
    source, progress = Source.parse("acme/tiny"), Progress()
    assert hub.cached(source) is None
    fetched, commit = hub.fetch(source, progress)
    assert commit == COMMIT
    checkpoint = read_checkpoint(fetched, revision=commit)
    assert (checkpoint.kind, checkpoint.revision) == ("clip", COMMIT)
    assert progress.done_bytes == progress.total_bytes > 10_000
    files = [line.rpartition("/")[2] for line in asked if line.startswith("GET /acme")]
    assert files[-1] == "model.safetensors"
    assert not {"pytorch_model.bin", "README.md"} & set(files)
    asked.clear()
    assert hub.cached(source) == (fetched, COMMIT)
    assert hub.cached(Source.parse(f"acme/tiny@{COMMIT}")) == (fetched, COMMIT)
    assert asked == []
    assert capfd.readouterr() == ("", "")


def test_a_second_fetch_takes_what_is_there_already(serve, model):
    """What was interrupted goes on."""
    hub, asked = serve(model("clip"))
    hub.fetch(Source.parse("acme/tiny"), Progress())
    asked.clear()
    hub.fetch(Source.parse("acme/tiny"), Progress())
    assert not [line for line in asked if line.startswith("GET /acme")]


def test_an_unknown_model_is_told_apart_from_an_outage(serve, model):
    """The one needs another name, the other patience."""
    hub, _ = serve(model("clip"))
    with pytest.raises(ModelNotFoundError, match="no model 'acme/other'"):
        hub.fetch(Source.parse("acme/other"), Progress())
    gone = HuggingFaceHub(cache=hub.cache, endpoint="http://127.0.0.1:9")
    with pytest.raises(NotReadyError, match="could not be fetched") as caught:
        gone.fetch(Source.parse("acme/tiny"), Progress())
    assert caught.value.remedy == "When there is a network: vision models pull acme/tiny"


def test_a_model_without_safetensors_is_not_fetched(serve, model_copy):
    """Nothing is downloaded that would not be loaded."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub, asked = serve(folder)
    with pytest.raises(NotReadyError, match="publishes no safetensors weights"):
        hub.fetch(Source.parse("acme/tiny"), Progress())
    assert not [line for line in asked if line.startswith("GET /acme")]


def test_the_robots_safetensors_are_taken_where_the_publisher_has_none(serve, model, model_copy):
    """They are the same weights; an offer by anybody else is not looked at. Later calls find them without network."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    offers = [("SFconvertbot", model("clip")), ("mallory", model("siglip"))]
    hub, asked = serve(folder, offers=offers)
    source = Source.parse("acme/tiny")
    fetched, commit = hub.fetch(source, Progress())
    assert commit == "1" * 40
    assert read_checkpoint(fetched).kind == "clip"
    asked.clear()
    assert hub.cached(source) == (fetched, commit)
    assert asked == []


def test_a_pinned_revision_is_taken_as_it_is(serve, model, model_copy):
    """Nothing else is looked for; a branch of an offer may be pinned by name."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub, _ = serve(folder, offers=[("SFconvertbot", model("clip"))])
    with pytest.raises(NotReadyError, match="no safetensors"):
        hub.fetch(Source.parse(f"acme/tiny@{COMMIT}"), Progress())
    source = Source.parse("acme/tiny@refs/pr/1")
    fetched, commit = hub.fetch(source, Progress())
    assert commit == "1" * 40
    assert hub.cached(source) == (fetched, commit)
