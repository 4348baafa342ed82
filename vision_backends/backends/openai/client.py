"""The HTTP client of one server, and everything that can go wrong on the way to it.

This module decides which headers are sent, how long an exchange may take, and that nothing of aiohttp gets out: replies
leave as plain dictionaries, exceptions as this package's. It must not know what is asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vision_backends.backends.openai.dialect import FIELDS, Dialect, serialized
from vision_backends.backends.openai.error_body import find_error, read_rate_limits
from vision_backends.backends.openai.findings import Findings
from vision_backends.backends.openai.sse import EventReader, looks_like_events, read_events, read_object
from vision_backends.clock import SYSTEM_CLOCK, Deadline, measured
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import (
    BackendError,
    InvalidReplyError,
    RefusedError,
    TimedOutError,
    UnavailableError,
    VisionError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from vision_backends.backends.openai.connections import Exchange, Line, Network
    from vision_backends.backends.openai.errors import Taxonomy
    from vision_backends.backends.openai.prices import PriceList
    from vision_backends.backends.openai.secret import Secret
    from vision_backends.backends.openai.settings import BaseUrl
    from vision_backends.backends.requests import RateLimits
    from vision_backends.clock import Clock
    from vision_backends.errors import CallerError

__all__ = ["Client", "Endpoint", "PreparedRequest", "Reply"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

Endpoint = Literal["chat", "responses", "embeddings"]

PATHS: dict[Endpoint, str] = {"chat": "/chat/completions", "responses": "/responses", "embeddings": "/embeddings"}

MAX_ERROR_BYTES = 1_000_000
ERROR_BODY_S = 2.0
"""How much of an error's body is read, and for how long: what its status means is known without."""

DRAIN_S = 0.05
"""How long to wait for the end of a stream whose events are complete: a new connection would take longer."""

OK = 200

LARGE_BYTES = 100_000
"""JSON of this size takes about a millisecond to parse, so it is parsed in a thread."""

NOT_REACHED = ("reached", "Check the network and base_url in [openai].", "connection_failed")
NOT_TRUSTED = (
    "trusted",
    "Name all certificates to trust, that of its issuer among them, in SSL_CERT_FILE, or check base_url in [openai].",
    "bad_certificate",
)
"""What could not be done with a server, what to do about it, and its code."""

USER_AGENT = "vision-backends"

MAX_CHANGES = 3
"""How many fields of one request may be refused, one after the other, before it is given up."""

NO_KEY = "no-key"
"""What is sent to compatible servers that need no key: some refuse a request without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRequest:
    """A request that can be sent, as often as needed.

    Attributes:
        endpoint: Where to.
        model: The model that it asks.
        body: JSON.
    """

    endpoint: Endpoint
    model: str
    body: bytes = field(repr=False)

    @property
    def has_image(self) -> bool:
        """Whether it holds an image."""
        return b'"data:image/' in self.body


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


class Client:
    """Sends requests to one server, from any event loop; each has its own connections, as has a forked child.

    Args:
        base_url: The server.
        api_key: The key; empty where none is needed.
        taxonomy: What the server's errors mean.
        prices: What replies cost that hold an error.
        dialect: What the server is known to refuse.
        direct: Whether no proxy may be used.
        key_header: The header that carries the key: ``authorization``, or Azure's ``api-key``.
        token: Gives a token to send in place of a key, for each request.
        organization: OpenAI's id of the organization that pays.
        project: OpenAI's id of the project.
        headers: Sent with every request.
        clock: Where time comes from.
    """

    def __init__(
        self,
        base_url: BaseUrl,
        *,
        api_key: Secret,
        taxonomy: Taxonomy,
        prices: PriceList,
        dialect: Dialect | None = None,
        direct: bool = False,
        key_header: Literal["authorization", "api-key"] = "authorization",
        token: Callable[[], Awaitable[Secret]] | None = None,
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, Secret] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._base_url = base_url
        self._api_key = api_key
        self._taxonomy = taxonomy
        self._prices = prices
        self._accounts = {"openai-organization": organization, "openai-project": project}
        self._headers = dict(headers or {})
        self._clock = clock
        self._network: Network | None = None
        self._locks: dict[int, Lock] = {}
        self._lines: dict[tuple[int, asyncio.AbstractEventLoop], Line] = {}
        self._limits: dict[str, RateLimits] = {}
        self._direct, self._key_header, self._token = direct, key_header, token
        self.dialect = dialect or Dialect(base_url.url)
        self.findings = Findings(base_url.url, clock=clock)

    def rate_limits(self, model: str) -> RateLimits | None:
        """Return what the latest reply for a model said about limits."""
        return self._limits.get(model)

    def warm_up(self) -> Network:
        """Prepare the first request in this thread: import aiohttp, load certificates.

        Returns:
            What the environment says about the way to the server.

        Raises:
            UnavailableError: The environment names certificates or a proxy that cannot be used.
        """
        with self._locks.setdefault(os.getpid(), Lock()):  # a child never meets a lock that its parent held
            if self._network is None:
                from vision_backends.backends.openai.connections import Network

                self._network = Network.load(self._base_url.url, direct=self._direct)
            return self._network

    async def prepare(
        self, endpoint: Endpoint, body: Callable[[], dict[str, Any]], *, deadline: Deadline, is_quick: bool = False
    ) -> PreparedRequest:
        """Return a request whose body is made and serialized, in a thread unless that is quick.

        Raises:
            TimedOutError: That took too long.
        """

        def written(made: dict[str, Any]) -> PreparedRequest:
            adapted = self.dialect.adapt(endpoint, made)
            return PreparedRequest(endpoint=endpoint, model=adapted["model"], body=serialized(adapted))

        if is_quick:
            made = body()
            if self.dialect.is_at_hand(endpoint, made["model"]):
                return written(made)
            body = partial(dict, made)
        try:
            async with self._clock.timeout_at(deadline.at):
                return await engine_loop().compute.start(lambda: written(body()))
        except TimeoutError:
            failure = TimedOutError("The deadline passed before the request could be sent.", code="no_time")
        raise failure

    async def post(self, request: PreparedRequest, *, deadline: Deadline) -> Reply:
        """Send a request and read the whole reply.

        Raises:
            BackendError: No usable reply came within the time.
            CallerError: The server blames the request.
        """
        with measured("wire"):
            exchange = await self._opened(request, deadline)
            try:
                until = None if exchange.is_whole else deadline
                return await self._limited(self._fetch(request, exchange), exchange, until)
            except RefusedError as refusal:
                await self._note(refusal, request, deadline)
                raise
            finally:
                exchange.close()

    async def look(self, *, deadline: Deadline) -> tuple[int, str]:
        """Ask which models there are, which costs nothing, and return the reply's status and type of content.

        Raises:
            BackendError: The server was not reached.
        """
        async with self._listing(deadline) as exchange:
            return exchange.status, exchange.headers.get("content-type", "")

    async def models(self, *, deadline: Deadline) -> list[dict[str, Any]]:
        """Return the models that the server lists; none where it has no such list.

        Raises:
            BackendError: The server was not reached.
        """
        content = bytearray()
        async with self._listing(deadline) as exchange:
            while len(content) < MAX_ERROR_BYTES and exchange.status == OK:
                piece = await self._limited(exchange.read(), exchange, deadline)
                if not piece:
                    break
                content += piece
        with suppress(InvalidReplyError):
            listed = read_object(bytes(content)).get("data")
            return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return []

    @asynccontextmanager
    async def _listing(self, deadline: Deadline) -> AsyncIterator[Exchange]:
        """Ask which models there are, and have the head of the reply while the block runs."""
        exchange = await self._exchange(deadline)
        try:
            url = f"{self._base_url.url}/models{self._base_url.query}"
            if self._token is not None:
                await self._limited(self._authorize(exchange), exchange, deadline)
            await self._limited(exchange.send(url, b"", method="GET"), exchange, deadline)
            yield exchange
        finally:
            exchange.close()

    async def stream(self, request: PreparedRequest, *, deadline: Deadline) -> AsyncGenerator[dict[str, Any], None]:
        """Send a request and yield the events of the reply as they come; errors as in `post`."""
        exchange = await self._opened(request, deadline)
        reader = EventReader()
        try:
            while not reader.done:
                events = await self._limited(self._read_events(reader, exchange), exchange, deadline)
                for event in events:
                    self._check(event, request, exchange)
                    yield event
            with suppress(BackendError):
                await self._limited(exchange.drain(), exchange, Deadline(self._clock, DRAIN_S))
        except RefusedError as refusal:
            await self._note(refusal, request, deadline)
            raise
        finally:
            exchange.close()

    async def aclose(self) -> None:
        """Close the connections of the running loop, also those in use; the next request opens new ones."""
        line = self._lines.pop((os.getpid(), asyncio.get_running_loop()), None)
        if line is not None:
            await line.aclose()

    def close(self) -> None:
        """Let every loop of this process close its connections when no call needs them any more, from any thread."""
        for key in [key for key in self._lines if key[0] == os.getpid()]:
            self._lines.pop(key, None)

    async def _opened(self, request: PreparedRequest, deadline: Deadline) -> Exchange:
        """Send a request and return the exchange once the head of a reply is there that holds an answer.

        A request of which a field is refused is sent again without it. What has helped is remembered.
        """
        changes: dict[str, object] = {}
        while True:
            exchange = await self._exchange(deadline)
            try:
                await self._limited(self._open(request, exchange, deadline), exchange, deadline)
                self._taxonomy.believe_again()
                if changes:
                    learn = partial(self.dialect.learn, request.endpoint, request.model, changes)
                    await self._limited(engine_loop().compute.start(learn), exchange, deadline)
            except RefusedError as refusal:
                exchange.close()
                changed = await self._limited(self._without(request, refusal), None, deadline)
                if changed is None or changed[1].items() <= changes.items() or len(changes) >= MAX_CHANGES:
                    await self._note(refusal, request, deadline)
                    refusal.lasting |= bool(changes.keys() & FIELDS.keys())  # every request has them
                    raise
                request = replace(request, body=changed[0])
                changes |= changed[1]
            except BaseException:
                exchange.close()
                raise
            else:
                return exchange

    async def _note(self, refusal: RefusedError, request: PreparedRequest, deadline: Deadline) -> None:
        """Keep what a refusal says of the model, so that nobody has to be refused again."""
        if refusal.blind:
            said = refusal.message.rstrip(".")
            _log.warning("%s. It is asked about none for a week, or until it is probed anew.", said)
            note = partial(self.findings.note, request.model, "blind")
            with suppress(BackendError):
                await self._limited(engine_loop().compute.start(note), None, deadline)

    async def _without(self, request: PreparedRequest, refusal: RefusedError) -> tuple[bytes, dict[str, object]] | None:
        return await engine_loop().compute.start(partial(self.dialect.without, request.body, refusal))

    async def _exchange(self, deadline: Deadline) -> Exchange:
        """Return a new exchange on the line of the running loop, which is opened if need be."""
        if deadline.expired:
            raise TimedOutError("The deadline had already passed.", code="no_time")
        key = (os.getpid(), asyncio.get_running_loop())
        if key not in self._lines:
            network = await self._limited(engine_loop().compute.start(self.warm_up), None, deadline)
            if key not in self._lines:  # no other call was faster
                from vision_backends.backends.openai.connections import Line

                for closed in [other for other in self._lines if other[1].is_closed()]:
                    del self._lines[closed]
                self._lines[key] = await Line.open(self._all_headers(), network, clock=self._clock)
        return self._lines[key].exchange()

    def _all_headers(self) -> dict[str, str]:
        """Return what is sent with every request; the user's own headers win."""
        headers = {
            "accept": "application/json",
            "accept-encoding": "identity",  # compressed events would come late
            "content-type": "application/json",
            "user-agent": USER_AGENT,
        }
        if self._token is None:
            key, is_bearer = self._api_key.reveal() or NO_KEY, self._key_header == "authorization"
            headers[self._key_header] = f"Bearer {key}" if is_bearer else key
        headers |= {name: value for name, value in self._accounts.items() if value is not None}
        return headers | {name.lower(): value.reveal() for name, value in self._headers.items()}

    async def _open(self, request: PreparedRequest, exchange: Exchange, deadline: Deadline) -> None:
        """Send a request and wait for the head of the reply; raises the error that its status means."""
        if self._token is not None:
            await self._authorize(exchange)
        server, path = self._base_url, PATHS[request.endpoint]
        if server.by_deployment and request.endpoint != "responses":
            path = f"/deployments/{request.model}{path}"
        await exchange.send(server.url + path + server.query, request.body)
        limits = read_rate_limits(exchange.headers, now=self._clock.time)
        if limits is not None:
            self._limits[request.model] = limits
        if exchange.status >= 300:
            raise await self._refusal(exchange, request, deadline)

    async def _authorize(self, exchange: Exchange) -> None:
        """Have a request carry a token of its own."""
        if self._token is not None:
            token = await self._token()
            self._taxonomy.hide(token)
            exchange.authorize(token)

    async def _fetch(self, request: PreparedRequest, exchange: Exchange) -> Reply:
        blocks = [bytearray()]
        while piece := await exchange.read():
            if len(blocks[-1]) > LARGE_BYTES:  # one block that grows to megabytes would be copied on the loop
                blocks.append(bytearray())
            blocks[-1] += piece
        read = partial(_read_payloads, blocks)
        payloads = read() if len(blocks[0]) < LARGE_BYTES else await engine_loop().compute.start(read)
        for payload in payloads:
            self._check(payload, request, exchange)
        return Reply(
            payloads=payloads,
            streamed=looks_like_events(blocks[0]),
            request_id=self._taxonomy.scrub(exchange.headers.get("x-request-id", "")) or None,
        )

    async def _refusal(self, exchange: Exchange, request: PreparedRequest, deadline: Deadline) -> VisionError:
        """Return the error that a status other than 2xx means, by as much of the body as arrives soon."""
        from aiohttp import ClientError

        content = bytearray()
        until = self._clock.monotonic() + min(ERROR_BODY_S, deadline.remaining_s / 2)
        with suppress(ClientError, OSError, InvalidReplyError):  # TimeoutError is an OSError
            async with self._clock.timeout_at(until):
                while len(content) < MAX_ERROR_BYTES and (piece := await exchange.read()):
                    content += piece
        read = partial(self._explain_bytes, bytes(content), exchange, request)
        return read() if len(content) < LARGE_BYTES else await engine_loop().compute.start(read)

    def _explain_bytes(
        self, content: bytes, exchange: Exchange, request: PreparedRequest
    ) -> BackendError | CallerError:
        text = content.decode(errors="replace").strip()
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = text
        return self._explain(body, exchange, request)

    async def _read_events(self, reader: EventReader, exchange: Exchange) -> Iterable[dict[str, Any]]:
        """Return the events that the next piece of a stream completes."""
        piece = await exchange.read()
        events = reader.feed(piece) if piece else reader.end()
        if reader.pending_bytes + len(piece) < LARGE_BYTES:
            return events
        return await engine_loop().compute.start(partial(list, events))

    def _check(self, payload: dict[str, Any], request: PreparedRequest, exchange: Exchange) -> None:
        """Raise the error that a reply or event with status 200 may hold."""
        error = find_error(payload)
        if error is not None:
            failure = self._explain(error, exchange, request)
            failure.usage = self._prices.billed(request.model, [payload])
            raise failure

    def _explain(self, error: object, exchange: Exchange, request: PreparedRequest) -> BackendError | CallerError:
        return self._taxonomy.explain(
            error,
            status=exchange.status,
            headers=exchange.headers,
            now_s=self._clock.time(),
            with_image=request.has_image,
        )

    async def _limited(self, step: Awaitable[T], exchange: Exchange | None, deadline: Deadline | None) -> T:
        """Await a step within the deadline (None where it waits for nothing), and raise what goes wrong elsewhere.

        The exceptions of aiohttp hold the key, as do the frames that a cancellation has passed.
        """
        failure: BaseException
        try:
            async with nullcontext() if deadline is None else self._clock.timeout_at(deadline.at):
                return await step
        except VisionError:
            raise
        except asyncio.CancelledError as error:
            failure = asyncio.CancelledError(*error.args)
        except Exception as error:  # noqa: BLE001 — whatever it is, its frames hold the key
            failure = self._translate(error, exchange)
        raise failure

    def _translate(self, error: Exception, exchange: Exchange | None) -> BackendError:
        """Return our error for one of aiohttp or of the network, of which only the words are kept."""
        from vision_backends.backends.openai.connections import failed_proxy, is_of_certificates, reason_of

        host = self._base_url.host
        if isinstance(error, TimeoutError):
            if exchange is None or exchange.protocol is None:
                return UnavailableError(f"{host} did not accept a connection in time.", code="connect_timeout")
            if exchange.status:
                return TimedOutError(f"{host} sends its reply too slowly.", code="slow_reply")
            return TimedOutError(f"{host} did not answer in time.", code="read_timeout")
        reason = self._taxonomy.scrub(reason_of(error))
        if exchange is not None and exchange.status:
            return InvalidReplyError(f"The reply of {host} broke off: {reason}", code="reply_cut")
        proxy = failed_proxy(error, self._network)
        if proxy is not None:
            return UnavailableError(
                f"{host} cannot be reached through the proxy {proxy.host} of {proxy.source}: {reason}",
                remedy=f"Unset {proxy.source}, or add the host to NO_PROXY.",
                code="proxy_failed",
            )
        done, remedy, code = NOT_TRUSTED if is_of_certificates(error) else NOT_REACHED
        return UnavailableError(f"{host} cannot be {done}: {reason}", remedy=remedy, code=code)


def _read_payloads(blocks: Sequence[bytearray]) -> tuple[dict[str, Any], ...]:
    """Return the JSON object of a reply, or those of an event stream that may not have been asked for."""
    content = b"".join(blocks)
    if not looks_like_events(content):
        return (read_object(content),)
    payloads = tuple(read_events(content))
    if not payloads:
        raise InvalidReplyError("The reply is an event stream without events.", code="stream_cut")
    return payloads
