"""The rung that asks a deployment of Azure OpenAI: its addresses, keys and tokens.

This module decides what Azure does otherwise than OpenAI: where a request goes, which header proves who asks, and that
a deployment has a name of its own. Everything else is the OpenAI backend's.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self

from vision_backends.backends.openai.backend import OpenAIBackend
from vision_backends.backends.openai.models import Detail  # noqa: TC001 — a key of the table is read by its type
from vision_backends.backends.openai.tokens import Token
from vision_backends.backends.rung_names import in_own_words
from vision_backends.clock import SYSTEM_CLOCK, Clock
from vision_backends.errors import ConfigError, NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any, ClassVar

    from vision_backends.backends.openai.settings import BaseUrl
    from vision_backends.backends.requests import Request
    from vision_backends.config.presets import Preset

__all__ = ["AzureBackend"]

V1 = "/openai/v1"
"""Where the API begins that has no version of its own (learn.microsoft.com/azure/foundry/openai, 2026-11)."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""What deployments and versions are made of; nothing that an address would read otherwise."""


class AzureBackend(OpenAIBackend):
    """Describes, embeds and detects with deployments of Azure OpenAI.

    Args:
        endpoint: Address of the resource, such as ``https://NAME.openai.azure.com``; its v1 API is asked, which may
            stand behind it (``…/openai/v1``), unless there is an ``api_version``.
        deployment: Name of the deployment that describes and detects.
        embedding_deployment: Name of the one that embeds; without it nothing is embedded.
        api_version: A dated version of the API, such as ``"2024-10-21"``, whose addresses name the deployment. Behind
            ``/openai/v1`` it is only passed on.
        model: The model of OpenAI's that ``deployment`` serves, for prices and sizes of images; by default its name.
        embedding_model: The same of ``embedding_deployment``.
        api_key: A key of the resource; by default that of ``AZURE_OPENAI_API_KEY``, unless ``AZURE_OPENAI_ENDPOINT``
            is another resource.
        api_key_env: The variable that holds the key, in place of ``api_key``.
        azure_ad_token_provider: Returns a token of Microsoft Entra ID, or something to await for one, in place of a
            key; called for each request. In a file ``"package.module:callable"``, or ``"azure-identity"`` for the
            default credential of that package.
        embedding_dimensions: As of `OpenAIBackend`, as all that follow.
        api: ``"auto"`` is Chat Completions.
        timeout_s: As there.
        detail: As there.
        reasoning_effort: As there.
        max_tokens: As there.
        max_image_px: As there.
        concurrency: As there.
        price: As there.
        prices: As there, by deployment or model.
        error_codes: As there.
        headers: As there.
        clock: As there.

    Raises:
        ConfigError: A value is invalid, or ``azure-identity`` is not installed.
    """

    name = "azure"
    renamed_keys: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"base_url": "endpoint", "embedding_model": "embedding_deployment", "model": "deployment"}
    )
    _key_header = "api-key"

    @in_own_words
    def __init__(  # noqa: PLR0913 — one keyword for each key of its table
        self,
        *,
        endpoint: str,
        deployment: str,
        embedding_deployment: str | None = None,
        api_version: str | None = None,
        model: str | None = None,
        embedding_model: str | None = None,
        api_key: str | None = None,
        api_key_env: str | None = None,
        azure_ad_token_provider: str | Callable[[], str | Awaitable[str]] | None = None,
        embedding_dimensions: int | None = None,
        api: Literal["auto", "chat", "responses"] = "auto",
        timeout_s: float = 20.0,
        detail: Detail = "high",
        reasoning_effort: str = "auto",
        max_tokens: int | None = None,
        max_image_px: int | None = None,
        concurrency: int = 64,
        price: float | None = None,
        prices: Mapping[str, Mapping[str, float]] | None = None,
        error_codes: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        for key, value in (("deployment", deployment), ("embedding_deployment", embedding_deployment)):
            if value is not None and not _NAME.fullmatch(value):
                raise ConfigError(f"[openai] {key} = {value!r} is not the name of a deployment.")
        if api_version is not None and not _NAME.fullmatch(api_version):
            raise ConfigError(
                f"[openai] api_version = {api_version!r} is not a version.", remedy='Such as "2024-10-21".'
            )
        if azure_ad_token_provider is not None and (api_key or api_key_env):
            raise ConfigError("[openai] has both a key and azure_ad_token_provider.", remedy="Leave one of them out.")
        self._api_version = api_version
        self._token = None if azure_ad_token_provider is None else Token(azure_ad_token_provider)
        self._behind = {
            name: known
            for name, known in ((deployment, model), (embedding_deployment, embedding_model))
            if name is not None and known is not None
        }
        super().__init__(
            preset="azure",
            base_url=endpoint,
            model=deployment,
            embedding_model=embedding_deployment,
            api_key=api_key,
            api_key_env=api_key_env,
            embedding_dimensions=embedding_dimensions,
            api="chat" if api == "auto" else api,
            timeout_s=timeout_s,
            detail=detail,
            reasoning_effort=reasoning_effort,
            max_tokens=max_tokens,
            max_image_px=max_image_px,
            concurrency=concurrency,
            price=price,
            prices=prices,
            error_codes=error_codes,
            headers=headers,
            clock=clock,
        )

    @classmethod
    def defaults_for(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what follows from the deployments."""
        return {"model": settings.get("deployment"), "embedding_model": settings.get("embedding_deployment")}

    def with_model(self, model: str, request: Request) -> Self:
        """Return the same resource as it answers with another deployment, whose model nobody has named."""
        if not _NAME.fullmatch(model):
            raise NotSupportedError(f"{model!r} is not the name of a deployment.", backend=self.name)
        return super().with_model(model, request)

    def close(self) -> None:
        """As of `OpenAIBackend`; the threads of a token provider end as well."""
        super().close()
        if self._token is not None:
            self._token.close()

    def _place(self, base_url: str | None, row: Preset | None) -> BaseUrl:
        """Return the resource, and how its API is addressed."""
        server = super()._place(base_url, row)
        query = f"?api-version={self._api_version}" if self._api_version else ""
        root = server.url.removesuffix("/v1").removesuffix("/openai")
        server = replace(server, query=query, resource=root)
        if server.url.endswith(V1) or self._api_version is None:
            return replace(server, url=f"{root}{V1}")
        return replace(server, url=f"{root}/openai", by_deployment=True)
