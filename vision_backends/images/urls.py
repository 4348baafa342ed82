"""Images at web addresses: the one place in this package that fetches what a caller has named.

This module decides which addresses may be asked, how often it is sent elsewhere, and how long and how much it reads. It
must not know what an image is. Whoever names an address may not be whoever runs the program, so that nothing is reached
that only this machine can reach: a name is looked up once, every address that it has is checked, and the connection
goes to one of those, whatever the name means a moment later. Of a URL nothing but scheme, host and path is shown, as
what follows may be a credential.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from vision_backends.errors import InvalidImageError
from vision_backends.foreign_text import quote as shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vision_backends.images.limits import ImageLimits

    Resolve = Callable[[str, int], list[str]]
    Connect = Callable[[str, int, float], socket.socket]

__all__ = ["fetch", "is_web_url", "may_be_asked", "without_query"]

MOST_REDIRECTS = 5
MOST_ADDRESSES = 3
"""How many addresses of one name are tried."""

FETCH_S = 30.0
"""All of it together; a call leaves it behind at its own deadline."""

CHUNK_BYTES = 1 << 16
PORTS = {"http": 80, "https": 443}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
PATH_SAFE = "/%:@!$&'()*+,;=-._~?[]"

_USER = re.compile(r"//[^/]*@")

GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
CARRIERS_OF_V4 = tuple(map(ipaddress.IPv6Network, ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48")))
"""6to4, Teredo and NAT64: what they reach depends on an IPv4 address inside."""

OF_CLOUDS = frozenset({"168.63.129.16"})
"""Azure's own services for its machines, at a global address."""

OTHERWISE = "Fetch it yourself, and pass its bytes."


def is_web_url(source: str) -> bool:
    """Return whether a text is the address of something on the web."""
    return source[:8].lower().startswith(("http://", "https://"))


def without_query(url: str) -> str:
    """Return of a URL what may be shown."""
    return shown(_USER.sub("//", url.partition("?")[0].partition("#")[0]), max_chars=120)


def fetch(
    url: str,
    *,
    limits: ImageLimits,
    resolve: Resolve | None = None,
    connect: Connect | None = None,
    within_s: float = FETCH_S,
) -> bytes:
    """Return what is at an address, in a thread that may block.

    Args:
        url: Its ``http://`` or ``https://`` address.
        limits: How many bytes it may have, and whether addresses that are not global may be asked.
        resolve: Looks a name up; by default the system does.
        connect: Connects to an address; by default with a socket.
        within_s: Seconds for all of it.

    Raises:
        InvalidImageError: It may not be asked, or does not answer with a document.
        ImageTooLargeError: It has too many bytes.
    """
    until = time.monotonic() + within_s
    for _ in range(MOST_REDIRECTS + 1):
        place = _Place.of(url)
        addresses = _checked(place, limits, resolve or _addresses)
        with _line(place, addresses, connect or _connection, until) as response:
            target = response.headers.get("location")
            if response.status not in REDIRECTS or target is None:
                return _body(response, place, limits)
        following = urljoin(url, target)
        if place.scheme == "https" and not following.lower().startswith("https://"):
            raise _refused(place, "it leads from https to an address without encryption")
        url = following
    raise _refused(place, f"it leads elsewhere more than {MOST_REDIRECTS} times")


def may_be_asked(address: str) -> bool:
    """Return whether an IP address is one that everybody can reach, and nothing of this machine or its network."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return may_be_asked(str(ip.ipv4_mapped))
        return ip in GLOBAL_V6 and ip.is_global and not any(ip in network for network in CARRIERS_OF_V4)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved) and str(ip) not in OF_CLOUDS


class _Place(NamedTuple):
    """What an address names."""

    scheme: str
    host: str
    port: int
    target: str
    shown: str

    @classmethod
    def of(cls, url: str) -> _Place:
        try:
            parts = urlsplit(url)
            port = parts.port
            host = parts.hostname or ""
            if ":" not in host:  # else it is an IPv6 address
                host = host.encode("idna").decode("ascii")
        except ValueError as error:  # UnicodeError is one
            message = f"{without_query(url)} is not a valid address."
            raise InvalidImageError(message, remedy=OTHERWISE) from error
        place = cls(parts.scheme.lower(), host, port or PORTS.get(parts.scheme.lower(), 0), "", without_query(url))
        if place.scheme not in PORTS or not host:
            raise _refused(place, "it is not an http:// or https:// address")
        if parts.username is not None or parts.password is not None:
            raise _refused(place, "it carries a user name or password")
        query = f"?{parts.query}" if parts.query else ""
        return place._replace(target=quote(f"{parts.path or '/'}{query}", safe=PATH_SAFE))

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def _addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _connection(address: str, port: int, timeout_s: float) -> socket.socket:
    return socket.create_connection((address, port), timeout=timeout_s)


def _checked(place: _Place, limits: ImageLimits, resolve: Resolve) -> list[str]:
    """Return the addresses of a host, all of which may be asked."""
    try:
        addresses = resolve(place.host, place.port)
    except (OSError, UnicodeError) as error:
        raise _refused(place, "its host is not known") from error
    if not limits.allow_private_urls and not all(map(may_be_asked, addresses)):
        raise _refused(
            place,
            "its host is on this machine or in a private network",
            remedy="Set allow_private_urls = true in [images] if that is meant.",
        )
    if not addresses:
        raise _refused(place, "its host is not known")
    return addresses[:MOST_ADDRESSES]


@contextmanager
def _line(place: _Place, addresses: list[str], connect: Connect, until: float) -> Iterator[http.client.HTTPResponse]:
    """Yield what comes back, and close the connection; whatever is slow is ended with the time."""
    watch = _Watch(until)
    try:
        watch.sock = _first_of(addresses, place, connect, until)
        if place.scheme == "https":
            context = _context()
            watch.sock = context.wrap_socket(watch.sock, server_hostname=place.host, do_handshake_on_connect=False)
            watch.sock.do_handshake()
        asking = http.client.HTTPConnection(place.host, place.port)
        asking.sock = watch.sock
        asking.putrequest("GET", place.target, skip_host=True, skip_accept_encoding=True)
        for name, value in (
            ("Host", place.authority),
            ("Accept", "image/*"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "vision-backends"),
            ("Connection", "close"),
        ):
            asking.putheader(name, value)
        asking.endheaders()
        with closing(asking.getresponse()) as response:
            yield response
        if watch.is_over:
            raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = "it took too long" if watch.is_over or isinstance(error, TimeoutError) else _reason(error)
        raise _refused(place, why) from error
    finally:
        watch.end()


def _first_of(addresses: list[str], place: _Place, connect: Connect, until: float) -> socket.socket:
    for last, address in enumerate(addresses, start=1 - len(addresses)):
        try:
            return connect(address, place.port, max(0.01, until - time.monotonic()))
        except OSError:
            if last == 0:
                raise
    raise AssertionError


def _context() -> ssl.SSLContext:
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


class _Watch:
    """Ends a connection when its time is over: a server that sends a byte now and then would never be late."""

    def __init__(self, until: float) -> None:
        self.sock: socket.socket | None = None
        self.is_over = False
        self._timer = threading.Timer(max(0.0, until - time.monotonic()), self._stop)
        self._timer.daemon = True
        self._timer.start()

    def _stop(self) -> None:
        self.is_over = True
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self._timer.cancel()
        if self.sock is not None:
            self.sock.close()


def _body(response: http.client.HTTPResponse, place: _Place, limits: ImageLimits) -> bytes:
    """Return a document that came whole."""
    if response.status != http.HTTPStatus.OK:
        raise _refused(place, f"its server answers with status {response.status}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _refused(place, "its server compresses what was asked for as it is")
    limits.check_bytes(response.length or 0, name=place.shown)
    chunks, size_bytes = [], 0
    while chunk := response.read1(CHUNK_BYTES):
        size_bytes += len(chunk)
        limits.check_bytes(size_bytes, name=place.shown)
        chunks.append(chunk)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(chunks)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        is_about_certificate = isinstance(error, ssl.SSLCertVerificationError)
        return "the certificate of its server is not valid" if is_about_certificate else "its server speaks no TLS"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer of its server is cut"
    if isinstance(error, http.client.HTTPException | ValueError):
        return "its server answers with something else than a document"
    return "its server does not answer"


def _refused(place: _Place, why: str, *, remedy: str | None = None) -> InvalidImageError:
    return InvalidImageError(f"{place.shown} cannot be fetched: {why}.", remedy=remedy or OTHERWISE)
