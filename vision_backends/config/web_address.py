"""What counts as the address of a web server, for settings and webhooks alike.

This module imports neither of them, nor pydantic: a webhook is checked without it.
"""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["is_web_address"]


def is_web_address(url: str) -> bool:
    """Return whether this is an address that can be posted to: http(s) with a host, and no user or password."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        return False
