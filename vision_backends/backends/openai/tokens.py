"""Tokens that stand in for a key, such as those of Microsoft Entra ID: who gives them, and what if nobody does.

This module decides which callable is meant and when it is called. It must not know where a token goes.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import secrets
from typing import TYPE_CHECKING, Any

from vision_backends.backends.openai.secret import Secret
from vision_backends.engine.pools import Pool
from vision_backends.errors import AuthenticationError, ConfigError
from vision_backends.foreign_text import quote
from vision_backends.installing import pip_command

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Provider = Callable[[], str | Awaitable[str]]

__all__ = ["Token"]

AZURE_IDENTITY = "azure-identity"
"""What stands for the default credential of the package of this name: environment, managed identity, ``az login``, …"""

SCOPE = "https://cognitiveservices.azure.com/.default"
"""What such a token is for (learn.microsoft.com/azure/foundry/openai, 2026-11)."""

THREADS = 4
"""How many plain callables may be under way: one may wait for the network."""

MAX_CHARS = 300


class Token:
    """Gives a token for each request.

    Args:
        provider: Returns a token, or something to await for one; it keeps one as long as it is good. As a text,
            ``"azure-identity"`` or ``"package.module:callable"``.

    Attributes:
        identity: Who is meant: the same for two that are certain to be, whatever the tokens are.

    Raises:
        ConfigError: It is neither, or cannot be imported.
    """

    def __init__(self, provider: str | Provider) -> None:
        self._provider: Provider | None = None if provider == AZURE_IDENTITY else _provider(provider)
        if self._provider is None and not _has_azure_identity():
            raise ConfigError(
                "[openai] azure_ad_token_provider needs the package azure-identity, which is not installed.",
                remedy=f'Run: {pip_command("azure-identity")}, or name a callable: "package.module:callable".',
            )
        # Two callables of a program may be two identities, though they have one name.
        self.identity = f"token of {provider if isinstance(provider, str) else secrets.token_hex(8)}"
        self._pool = Pool("tokens", size=THREADS)

    async def fresh(self) -> Secret:
        """Return a token that is good now.

        Raises:
            AuthenticationError: There is none.
        """
        try:
            given = await self._pool.start(self._ask)
            found: object = await given if inspect.isawaitable(given) else given
        except Exception as error:  # noqa: BLE001 — a foreign callable may raise anything
            reason = f"{type(error).__name__}: {quote(str(error), max_chars=MAX_CHARS)}"
        else:
            token = Secret(found) if isinstance(found, str) else Secret("")
            if token and token.fits_a_header():
                return token
            reason = "it gave no text that a header can carry"
        raise AuthenticationError(
            f"There is no token from [openai] azure_ad_token_provider: {reason}",
            remedy="Sign in (for example: az login), or fix the callable.",
            code="no_token",
        )

    def close(self) -> None:
        """Let the threads end."""
        self._pool.close()

    def _ask(self) -> str | Awaitable[str]:
        if self._provider is None:
            self._provider = _azure_identity()
        return self._provider()


def _provider(written: object) -> Provider:
    if callable(written):
        return written
    module, colon, attribute = str(written).partition(":")
    if not isinstance(written, str) or not (module and colon and attribute):
        raise ConfigError(
            "[openai] azure_ad_token_provider is not callable.",
            remedy=f'Write "{AZURE_IDENTITY}", or the name of a callable: "package.module:callable".',
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a foreign module may raise anything when imported
        raise ConfigError(
            f"[openai] azure_ad_token_provider cannot be imported: {type(error).__name__}: {error}."
        ) from error
    return _provider(found) if callable(found) else _provider(None)


def _has_azure_identity() -> bool:
    return importlib.util.find_spec("azure") is not None and importlib.util.find_spec("azure.identity") is not None


def _azure_identity() -> Provider:
    identity: Any = importlib.import_module("azure.identity")
    provider: Provider = identity.get_bearer_token_provider(identity.DefaultAzureCredential(), SCOPE)
    return provider
