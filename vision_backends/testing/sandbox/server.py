"""`SandboxServer`: an OpenAI-compatible server on loopback that can be told to fail in every known way.

This module decides the sandbox's Python API. It must not know the router or any backend: the sandbox implements the
wire format independently, so that it cannot share, and thereby hide, a mistake of theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from vision_backends.clock import SYSTEM_CLOCK, Clock
from vision_backends.testing.sandbox.control import PREFIX, control
from vision_backends.testing.sandbox.faults import HEALTHY, Fault
from vision_backends.testing.sandbox.limits import Limits
from vision_backends.testing.sandbox.listener import Listener
from vision_backends.testing.sandbox.script import Chaos, Script, parse_plan
from vision_backends.testing.sandbox.service import Service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vision_backends.testing.sandbox.request_log import ReceivedRequest
    from vision_backends.testing.sandbox.wire import HttpReply, HttpRequest

__all__ = ["SandboxServer"]

NO_LIMITS = Limits()


class SandboxServer:
    """A real HTTP server that speaks OpenAI's wire format and answers deterministically.

    ```python
    with SandboxServer() as server:
        client = OpenAI(base_url=server.url, api_key=server.api_key, max_retries=0)
        server.play("quota_gone", times=3)
    ```

    Args:
        host: A loopback address.
        port: 0 takes a free one.
        api_key: The key for clients. Any other is accepted too, except ``"sk-invalid"``; a call without one is refused.
        only_key: Whether to accept no key but ``api_key``.
        keyless: Whether to accept calls without a key, as servers on one's own machine do.
        models: The models that exist; None accepts any name.
        owner: Who owns the models, by which servers can be told apart: ``"vllm"``, ``"llamacpp"``,
            ``"organization_owner"`` (LM Studio), ``"library"`` (Ollama, with its own list of models).
        limits: Rate limits and quota to enforce.
        clock: What windows and timestamps are measured by. Delays are always in real time.

    Examples:
        >>> from vision_backends import EmbeddedBackend, OpenAIBackend
        >>> from vision_backends.testing import SandboxServer
        >>> with SandboxServer() as server:
        ...     server.play("quota_gone")
        ...     with Router([OpenAIBackend(api_key=server.api_key, base_url=server.url), EmbeddedBackend()]) as ladder:
        ...         print(ladder.describe("cat.jpg").trace.backend, len(server.requests))
        embedded 1
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = "sk-sandbox",
        only_key: bool = False,
        keyless: bool = False,
        models: Sequence[str] | None = None,
        owner: str = "sandbox",
        limits: Limits = NO_LIMITS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.api_key = api_key
        self._host = host
        self._port = port
        self._limits = limits
        self._listener: Listener | None = None
        self._service = Service(
            api_key=api_key if only_key else None,
            keyless=keyless,
            models=None if models is None else tuple(models),
            owner=owner,
            limits=limits,
            clock=clock,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Start listening; a server that is listening already is left as it is.

        Raises:
            ValueError: The host is not a loopback address.
            OSError: The port is taken.
        """
        if self._listener is None:
            self._listener = Listener(self._answer, host=self._host, port=self._port)

    def close(self) -> None:
        """Stop immediately: close every socket, end every thread. What was received can still be read."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    @property
    def url(self) -> str:
        """The ``base_url`` for a client."""
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        """The URL under which ``/v1`` and ``/_sandbox`` are."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._listening.port}"

    @property
    def connections(self) -> int:
        """Connections accepted since the start."""
        return self._listening.accepted

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """The last 20,000 requests to ``/v1``, oldest first."""
        return self._service.journal.requests()

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of all requests to each path."""
        return self._service.journal.counts()

    @property
    def recorded(self) -> Script:
        """What has been played so far, as a script that plays the same to the same requests in the same order."""
        return self._service.player.recorded()

    def play(self, plan: str | Fault | Script | Chaos, *, times: int | None = None) -> None:
        """Play a fault, a script or chaos from the next request on.

        The newest plan comes first; when it has run out, the one before it goes on.

        Args:
            plan: A name from ``FAULTS``, a fault, a script or chaos.
            times: How many requests meet a single fault; None means all until `heal` or `reset`.

        Raises:
            ValueError: There is no such fault.
        """
        parsed = parse_plan(plan, times=times)
        self._service.player.play(parsed)

    def heal(self) -> None:
        """Stop playing, and release stalled replies."""
        self._service.player.heal()
        self.release()

    def release(self) -> None:
        """Release the replies that are held back now: stalled ones are sent in full."""
        if self._listener is not None:
            self._listener.release()

    def limit(self, limits: Limits) -> None:
        """Enforce other limits from now on and forget what was spent, as after a top-up."""
        self._limits = limits
        self._service.limit(limits)

    def reset(self) -> None:
        """Start afresh: nothing played, nothing received, nothing spent."""
        self.heal()
        self._service.reset()
        self._service.limit(self._limits)

    @property
    def _listening(self) -> Listener:
        if self._listener is None:
            raise RuntimeError("The sandbox is not running: use it in a with statement, or call start().")
        return self._listener

    def _answer(self, call: HttpRequest) -> tuple[HttpReply, Fault]:
        if call.path.startswith(PREFIX):
            return control(call, self), HEALTHY
        return self._service.answer(call)
