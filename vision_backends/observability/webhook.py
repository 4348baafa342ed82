"""Posts messages to a webhook in the background.

This module decides how a message reaches a webhook without ever delaying or failing a call. It must not know what the
message is about. The address alone allows writing there: it is a secret, and shown nowhere.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from vision_backends.config.web_address import is_web_address
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Webhook"]

TIMEOUT_S = 5.0
PAUSE_S = 1.0
FLUSH_S = 2.0

MAX_LEFT = 4
"""Posts that have not ended in time and were left to themselves; nothing is posted while there are so many."""

MAX_WAITING = 100
"""Messages that may wait while the webhook is slow; more are dropped."""

TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500

_log = logging.getLogger(__name__)


class _Failure(NamedTuple):
    """Why a message did not arrive, without the address, and whether to try once more."""

    reason: str
    temporary: bool


class Webhook:
    """Posts messages as JSON, one after the other, in a daemon thread that lives as long as some are waiting.

    A message is tried twice at most, no redirect is followed, and trouble is logged once until a message arrives
    again. The body of the reply is not read.

    Args:
        url: Where to post; never shown again.
        timeout_s: Seconds to wait for the connection, and again for the reply; twice as long for all together, however
            slowly either of them trickles in.
        pause_s: Seconds before the second try.

    Raises:
        ConfigError: The address is not valid.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S, pause_s: float = PAUSE_S) -> None:
        usable = is_web_address(url)
        self._url = url
        del url  # a traceback with local variables must not show it
        if not usable:
            raise ConfigError("The webhook is not an http:// or https:// address.")
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._waiting: deque[bytes] = deque()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._complained = False
        self._free = threading.Semaphore(MAX_LEFT)

    def post(self, message: Mapping[str, object]) -> None:
        """Send a message soon; returns immediately and never raises, even if it does not arrive."""
        body = json.dumps(message).encode()
        with self._lock:
            if self._closing.is_set():
                return
            dropped = len(self._waiting) >= MAX_WAITING
            if not dropped:
                self._waiting.append(body)
            if self._thread is None or not self._thread.is_alive():  # it is not, in a process forked meanwhile
                self._thread = threading.Thread(target=self._deliver, name="vision-webhook", daemon=True)
                with suppress(RuntimeError):  # the system starts no more threads: the next message tries again
                    self._thread.start()
        if dropped:
            self._complain(f"{MAX_WAITING} others are waiting")

    def close(self, *, timeout_s: float = FLUSH_S) -> None:
        """Wait briefly for what is still to be sent, and accept no more; may be called twice."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(timeout_s)

    def _next(self) -> bytes | None:
        """Return the next message, or None when the thread may end."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._thread = None
            return None

    def _deliver(self) -> None:
        while (body := self._next()) is not None:
            failure = self._try_in_time(body)
            if failure is not None and failure.temporary:
                self._closing.wait(self._pause_s)
                failure = self._try_in_time(body)
            if failure is None:
                self._complained = False
            else:
                self._complain(failure.reason)

    def _try_in_time(self, body: bytes) -> _Failure | None:
        """Post once in a thread of its own: neither a name's lookup nor a reply that trickles in has a timeout."""
        if not self._free.acquire(blocking=False):
            return _Failure(f"{MAX_LEFT} earlier ones have not ended", temporary=False)
        ended: SimpleQueue[_Failure | None] = SimpleQueue()

        def run() -> None:
            try:
                ended.put(self._try(body))
            finally:
                self._free.release()

        try:
            threading.Thread(target=run, name="vision-webhook-post", daemon=True).start()
        except RuntimeError:  # the system starts no more threads
            self._free.release()
            return _Failure("no thread could be started", temporary=True)
        try:
            return ended.get(timeout=2 * self._timeout_s)
        except Empty:
            return _Failure("TimeoutError", temporary=False)  # it may have arrived

    def _try(self, body: bytes) -> _Failure | None:
        """Post once; return what went wrong, in our own words: library errors would name the address."""
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.request import HTTPRedirectHandler, Request, build_opener

        class Unmoved(HTTPRedirectHandler):
            """Follows no redirect, which would pass the message on to another server."""

            def redirect_request(self, *_args: object) -> None:
                """Return None: nothing is followed."""

        headers = {"Content-Type": "application/json", "User-Agent": "vision-backends"}
        try:
            request = Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310 — http(s), checked
            build_opener(Unmoved).open(request, timeout=self._timeout_s).close()
        except HTTPError as error:
            error.close()
            return _Failure(f"HTTP {error.code}", error.code == TOO_MANY_REQUESTS or error.code >= SERVER_ERROR)
        except URLError as error:
            return _Failure(type(error.reason).__name__, temporary=True)
        except (OSError, ValueError, HTTPException) as error:
            return _Failure(type(error).__name__, temporary=isinstance(error, OSError))
        return None

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("An alert did not reach its webhook (%s); further failures are not logged.", reason)
