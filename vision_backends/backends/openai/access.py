"""Who asks and who pays: the key, the variable that holds it, and the headers that prove it.

This module decides which key is sent, where one is needed, and by which hashes accounts are told apart. It must not
know what is asked.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from vision_backends.backends.openai.secret import Secret
from vision_backends.backends.requests import Account
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.backends.openai.settings import BaseUrl
    from vision_backends.backends.openai.tokens import Token
    from vision_backends.config.presets import Preset

__all__ = ["Access", "Given"]

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
"""Names of variables, which keys do not look like: one that was written here by mistake is not shown as a name."""

_PROVES = re.compile(r"key|token|secret|auth|cookie|organization|project", re.IGNORECASE)
"""Names of headers that say who pays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What proves to a server who asks.

    Attributes:
        key: The key; empty where there is none.
        headers: Sent with every request.
        organization: OpenAI's id of the organization that pays.
        project: OpenAI's id of the project.
        token: Gives a token to send in place of a key.
        variable: The variable that holds the key, where one does.
        is_named: Whether the user has named that variable.
        is_needed: Whether nothing is sent without a key.
    """

    key: Secret
    headers: Mapping[str, Secret]
    organization: str | None = None
    project: str | None = None
    token: Token | None = None
    variable: str | None = None
    is_named: bool = False
    is_needed: bool = False

    @property
    def is_missing(self) -> bool:
        """Whether nothing is sent, as there is no key where one is needed or named."""
        return not self.key and self.is_needed and self.token is None

    def account_at(self, server: BaseUrl) -> Account:
        """Return server, organization and project, and a hash of key and headers."""
        proofs = repr((self._payer.reveal(), _revealed(self.headers)))
        return Account(
            server="\0".join((server.url, self.organization or "", self.project or "")),
            secret=hashlib.sha256(proofs.encode()).hexdigest()[:32],
        )

    def credential_at(self, server: BaseUrl) -> str:
        """Return a short hash of who pays, and for what, as far as it is configured; what is not does not count."""
        key = self._payer
        who = f"\0{self.organization or ''}\0{self.project or ''}" if self.organization or self.project else ""
        proofs = _revealed({name: value for name, value in self.headers.items() if not key or _PROVES.search(name)})
        payer = f"{server.resource or server.url}\0{key.reveal()}{who}{proofs or ''}"
        return hashlib.sha256(payer.encode()).hexdigest()[:16]

    def variable_for(self, name: str, *, kind: str) -> str:
        """Return the variable to set where a key is missing.

        Args:
            name: The rung that lacks it; `OPENAI_API_KEY` is for ``openai``, any other has a key of its own.
            kind: What rungs of its class are called by default.
        """
        if self.variable is not None:
            return self.variable
        own = f"VISION_BACKENDS__{name.upper()}__API_KEY" if name != kind else "OPENAI_API_KEY"
        return own if _VARIABLE.fullmatch(own) else "api_key_env"

    @property
    def _payer(self) -> Secret:
        return self.key if self.token is None else Secret(self.token.identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the user has given as proof, before it is known for which server.

    Attributes:
        key: The key itself.
        key_env: The variable that holds it; secret, as it may be a key by mistake.
        headers: Sent with every request.
    """

    key: Secret
    key_env: Secret | None
    headers: Mapping[str, Secret]

    @classmethod
    def hide(cls, *, api_key: str | None, api_key_env: str | None, headers: Mapping[str, str] | None) -> Self:
        """Hide what was given."""
        return cls(
            key=Secret(api_key or ""),
            key_env=None if api_key_env is None else Secret(api_key_env),
            headers={name: Secret(value) for name, value in (headers or {}).items()},
        )

    def access_to(
        self,
        server: BaseUrl,
        preset: Preset | None,
        *,
        organization: str | None = None,
        project: str | None = None,
        token: Token | None = None,
    ) -> Access:
        """Return what is sent to a server.

        Raises:
            ConfigError: The name of a variable, or a character, has no meaning; or there are two keys.
        """
        variable = None
        if self.key_env is not None:
            if not _VARIABLE.fullmatch(self.key_env.reveal()):
                raise ConfigError(
                    "[openai] api_key_env is not the name of a variable in capital letters.",
                    remedy='Write for example: api_key_env = "SECOND_API_KEY"',
                )
            variable = self.key_env.reveal()
        is_named = variable is not None
        if is_named and self.key:
            raise ConfigError("[openai] has both api_key and api_key_env.", remedy="Leave one of them out.")
        if preset is not None and not (self.key or is_named or token):
            variable = preset.key_variable_for(server.origin)
        key = Secret((self.key.reveal() or os.environ.get(variable or "", "")).strip())
        if not key.fits_a_header() or not all(value.fits_a_header() for value in self.headers.values()):
            raise ConfigError("[openai] api_key or a header has characters that a header cannot carry.")
        return Access(
            key=key,
            headers=self.headers,
            organization=organization,
            project=project,
            token=token,
            variable=variable,
            is_named=is_named,
            is_needed=is_named or server.official or (preset is not None and preset.demands_key_at(server.origin)),
        )


def _revealed(headers: Mapping[str, Secret]) -> list[tuple[str, str]]:
    return sorted((name.lower(), value.reveal()) for name, value in headers.items())
