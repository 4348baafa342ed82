"""What counts as the address of a web server, and whose it is, for settings and webhooks alike.

This module imports neither of them, nor pydantic: a webhook is checked without it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["Origin", "goes_in_the_clear", "is_same_server", "is_web_address", "origin_of"]

OPENAI_HOST = "api.openai.com"

_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+(%[a-z0-9._-]+)?", re.ASCII)
"""What every parser of addresses reads alike: a name in ASCII, or an address of IPv6."""


def is_web_address(url: str) -> bool:
    """Return whether this is an address that can be posted to: http(s) with a host, and no user or password."""
    return origin_of(url) is not None and urlsplit(url).username is None


class Origin(NamedTuple):
    """A server as a key belongs to it: the same host over another scheme or port is another one."""

    scheme: str
    host: str
    port: int

    @property
    def is_openai(self) -> bool:
        """Whether the host is one of OpenAI's own."""
        return self.host == OPENAI_HOST or self.host.endswith(f".{OPENAI_HOST}")

    @property
    def is_this_machine(self) -> bool:
        """Whether what is sent there stays on this machine, unless it goes through a proxy."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == {"http": 80, "https": 443}[self.scheme]
        return f"{self.scheme}://{host}{'' if usual else f':{self.port}'}"


def origin_of(url: str) -> Origin | None:
    """Return the server that an address names, or None where it is no http(s) address that all programs read alike."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removesuffix(".")
        port = {"http": 80, "https": 443}.get(parts.scheme) if parts.port is None else parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not port or not _HOST.fullmatch(host):
        return None
    return Origin(parts.scheme, host, port)


def is_same_server(home: Origin | None, server: Origin | None) -> bool:
    """Return whether two addresses are of one server, to which one key may go; OpenAI's hosts are one, over https."""
    if home is None or server is None:
        return False
    return home == server or (home.is_openai and server.is_openai and home.scheme == server.scheme == "https")


def goes_in_the_clear(server: Origin) -> bool:
    """Return whether what is sent to a server leaves this machine unencrypted."""
    if server.scheme == "https":
        return False
    if not server.is_this_machine:
        return True
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    return bool(proxies.get("http") or proxies.get("all")) and not proxy_bypass(server.host)
