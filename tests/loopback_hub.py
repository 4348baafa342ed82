"""A hub on loopback that speaks as much of Hugging Face's protocol as its own client needs to list and fetch models.

As on the real one, small files come from the hub itself and are known by git's sha1; weights are known by their sha256
and come from a storage server elsewhere, to which the hub redirects, and which serves ranges, or chunks for Xet.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIECE_BYTES = 1 << 16


@dataclass(kw_only=True)
class Repository:
    """A model on the hub.

    Attributes:
        branches: Folder by the name of the branch.
        offers: Authors and folders of open pull requests; the first is number 1.
        licence: As its tags have it.
        gated: Whether it is open to nobody here.
        listed: What the hub says of further files, true or not.
        commit: What the hub says is the commit, if not the right one.
    """

    branches: dict[str, Path]
    offers: list[tuple[str, Path]] = field(default_factory=list)
    licence: str | None = "mit"
    gated: bool = False
    listed: list[dict[str, Any]] = field(default_factory=list)
    commit: str | None = None

    def find(self, revision: str) -> tuple[Path, str] | None:
        """Return folder and commit of a branch, offer or commit."""
        known = self.branches | {f"refs/pr/{n}": folder for n, (_, folder) in enumerate(self.offers, 1)}
        for name, folder in known.items():
            if revision in {name, commit_of(name)}:
                return folder, commit_of(name)
        return None


def commit_of(branch: str) -> str:
    """Return the commit of a branch; main has that of forty a's."""
    return "a" * 40 if branch == "main" else hashlib.sha1(branch.encode()).hexdigest()  # noqa: S324


def write_model(folder: Path, *, megabytes: float = 0.1, config: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """Write a checkpoint whose files are whole, though nobody could run it; return its folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", **(config or {})}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 224}}))
    (folder / "README.md").write_text("A card, which nobody needs.")
    count = int(megabytes * 1e6 / 4)
    header = {"weight": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}
    encoded = json.dumps(header).encode()
    numbers = hashlib.shake_128(bytes([seed])).digest(4 * count)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + numbers)
    return folder


class LoopbackHub:
    """The hub and its storage, each on a port of its own.

    Attributes:
        repositories: What is published, by name.
        renamed: New names by the old ones.
        asked: Every request, as ``"GET /path"``, with the range where one was asked for.
        hub_tokens: What the hub has been sent as authorisation.
        tokens: What storage has been sent as such; the client must keep that to itself.
        cut_after_bytes: Storage breaks every connection off after so many bytes.
        pace_s: Seconds that storage takes for a piece of 64 KiB.
        etag: What the hub names every file by, if not its checksum.
        commit: What the hub says that every file belongs to, if not its commit.
        elsewhere: Where the hub says that storage is, if not here.
        xet: Whether weights are offered by Xet as well, which huggingface_hub prefers.
        chunks_of: The file whose chunks Xet gets, if not the right one.
        surplus: What both send after the content of a file, without saying how long that is.
        refused_tokens: Authorisations that the hub does not accept.
        distort: What becomes of a listing before it is sent; None where it is sent as it is.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.asked: list[str] = []
        self.hub_tokens: set[str] = set()
        self.tokens: list[str] = []
        self.cut_after_bytes: int | None = None
        self.pace_s = 0.0
        self.etag: str | None = None
        self.commit: str | None = None
        self.elsewhere: str | None = None
        self.xet = False
        self.chunks_of: Path | None = None
        self.surplus = b""
        self.refused_tokens: set[str] = set()
        self.distort: Callable[[Any], Any] | None = None
        self.blobs: dict[str, Path] = {}
        self._servers = [self._start(_Hub), self._start(_Storage)]

    @property
    def endpoint(self) -> str:
        """Address of the hub."""
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def storage(self) -> str:
        """Address of the storage, by another name: the client follows redirects within a host as it does no others."""
        return f"http://localhost:{self._servers[1].server_port}"

    def publish(self, name: str, folder: Path, **more: Any) -> Repository:
        """Publish a folder as the main branch of a model."""
        self.repositories[name] = Repository(branches={"main": folder}, **more)
        return self.repositories[name]

    def fetched(self) -> list[str]:
        """Return the names of files whose content was asked for, in order: small ones of the hub, others of storage."""
        places = [line.split(" ")[1].split("?")[0] for line in self.asked if line.startswith("GET")]
        large = {f"/{sha256}{end}": path.name for sha256, path in self.blobs.items() for end in ("", ".xorb")}
        return [
            large.get(place) or place.rpartition("/")[2] for place in places if place in large or "/resolve/" in place
        ]

    def close(self) -> None:
        """Stop serving."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _start(self, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type(handler.__name__, (handler,), {"hub": self}))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole reply."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        surplus = self.hub.surplus if self.command == "GET" and "ETag" in headers else b""
        if not surplus:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body + surplus)

    def note(self) -> None:
        """Remember the request."""
        asked = self.headers.get("Range")
        self.hub.asked.append(f"{self.command} {self.path}{f' {asked}' if asked else ''}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Hub(_Handler):
    def do_GET(self) -> None:
        self.note()
        self.hub.hub_tokens |= {self.headers.get("Authorization", "")}
        path = unquote(self.path.split("?")[0])
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+)|/(discussions))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path)
        found = listing or file
        name = found[1] if found else ""
        repository = self.hub.repositories.get(name)
        if self.headers.get("Authorization") in self.hub.refused_tokens:
            self.reply(401, X_Error_Message="Invalid credentials in Authorization header")
        elif path == "/xet-token":
            headers = {"X_Xet_Access_Token": "token", "X_Xet_Token_Expiration": str(int(time.time()) + 3600)}
            self.reply(200, X_Xet_Cas_Url=self.hub.elsewhere or self.hub.storage, **headers)
        elif name in self.hub.renamed:
            self.reply(307, Location=self.path.replace(name, self.hub.renamed[name]), ETag='"of the redirect"')
        elif repository is None:
            self.reply(404, X_Error_Code="RepoNotFound")
        elif listing and listing[3]:
            self.reply(200, json.dumps(_discussions(name, repository)).encode(), Content_Type="application/json")
        else:
            revision = listing[2] or "main" if listing else found[2]
            held = repository.find(revision)
            if held is None:
                self.reply(404, X_Error_Code="RevisionNotFound")
            elif listing:
                listed = _listing(name, repository, *held)
                body = json.dumps(self.hub.distort(listed) if self.hub.distort else listed).encode()
                self.reply(200, body, Content_Type="application/json")
            elif repository.gated:
                self.reply(403, X_Error_Code="GatedRepo")
            else:
                self._serve(held[0] / found[3], self.hub.commit or held[1])

    do_HEAD = do_GET  # noqa: N815 — the library's name

    def _serve(self, path: Path, commit: str) -> None:
        if not path.is_file():
            self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        content = path.read_bytes()
        if not _is_large(path):
            etag = self.hub.etag or _git_sha1(content)
            self.reply(200, content, ETag=f'"{etag}"', X_Repo_Commit=commit)
            return
        sha256 = hashlib.sha256(content).hexdigest()
        self.hub.blobs[sha256] = path
        xet = {"X_Xet_Hash": sha256, "X_Xet_Refresh_Route": f"{self.hub.endpoint}/xet-token"} if self.hub.xet else {}
        self.reply(
            302,
            Location=f"{self.hub.elsewhere or self.hub.storage}/{sha256}",
            **xet,
            X_Linked_ETag=f'"{self.hub.etag or sha256}"',
            X_Linked_Size=str(len(content)),
            X_Repo_Commit=commit,
        )


class _Storage(_Handler):
    def do_GET(self) -> None:
        self.note()
        if "Authorization" in self.headers:
            self.hub.tokens.append(self.headers["Authorization"])
        first, _, second = self.path.strip("/").partition("/reconstructions/")
        if second:
            plan = _xet_plan(second, self.hub) if first == "v1" else None
            self.reply(200 if plan else 404, json.dumps(plan).encode())
            return
        name, _, kind = first.partition(".")
        content = ((self.hub.chunks_of if kind else None) or self.hub.blobs[name]).read_bytes()
        content = _xorb(content) if kind else content
        total = len(content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)?", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked and start >= total:
            self.reply(416, Content_Range=f"bytes */{total}")
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if not self.hub.surplus:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        end = total if self.hub.cut_after_bytes is None else min(total, start + self.hub.cut_after_bytes)
        for place in range(start, end, PIECE_BYTES):
            try:
                self.wfile.write(content[place : min(end, place + PIECE_BYTES)])
            except OSError:  # whoever asked has gone away
                break
            time.sleep(self.hub.pace_s)
        with suppress(OSError):
            self.wfile.write(self.hub.surplus)
        self.close_connection = True


def _xet_plan(sha256: str, hub: LoopbackHub) -> dict[str, Any]:
    """Return of which chunks a file is made, all of one xorb: https://huggingface.co/docs/xet/api."""
    content = hub.blobs[sha256].read_bytes()
    chunks = {"start": 0, "end": -(-len(content) // PIECE_BYTES)}
    place = {"range": chunks, "url": f"{hub.storage}/{sha256}.xorb"}
    return {
        "offset_into_first_range": 0,
        "terms": [{"hash": sha256, "unpacked_length": len(content), "range": chunks}],
        "fetch_info": {sha256: [{**place, "url_range": {"start": 0, "end": len(_xorb(content)) - 1}}]},
    }


def _xorb(content: bytes) -> bytes:
    """Return a file as chunks that are not compressed: https://huggingface.co/docs/xet/xorb."""
    pieces = [content[place : place + PIECE_BYTES] for place in range(0, len(content), PIECE_BYTES)]
    sizes = [len(piece).to_bytes(3, "little") for piece in pieces]
    return b"".join(b"\0" + size + b"\0" + size + piece for size, piece in zip(sizes, pieces, strict=True))


def _listing(name: str, repository: Repository, folder: Path, commit: str) -> dict[str, Any]:
    tags = [f"license:{repository.licence}"] if repository.licence else []
    siblings = [_sibling(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()] + repository.listed
    return {
        "id": name,
        "modelId": name,
        "sha": repository.commit or commit,
        "tags": tags,
        "gated": repository.gated,
        "siblings": siblings,
    }


def _sibling(path: Path, folder: Path) -> dict[str, Any]:
    content = path.read_bytes()
    about = {"rfilename": path.relative_to(folder).as_posix(), "size": len(content), "blobId": _git_sha1(content)}
    if not _is_large(path):
        return about
    return {**about, "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}


def _discussions(name: str, repository: Repository) -> dict[str, Any]:
    each = {"title": "Adding `safetensors` variant of this model", "status": "open", "isPullRequest": True}
    when = {"createdAt": "2023-01-01T00:00:00.000Z", "repo": {"name": name, "type": "model"}}
    rows = [{**each, **when, "num": n, "author": {"name": who}} for n, (who, _) in enumerate(repository.offers, 1)]
    return {"discussions": rows, "count": len(rows), "start": 0}


def _is_large(path: Path) -> bool:
    return path.suffix in {".safetensors", ".bin"}


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()  # noqa: S324
