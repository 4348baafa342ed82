"""The test whether the configured model sees images, and what is known of it from earlier tests.

This module decides when a test is due, when it is over, and what its result means for the models that answer. It must
not know which pictures are shown, nor where findings are kept.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Literal

from vision_backends.backends.openai.conversation import Draft
from vision_backends.backends.openai.prices import NOTHING
from vision_backends.backends.openai.probing import Probe, identity_of
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import CallerError, InvalidReplyError, NotSupportedError, RefusedError
from vision_backends.types import FREE, ProbeReport, Usage

if TYPE_CHECKING:
    from vision_backends.backends.openai.client import Client
    from vision_backends.backends.openai.conversation import Conversation
    from vision_backends.backends.openai.findings import Sight
    from vision_backends.backends.openai.prices import PriceList
    from vision_backends.backends.openai.settings import Settings
    from vision_backends.clock import Deadline

__all__ = ["SightTest"]

_SCHEMA_FIELDS = {"chat": "response_format", "responses": "text"}
"""The field of either API that asks for JSON by a schema."""


class SightTest:
    """Whether the model of some settings sees.

    Args:
        client: The server.
        conversation: Asks it.
        settings: Which model is meant.
        prices: What a question costs.

    Attributes:
        models: Who answers each task; a model is tested first as long as it is not known whether it sees.
    """

    def __init__(self, client: Client, conversation: Conversation, settings: Settings, prices: PriceList) -> None:
        self._client = client
        self._conversation = conversation
        self._settings = settings
        self._prices = prices
        self._probe: Probe | None = None
        self._is_identified = False
        self.models = settings.models()

    @property
    def mode(self) -> Literal["never", "when told", "by itself"]:
        """By itself only where the server is on this machine, and is said to cost nothing."""
        settings = self._settings
        if "describe" not in settings.models():
            return "never"
        is_free = self._prices.of(settings.model) == NOTHING
        return "by itself" if is_free and settings.base_url.is_this_machine else "when told"

    def recall(self) -> None:
        """Take up what any process has found out; may read a store."""
        finding = self._client.findings.recall(self._settings.model)
        if finding is None:
            is_settled = self.mode != "by itself"
        else:
            is_same = not finding.identity or self._is_identified or self.mode != "by itself"
            is_settled = finding.sight != "blind" and is_same
        self.models = self._settings.models(probe_first=not is_settled)

    async def test(self, deadline: Deadline) -> Usage | None:
        """Show one more picture, and return what that has cost; None where nothing had to be asked.

        Raises:
            BackendError: The server did not answer.
        """
        if self._probe is None:
            self._probe = Probe(random=Random())  # noqa: S311 — colours, and no secret
        probe = self._probe
        if probe.identity is None:
            probe.identity = await self._identity(deadline)
            if self._is_still(probe.identity):
                self._settle(None)
                return None
        usage = await self._ask(probe, deadline)
        if probe.sight is not None:
            await engine_loop().compute.start(partial(self._settle, probe.sight))
        return usage

    def forget(self) -> None:
        """Forget in this process whether the model sees."""
        self._client.findings.forget(self._settings.model)
        self._probe, self._is_identified = None, False
        self.models = self._settings.models()

    def report(self) -> ProbeReport | None:
        """Return whether the model sees, follows schemas, and what its server refuses; None before a test."""
        settings = self._settings
        finding = self._client.findings.known.get(settings.model)
        if finding is None:
            return None
        refused = self._client.dialect.known(settings.api, settings.model)
        field = _SCHEMA_FIELDS[settings.api]
        return ProbeReport(
            model=settings.model,
            sees={"sees": True, "blind": False}.get(finding.sight),
            at=finding.at,
            follows_schemas=None if finding.sight != "sees" else field not in refused,
            refuses=tuple(sorted(refused)),
        )

    def check(self, *, backend: str) -> None:
        """Return unless the model is known to see no images.

        Raises:
            NotSupportedError: It is.
        """
        model = self._settings.model
        finding = self._client.findings.about(model)
        if finding is not None and finding.sight == "blind":
            raise NotSupportedError(
                f"{model} of {self._settings.base_url.host} sees no images, as was found out on {finding.day}.",
                remedy="Set a model that sees images in [openai], or have it probed again: vision doctor --probe.",
                backend=backend,
                code="blind",
            )

    async def _identity(self, deadline: Deadline) -> str:
        """Return which weights the server has behind the model's name; empty where it does not say."""
        listed = await self._client.models(deadline=deadline)
        return next((identity_of(each) for each in listed if each.get("id") == self._settings.model), "")

    def _is_still(self, identity: str) -> bool:
        """Return whether something is known of just these weights."""
        finding = self._client.findings.about(self._settings.model)
        return finding is not None and finding.identity == identity

    async def _ask(self, probe: Probe, deadline: Deadline) -> Usage:
        """Ask one question, and take the answer into account; one that is none says neither."""
        probe.go_on()
        try:
            draft = Draft(images=(), rule=self._settings.wire_rule, ask=partial(probe.ask, self._settings))
            said = await self._conversation.ask(draft, deadline=deadline)
        except RefusedError as refusal:
            if not refusal.blind:
                raise
            probe.cannot()
            return refusal.usage or FREE
        except (InvalidReplyError, CallerError) as error:
            return error.usage or Usage()
        probe.hear(said.text)
        return self._prices.usage(self._settings.model, said.tokens)

    def _settle(self, sight: Sight | None) -> None:
        """Keep what a test has found out; None where that was known before. May write to a store."""
        probe, model = self._probe, self._settings.model
        self._probe, self._is_identified = None, True
        if probe is not None and sight is not None:
            self._client.findings.note(model, sight, identity=probe.identity or "")
            if sight == "sees" and probe.is_json and not probe.by_schema:
                api = self._settings.api
                self._client.dialect.learn(api, model, {_SCHEMA_FIELDS[api]: None})
        finding = self._client.findings.known.get(model)
        self.models = self._settings.models(probe_first=finding is not None and finding.sight == "blind")
