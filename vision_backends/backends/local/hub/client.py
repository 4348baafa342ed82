"""A stricter HTTP client for huggingface_hub, in place while we fetch something.

This module decides which servers may be contacted and which ETags may name a file in the cache: huggingface_hub follows
redirects wherever they lead, and stores a file under whatever path its ETag makes. It must not know which files are
wanted.
"""

from __future__ import annotations

import ipaddress
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vision_backends.backends.local.hub.verify import DIGEST
from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from httpx2 import Client, Request, Response

__all__ = ["strict_client"]


class _Installation:
    """The strict client within huggingface_hub, installed for as long as any thread fetches something for us.

    huggingface_hub has one client per process. Requests from the application's own threads pass through ours unchecked,
    and their downloads survive its installation and removal: `set_client_factory` alone would close the client that
    they are using, and nothing returns the factory that was set before, hence the access to the variables behind it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fetches = 0
        self._used_by_others = False
        self._theirs: Callable[[], Client]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Install it unless it is installed; the last to leave restores the application's own."""
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
        """Return the application's own client, with its proxies and certificates, that also checks."""
        client = self._theirs()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], self._check_request],
            "response": [*hooks["response"], self._check_response],
        }
        return client

    def _check_request(self, request: Request) -> None:
        if _fetching.get():
            _check_address(str(request.url))
        else:
            self._used_by_others = True

    def _check_response(self, response: Response) -> None:
        if not _fetching.get():
            return
        headers = response.headers
        _check_address(headers.get("X-Xet-Cas-Url", "https:"))  # hf_xet connects there, with a client of its own
        if response.is_redirect:
            headers.pop("ETag", None)  # the redirect's own; only a linked one names the file
        etag = (headers.get("X-Linked-ETag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
        if response.request.method == "HEAD" and etag and not DIGEST.fullmatch(etag):
            raise _refusal(f"The hub names a file by the ETag {etag[:80]!r}, which is not a checksum.")


_installation = _Installation()
"""One for the whole process, as is huggingface_hub's client."""

_fetching: ContextVar[bool] = ContextVar("fetching", default=False)
"""Whether the thread is fetching something for us."""


@contextmanager
def strict_client() -> Iterator[None]:
    """Let this thread reach the hub through the strict client only; what it refuses is a `NotReadyError`."""
    with _installation.in_place():
        token = _fetching.set(True)
        try:
            yield
        finally:
            _fetching.reset(token)


def _check_address(url: str) -> None:
    """Refuse plain http, except on this machine: anyone in between could read the token and replace the files."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise _refusal(f"Refused to contact {parts.scheme}://{parts.hostname}: only https is safe beyond this machine.")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refusal(message: str) -> NotReadyError:
    return NotReadyError(message, remedy="Check HF_ENDPOINT and any proxy in between.", code="hub_not_trusted")
