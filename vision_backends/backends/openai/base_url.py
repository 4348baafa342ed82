"""Which server is meant.

This module decides what a usable base URL is, and which servers are OpenAI's own. It must not know what is sent there.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from vision_backends.errors import ConfigError

__all__ = ["BaseUrl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseUrl:
    """Which server is meant.

    Attributes:
        url: Where its API begins, without a slash at the end.
        host: Its name and port, for messages and names of vector spaces.
        official: True for OpenAI's own servers.
    """

    url: str
    host: str
    official: bool

    @classmethod
    def parse(cls, base_url: str) -> BaseUrl:
        """Read a base URL.

        Raises:
            ConfigError: It is not an http(s) URL, or it carries a password.
        """
        try:
            parts = urlsplit(base_url.strip())
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            shown = base_url.rpartition("@")[2]  # what stands before it may be a password
            raise ConfigError(f"[openai] base_url = {shown!r} is not an http:// or https:// address.")
        if parts.username or parts.password or parts.query:
            raise ConfigError(
                "[openai] base_url carries a user name, password or query.",
                remedy="Put credentials into api_key or headers.",
            )
        name = parts.hostname or ""
        return cls(
            url=base_url.strip().rstrip("/"),
            host=parts.netloc,
            official=name == "api.openai.com" or name.endswith(".api.openai.com"),
        )
