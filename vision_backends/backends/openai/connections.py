"""How bytes travel to the server: aiohttp's sessions, connections, names, certificates and proxies.

This module decides when a connection is used again, when a request is sent a second time, and how much of a reply is
read. It must not know what is asked, nor what a status means. Importing it imports aiohttp, which takes a third of a
second: import it where it is used, in a thread.
"""

from __future__ import annotations

import functools
import os
import socket
import ssl
import sys
import urllib.request
import zlib
from asyncio import get_running_loop, sleep
from contextvars import ContextVar
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from vision_backends.engine.pools import Pool
from vision_backends.errors import InvalidReplyError, OverloadedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp import ClientRequest, ClientResponse, ClientSession, ClientTimeout
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection

    from vision_backends.backends.openai.secret import Secret
    from vision_backends.clock import Clock

__all__ = ["CONNECT_TIMEOUT_S", "MAX_REPLY_BYTES", "Exchange", "Line", "Network", "Proxy", "failed_proxy", "reason_of"]

CONNECT_TIMEOUT_S = 5.0

MAX_REPLY_BYTES = 64_000_000
"""More than any reply to what is asked here; a server that sends more is not read to the end."""

MAX_HEADER_BYTES = 65_536
"""Limit of one line of a reply's head; aiohttp's own of 8,190 is less than some gateways send."""

LOOKUPS = 8
"""How many host names are looked up simultaneously, including lookups that never return."""

PIECE_BYTES = 1_048_576
"""How much is decompressed, or written in one go, before others have their turn on the event loop."""

CLEANUP_CLOSED: bool = getattr(aiohttp.connector, "NEEDS_CLEANUP_CLOSED", False)
"""Whether this Python leaves TLS connections open that the server does not close (cpython#118960)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy between this machine and the server.

    Attributes:
        url: The proxy, with the password that it may need.
        host: Its name and port.
        source: Where it is configured, such as ``HTTPS_PROXY``.
    """

    url: str = field(repr=False)
    host: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the environment says about the way to a server.

    Attributes:
        tls: Whom to trust; None where nothing is encrypted.
        proxy: The proxy to go through; None for the direct way.
    """

    tls: ssl.SSLContext | None
    proxy: Proxy | None

    @classmethod
    def load(cls, url: str, *, direct: bool = False) -> Network:
        """Read the environment and the certificates; takes some 20 ms.

        Args:
            url: The server.
            direct: Whether no proxy may be used, whatever the environment says.

        Raises:
            UnavailableError: A file of certificates is missing or invalid, or the proxy is of an unknown kind.
        """
        parts = urlsplit(url)
        proxy = None if direct else _find_proxy(parts.scheme, parts.netloc)
        encrypted = parts.scheme == "https" or (proxy is not None and proxy.url.startswith("https:"))
        return cls(tls=_tls_context() if encrypted else None, proxy=proxy)


def _find_proxy(scheme: str, host: str) -> Proxy | None:
    """Return the proxy for a server; never one whose password would come from ``~/.netrc``."""
    proxies = urllib.request.getproxies()
    kind = scheme if proxies.get(scheme) else "all"
    url = proxies.get(kind, "")
    if not url or urllib.request.proxy_bypass(host):
        return None
    names = [name for name in os.environ if name.lower() == f"{kind}_proxy"]
    source = names[0] if names else "the system's settings"
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UnavailableError(
            f"The proxy of {source} is not an http:// address: {parts.scheme}://{parts.netloc.rpartition('@')[2]}",
            remedy=f"Name an HTTP proxy (SOCKS is not supported), or add {host} to NO_PROXY.",
            code="proxy_unsupported",
        )
    return Proxy(url=parts.geturl(), host=parts.netloc.rpartition("@")[2], source=source)


def _tls_context() -> ssl.SSLContext:
    """Return a context that trusts ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, or else the system's store."""
    named = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    for name, path in named.items():
        if path and not os.path.exists(path):  # noqa: PTH110 — a path as the variable has it
            raise _bad_certificates(f"{name} names {path}, which does not exist")
    try:
        if any(named.values()):
            context = ssl.create_default_context(
                cafile=named["SSL_CERT_FILE"] or None, capath=named["SSL_CERT_DIR"] or None
            )
        else:
            context = _system_context()
    except OSError as error:
        shown = " and ".join(f"{name} = {path}" for name, path in named.items() if path) or "The system's store"
        raise _bad_certificates(f"{shown} cannot be read: {error.strerror or error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _system_context() -> ssl.SSLContext:
    if sys.platform in {"darwin", "win32"}:
        import truststore  # of httpx2, which trusts whom it trusts

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath or context.cert_store_stats()["x509_ca"]):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _bad_certificates(words: str) -> UnavailableError:
    return UnavailableError(
        f"The certificates to trust cannot be loaded: {words}.",
        remedy="Unset the variable, or name a file of certificates in PEM format.",
        code="bad_certificates",
    )


class _Resolver(AbstractResolver):
    """Looks up host names in threads of its own; the loop's default executor belongs to others."""

    def __init__(self) -> None:
        self._pool = Pool("dns", size=LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = functools.partial(_look_up, host, port, family)
        try:
            return await self._pool.start(look_up)
        except OverloadedError as error:
            raise OSError(f"{LOOKUPS} earlier lookups of host names have not returned") from error

    async def close(self) -> None:
        self._pool.close()


def _look_up(host: str, port: int, family: int) -> list[ResolveResult]:
    results = []
    configured = socket.AI_ADDRCONFIG & getattr(socket, "AI_MASK", -1)  # no IPv6 where this machine has none
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    for kind, _, proto, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, family=family, flags=0 if host == "localhost" else configured
    ):
        number = socket.getnameinfo(address, numeric)[0]  # with the scope of a link-local address
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        results.append(ResolveResult(hostname=host, host=number, port=port, family=kind, proto=proto, flags=flags))
    return results


class _Protocol(ResponseHandler):
    """One connection.

    Attributes:
        heard: True when something has arrived on it since it was made or given back for the next request.
        used: True when it has carried a request.
    """

    heard = False
    used = False

    def data_received(self, data: bytes) -> None:
        if data:
            self.heard = True
        super().data_received(data)

    def close(self) -> None:
        """Close the socket now, also where the server does not take what has been written."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().close()


class _Connector(aiohttp.TCPConnector):
    """Hands out connections on which no other reply can arrive.

    Args:
        clock: What limits the time to connect.
        tls: Whom to trust.
        resolver: Looks up names; is not closed here.
    """

    def __init__(self, *, clock: Clock, tls: ssl.SSLContext | None, resolver: AbstractResolver) -> None:
        super().__init__(
            ssl=True if tls is None else tls,
            resolver=resolver,
            limit=0,  # the router limits concurrency
            enable_cleanup_closed=CLEANUP_CLOSED,
        )
        self._clock = clock
        self._factory = functools.partial(_Protocol, loop=get_running_loop())  # type: ignore[assignment]  # a subclass

    async def connect(self, req: ClientRequest, traces: list[Any], timeout: ClientTimeout) -> Connection:  # noqa: ASYNC109 — aiohttp's own name
        """Return a connection for a request, and tell its exchange."""
        exchange = _current.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if not isinstance(protocol, _Protocol):
                raise aiohttp.ClientConnectionError("The connection was closed.")
            # What has arrived on an idle connection would be taken for the reply to the next request.
            unfit = protocol.heard or protocol.should_close or exchange.needs_new_connection
            if protocol.used and unfit:
                connection.close()
                continue
            exchange.protocol = protocol
            exchange.reuses_connection = protocol.used
            protocol.used = True
            return connection

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Any],
        timeout: ClientTimeout,  # noqa: ASYNC109 — aiohttp's own name
    ) -> ResponseHandler:
        """Make a connection, unless that takes too long; one that is idle needs no timer."""
        async with self._clock.timeout_at(self._clock.monotonic() + CONNECT_TIMEOUT_S):
            return await super()._create_connection(req, traces, timeout)

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        if isinstance(protocol, _Protocol) and not should_close:
            protocol.heard = False


class Exchange:
    """One request and its reply. It holds nothing of its `Line`, since the contexts of transports hold the exchange.

    Attributes:
        protocol: Its connection; None until there is one.
        reuses_connection: True when the connection has carried a request before.
        needs_new_connection: True when only a new one will do.
        status: Status of the reply; 0 until its head has come.
        headers: Headers of the reply, looked up without regard to case.
    """

    def __init__(self, session: ClientSession, headers: Mapping[str, str], proxy: Proxy | None) -> None:
        self.protocol: _Protocol | None = None
        self.reuses_connection = False
        self.needs_new_connection = False
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._session = session
        self._sent_headers = headers
        self._proxy = proxy
        self._response: ClientResponse | None = None
        self._inflater: zlib._Decompress | None = None
        self._size = 0

    def authorize(self, token: Secret) -> None:
        """Have the request carry a token, unless the user has given a header of that name."""
        self._sent_headers = {"authorization": f"Bearer {token.reveal()}", **self._sent_headers}

    async def send(self, url: str, body: bytes, *, method: str = "POST") -> None:
        """Send a request and wait for the head of the reply.

        It is sent once more, on a new connection, where the server closed an idle connection at the very moment when
        it was used again, so that no byte of a reply has come.
        """
        token = _current.set(self)
        try:
            while self._response is None:
                try:
                    self._response = await self._session.request(
                        method,
                        url,
                        headers=self._sent_headers,  # as the session's own, they would go to the proxy as well
                        data=body if len(body) <= PIECE_BYTES else BytesIO(body),
                        proxy=None if self._proxy is None else self._proxy.url,
                        allow_redirects=False,  # the picture would go to a server that is not configured
                    )
                except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, ConnectionResetError):
                    heard = self.protocol is not None and self.protocol.heard
                    if self.needs_new_connection or not self.reuses_connection or heard:
                        raise
                    self.protocol, self.needs_new_connection = None, True
        finally:
            _current.reset(token)
        self.status, self.headers = self._response.status, self._response.headers
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding in {"gzip", "x-gzip", "deflate"}:
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either, as its first bytes say
        elif encoding not in {"", "identity"}:
            raise InvalidReplyError(
                f"The reply is compressed as {encoding[:40]!r}, which was not asked for.", code="bad_encoding"
            )

    @property
    def is_whole(self) -> bool:
        """Whether all of the reply has arrived, so that reading it takes no time to speak of."""
        return self._response is not None and self._inflater is None and self._response.content.is_eof()

    async def read(self) -> bytes:
        """Return the next piece of the body, decompressed; empty at its end.

        Raises:
            InvalidReplyError: The body is too long.
        """
        if self._response is None:
            return b""
        content = self._response.content
        piece = await (content.readany() if self._inflater is None else _inflate(content, self._inflater))
        self._size += len(piece)
        if self._size > MAX_REPLY_BYTES:
            raise InvalidReplyError(f"The reply is longer than {MAX_REPLY_BYTES:,} bytes.", code="too_long")
        return piece

    async def drain(self) -> None:
        """Read what is left of the body, so that its connection can be used again."""
        while await self.read():
            pass

    def close(self) -> None:
        """Give the connection back if the reply was read to its end, and close it otherwise."""
        if self._response is not None:
            self._response.close()


_current: ContextVar[Exchange] = ContextVar("exchange that needs a connection")


async def _inflate(content: aiohttp.StreamReader, inflater: zlib._Decompress) -> bytes:
    """Return the next decompressed piece of a body; small pieces, since a few bytes may stand for gigabytes."""
    while not inflater.eof:
        compressed = inflater.unconsumed_tail
        if compressed:
            await sleep(0)
        else:
            compressed = await content.readany()
        if not compressed:
            return inflater.flush()[:PIECE_BYTES]
        piece = inflater.decompress(compressed, PIECE_BYTES)
        if piece:
            return piece
    while await content.readany():  # what follows the compressed body is ignored
        pass
    return b""


class Line:
    """The connections of one event loop to the server."""

    def __init__(
        self,
        lent: AsyncGenerator[ClientSession, None],
        session: ClientSession,
        headers: Mapping[str, str],
        proxy: Proxy | None,
    ) -> None:
        self._lent = lent
        self._session = session
        self._headers = headers
        self._proxy = proxy

    @classmethod
    async def open(cls, headers: Mapping[str, str], network: Network, *, clock: Clock) -> Line:
        """Return the connections of the running loop, none of which is made yet.

        Args:
            headers: Sent with every request.
            network: The way to the server.
            clock: What limits the time to connect.
        """
        lent = _lend_session(network, clock=clock)
        return cls(lent, await anext(lent), headers, network.proxy)

    def exchange(self) -> Exchange:
        """Return a new exchange."""
        return Exchange(self._session, self._headers, self._proxy)

    async def aclose(self) -> None:
        """Close the connections; harmless twice."""
        await self._lent.aclose()


async def _lend_session(network: Network, *, clock: Clock) -> AsyncGenerator[ClientSession, None]:
    """Yield a session of the running loop, once, and close it when the generator is closed.

    A generator that is dropped, or whose loop ends, is closed by its loop and on it: that is what asyncio does with
    asynchronous generators, whichever thread drops them. A forked child leaves those of its parent with their loop.
    """
    resolver = _Resolver()
    session = aiohttp.ClientSession(
        connector=_Connector(clock=clock, tls=network.tls, resolver=resolver),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        auto_decompress=False,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
    try:
        yield session
    finally:
        await session.close()
        await resolver.close()


def reason_of(error: Exception) -> str:
    """Return what an exception of aiohttp says, without what it holds of the request."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without a reply"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}"
    return str(error) or type(error).__name__


def is_of_certificates(error: Exception) -> bool:
    """Return whether a server was reached whose certificate nobody vouches for."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return isinstance(error.os_error, ssl.SSLCertVerificationError)
    return isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError)


def failed_proxy(error: Exception, network: Network | None) -> Proxy | None:
    """Return the proxy if it is to blame for an exception."""
    is_proxy_error = isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError)
    return network.proxy if network is not None and is_proxy_error else None
