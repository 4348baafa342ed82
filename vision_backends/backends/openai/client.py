"""The line to the server: one pooled client of the SDK per process, and everything that can go wrong on the way.

This module decides how requests travel, how long they may take, and that nothing of the SDK gets out: replies leave
as plain dictionaries, exceptions as this package's. It must not know what is asked. The SDK authenticates and sends;
the replies are read here, because those of compatible servers do not fit its models.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.backends.openai.error_bodies import find_trouble
from vision_backends.backends.openai.prices import billed
from vision_backends.backends.openai.rate_limit_headers import read_rate_limits
from vision_backends.backends.openai.sse import looks_like_events, read_events, read_object
from vision_backends.backends.timing import measured
from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.errors import (
    BackendError,
    CallerError,
    InvalidReplyError,
    TimedOutError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from contextlib import AbstractContextManager

    import openai
    from openai import APIResponse

    from vision_backends.backends.openai.base_url import Address
    from vision_backends.backends.openai.errors import Taxonomy
    from vision_backends.backends.openai.secret import Secret
    from vision_backends.backends.requests import RateLimits
    from vision_backends.clock import Clock

__all__ = ["CONNECT_TIMEOUT_S", "Connection", "Endpoint", "Reply"]

Endpoint = Literal["chat", "responses", "embeddings"]

CONNECT_TIMEOUT_S = 5.0

MAX_REPLY_BYTES = 64_000_000
"""More than any reply to what is asked here; a server that sends more is not read to the end."""

NO_KEY = "no-key"
"""What is sent to compatible servers that want no key: the SDK insists on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server answered.

    Attributes:
        payloads: The JSON object of the reply; several when it was an event stream.
        streamed: True when it was an event stream, asked for or not.
        request_id: The server's own id of the request.
    """

    payloads: tuple[dict[str, Any], ...]
    streamed: bool
    request_id: str | None


class Connection:
    """Sends requests to one server. Safe for many threads; a forked child connects anew.

    Args:
        address: The server.
        api_key: The key; empty where none is needed.
        taxonomy: What the server's errors mean.
        organization: OpenAI's id of the organization that pays.
        project: OpenAI's id of the project.
        headers: Sent with every request.
        clock: Where time comes from.
    """

    def __init__(
        self,
        address: Address,
        *,
        api_key: Secret,
        taxonomy: Taxonomy,
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, Secret] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._address = address
        self._api_key = api_key
        self._taxonomy = taxonomy
        self._organization = organization
        self._project = project
        self._headers = dict(headers or {})
        self._clock = clock
        self._clients: dict[int, openai.OpenAI] = {}
        self._locks: dict[int, Lock] = {}
        self._limits: dict[str, RateLimits] = {}

    def rate_limits(self, model: str) -> RateLimits | None:
        """Return what the latest reply for a model said about limits."""
        return self._limits.get(model)

    def open(self) -> None:
        """Do all that can be done before the first request: most of the SDK is imported at its first use."""
        client = self._client()
        for part in (client.chat.completions, client.responses, client.embeddings):
            part.with_streaming_response  # noqa: B018 — imports what it needs

    @measured("wire")
    def post(self, endpoint: Endpoint, body: dict[str, Any], *, timeout_s: float) -> Reply:
        """Send a request and read the whole reply.

        Raises:
            BackendError: No usable reply came within the time.
            CallerError: The server blames the request.
        """
        import httpx2
        import openai

        ends_s = self._clock.monotonic() + timeout_s
        try:
            with self._open(endpoint, body, timeout_s) as response:
                self._note_limits(body, response.headers)
                content = b"".join(self._chunks(response, ends_s))
            return self._reply(response, content)
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            failure = self._translate(error, body)
        raise failure  # outside of the handler: the SDK's exception holds the key, so nothing may point to it

    def stream(
        self, endpoint: Endpoint, body: dict[str, Any], *, timeout_s: float
    ) -> Generator[dict[str, Any], None, None]:
        """Send a request and yield the events of the reply as they come; errors as in `post`."""
        import httpx2
        import openai

        ends_s = self._clock.monotonic() + timeout_s
        try:
            with self._open(endpoint, body, timeout_s) as response:
                self._note_limits(body, response.headers)
                for event in read_events(self._chunks(response, ends_s)):
                    self._check(event, response)
                    yield event
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            failure = self._translate(error, body)
        else:
            return
        raise failure

    def close(self) -> None:
        """Close this process's connections; the next request opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _open(
        self, endpoint: Endpoint, body: dict[str, Any], timeout_s: float
    ) -> AbstractContextManager[APIResponse[Any]]:
        import openai

        client = self._client()
        create: Callable[..., AbstractContextManager[APIResponse[Any]]]
        if endpoint == "chat":
            create = client.chat.completions.with_streaming_response.create
        elif endpoint == "responses":
            create = client.responses.with_streaming_response.create
        else:
            create = client.embeddings.with_streaming_response.create
        return create(**body, timeout=openai.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)))

    def _client(self) -> openai.OpenAI:
        process = os.getpid()
        client = self._clients.get(process)
        if client is not None:
            return client
        with self._locks.setdefault(process, Lock()):  # a child never meets a lock that its parent held
            if process not in self._clients:
                self._clients[process] = self._connect()
            return self._clients[process]

    def _connect(self) -> openai.OpenAI:
        import openai

        try:
            client = openai.OpenAI(
                api_key=self._api_key.reveal() or NO_KEY,
                base_url=self._address.base_url,
                max_retries=0,
                default_headers={name: value.reveal() for name, value in self._headers.items()},
                http_client=openai.DefaultHttpxClient(follow_redirects=False),
            )
        except Exception as error:  # noqa: BLE001 — whatever it is, its frames hold the key
            failure = UnavailableError(
                f"The HTTP client cannot be made: {self._taxonomy.scrub(str(error))}", code=type(error).__name__
            )
        else:
            # The SDK would take these from the environment, which is not its to read here.
            client.organization, client.project, client.admin_api_key = self._organization, self._project, None
            return client
        raise failure

    def _chunks(self, response: APIResponse[Any], ends_s: float) -> Iterator[bytes]:
        """Yield the body; the SDK's timeout limits each read only, hence the look at the clock after each."""
        size = 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > MAX_REPLY_BYTES:
                raise InvalidReplyError(f"The reply is longer than {MAX_REPLY_BYTES:,} bytes.", code="too_long")
            if self._clock.monotonic() > ends_s:
                raise TimedOutError(f"{self._address.host} sends its reply too slowly.", code="slow_reply")
            yield chunk

    def _reply(self, response: APIResponse[Any], content: bytes) -> Reply:
        streamed = looks_like_events(content)
        payloads = tuple(read_events([content])) if streamed else (read_object(content),)
        if not payloads:
            raise InvalidReplyError("The reply is an event stream without events.", code="stream_cut")
        for payload in payloads:
            self._check(payload, response)
        return Reply(payloads=payloads, streamed=streamed, request_id=response.headers.get("x-request-id"))

    def _check(self, payload: dict[str, Any], response: APIResponse[Any]) -> None:
        """Raise the error that a reply or event with status 200 may hold."""
        trouble = find_trouble(payload)
        if trouble is not None:
            failure = self._taxonomy.explain(
                trouble, status=response.status_code, headers=response.headers, now_s=self._clock.time()
            )
            failure.usage = billed([payload])
            raise failure

    def _translate(self, error: Exception, body: Mapping[str, Any]) -> BackendError | CallerError:
        """Return our error for the SDK's or its HTTP library's; keeps nothing of it but words."""
        import httpx2
        import openai

        host = self._address.host
        if isinstance(error, openai.APIStatusError):
            self._note_limits(body, error.response.headers)
            return self._taxonomy.explain(
                error.body, status=error.status_code, headers=error.response.headers, now_s=self._clock.time()
            )
        began = isinstance(error, httpx2.HTTPError)  # the SDK wraps what happens before the reply begins, not after
        cause = error if began else error.__cause__ or error
        if isinstance(cause, httpx2.ConnectTimeout):
            return UnavailableError(f"{host} did not accept a connection in time.", code="connect_timeout")
        if isinstance(cause, httpx2.TimeoutException):
            return TimedOutError(f"{host} did not answer in time.", code="read_timeout")
        reason = self._taxonomy.scrub(str(cause) or type(cause).__name__)
        if began:
            return InvalidReplyError(f"The reply of {host} broke off: {reason}", code="reply_cut")
        return UnavailableError(
            f"{host} cannot be reached: {reason}",
            remedy="Check the network and base_url in [openai].",
            code="connection_failed",
        )

    def _note_limits(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        limits = read_rate_limits(headers)
        if limits is not None:
            self._limits[body["model"]] = limits
