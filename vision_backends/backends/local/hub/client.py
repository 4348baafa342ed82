"""The HTTP client through which huggingface_hub fetches models, stricter than its own.

This module decides what is refused of what a server sends. huggingface_hub stores a file under whatever name an ETag
gives it, follows redirects wherever they lead, and writes all that arrives. It must not know which files are wanted.
"""

from __future__ import annotations

import ipaddress
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vision_backends.backends.local.hub.verify import DIGEST
from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from httpx2 import Client, Request, Response

__all__ = ["Allowance", "strict_client"]


@dataclass(slots=True)
class Allowance:
    """What one thread may receive.

    Attributes:
        commit: The version that its files belong to.
        file_bytes: The announced size of the one that it fetches; None while it asks for something else.
        left_bytes: How much of that has not arrived yet.
    """

    commit: str | None = None
    file_bytes: int | None = None
    left_bytes: int = 0

    def check(self, response: Response) -> None:
        """Refuse an answer that would be stored in a wrong place, and let no more arrive than was announced.

        Raises:
            NotReadyError: The answer is refused.
        """
        headers = response.headers
        _check_address(headers.get("X-Xet-Cas-Url", "https:"))  # hf_xet asks there, with a client of its own
        if response.request.method == "HEAD":
            if response.is_redirect:
                headers.pop("ETag", None)  # the redirect's own; only a linked one names the file
            etag = (headers.get("X-Linked-ETag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
            if etag and not DIGEST.fullmatch(etag):
                raise _refusal(f"it names a file by the ETag {etag[:80]!r}, which is no checksum")
            if headers.get("X-Repo-Commit", self.commit) != self.commit:
                raise _refusal(f"it sends a file of commit {headers['X-Repo-Commit'][:80]!r} for one of {self.commit}")
        elif self.file_bytes is not None and response.status_code in {200, 206}:
            if response.status_code == 200:  # from its beginning; 206 goes on where the connection broke off
                self.left_bytes = self.file_bytes
            response.iter_bytes = self._bounded(response.iter_bytes)  # type: ignore[method-assign]  # of this one only

    def _bounded(self, read: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        def iter_bytes(chunk_size: int | None = None) -> Iterator[bytes]:
            for chunk in read(chunk_size):
                self.left_bytes -= len(chunk)
                if self.left_bytes < 0:
                    raise _refusal(f"it sends more than the {self.file_bytes} bytes that it announced for a file")
                yield chunk

        return iter_bytes


class _Installation:
    """The strict client within huggingface_hub, where it stays as long as any thread fetches something for us.

    It is the whole process's client: requests of other threads pass through it unchecked, and what they are receiving
    goes on when it comes and goes. huggingface_hub neither tells which factory is set, nor sets another one without
    closing the client under them; hence the look at its variables.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fetches = 0
        self._used_by_others = False
        self._theirs: Callable[[], Client]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put it in place, if it is not; the last to leave puts the application's own back."""
        from huggingface_hub import set_client_factory
        from huggingface_hub.utils import _http

        state = vars(_http)
        with self._lock:
            self._fetches += 1
            if self._fetches == 1:
                self._theirs, self._used_by_others = state["_GLOBAL_CLIENT_FACTORY"], False
                state["_GLOBAL_CLIENT"] = None  # so that it is not closed
                set_client_factory(self._make)
        try:
            yield
        finally:
            with self._lock:
                self._fetches -= 1
                if not self._fetches and state["_GLOBAL_CLIENT_FACTORY"] == self._make:  # else they have set another
                    if self._used_by_others:
                        state["_GLOBAL_CLIENT"] = None
                    set_client_factory(self._theirs)

    def _make(self) -> Client:
        """Return a client of the application's making, so with its proxies and certificates, that also checks."""
        client = self._theirs()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], self._check_request],
            "response": [*hooks["response"], _check_response],
        }
        return client

    def _check_request(self, request: Request) -> None:
        if _allowance.get() is None:
            self._used_by_others = True
        else:
            _check_address(str(request.url))


_installation = _Installation()
"""One for the whole process, as is huggingface_hub's client."""

_allowance: ContextVar[Allowance | None] = ContextVar("allowance", default=None)
"""Set in threads that fetch for us."""


@contextmanager
def strict_client(*, commit: str | None = None) -> Iterator[Allowance]:
    """Let this thread reach the hub only through the strict client; its refusals are `NotReadyError`.

    Args:
        commit: The version that is fetched; None while it is not known.

    Yields:
        What the thread may receive; it is to say how long each file is.
    """
    allowance = Allowance(commit=commit)
    with _installation.in_place():
        token = _allowance.set(allowance)
        try:
            yield allowance
        finally:
            _allowance.reset(token)


def _check_response(response: Response) -> None:
    allowance = _allowance.get()
    if allowance is not None:
        allowance.check(response)


def _check_address(url: str) -> None:
    """Refuse plain http, except on this machine: anyone on the way could read the token and exchange the files."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise _refusal(f"{parts.scheme}://{parts.hostname} is not https")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refusal(why: str) -> NotReadyError:
    message = f"What the hub answers is refused: {why}."
    return NotReadyError(message, remedy="Check HF_ENDPOINT and the proxies in between.", code="hub_not_trusted")
