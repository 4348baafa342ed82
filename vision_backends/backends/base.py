"""The interface of a backend: what it can be asked, and what it must answer or raise.

There are two kinds: a `Backend` has plain methods and knows nothing of asyncio; an `AsyncBackend` has coroutines.

This module decides the contract between the router and every backend. It must not know any concrete backend, nor why or
in which order backends are asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from vision_backends.arguments import check_text
from vision_backends.backends.requests import Account, AskRequest, DescribeRequest, EmbedTextRequest
from vision_backends.errors import InvalidRequestError, NotSupportedError
from vision_backends.types import FREE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping, Sequence

    from vision_backends.backends.requests import DetectRequest, EmbedRequest, Model, RateLimits, Request
    from vision_backends.images import Image, WireRule
    from vision_backends.storage.notes import Notes
    from vision_backends.types import Description, Detections, Embedding, ProbeReport, Reply, Usage

__all__ = ["AsyncBackend", "Backend", "rehearse"]

REHEARSAL_S = 120.0


class Backend(ABC):
    """One rung of the ladder.

    A subclass names itself, names the model that would answer (`model_for`), refuses cheaply what it cannot do
    (`check`) and implements the tasks it has. It must be safe to call from many threads, must translate every
    third-party exception into this package's errors, and must neither retry nor sleep: the router does both. Its tasks
    are called in a bounded pool of threads of its own; a call that does not return in time is abandoned there.

    A task takes n inputs and returns n results in order, or raises for all of them. Results carry a
    ``Trace(model=…, revision=…, usage=…, timing=…)``; the router completes it.

    Attributes:
        name: The rung's name in ladders, traces and configuration; that of its kind, unless it is `named`.
        local: True when neither pixels nor texts leave this machine.
        renamed_keys: Keys that have another name in its table than in that of the kind of which it is a variety.

    Examples:
        >>> from vision_backends import Backend, Description, Model, NotSupportedError
        >>> class Polite(Backend):
        ...     name = "polite"
        ...     local = True
        ...     def model_for(self, request):
        ...         if request.task != "describe":
        ...             raise NotSupportedError("Polite describes.", backend=self.name)
        ...         return Model(name="please")
        ...     def check(self, request):
        ...         self.model_for(request)
        ...     def describe(self, images, request, *, timeout_s):
        ...         return [Description(text=f"{image.width} pixels wide, if you please.") for image in images]
        >>> with Router([Polite()]) as polite:
        ...     print(polite.describe("cat.jpg"))
        451 pixels wide, if you please.
    """

    name: str
    local: bool = True
    renamed_keys: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make the backend from its table of the configuration; by default the keys are constructor keywords.

        Raises:
            ConfigError: A key is unknown or its value has no meaning.
        """
        return cls(**settings)

    @classmethod
    def defaults_for(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG003 — for subclasses
        """Return the defaults of keys that depend on what else its table sets, for people to see; none by default."""
        return {}

    def named(self, name: str) -> Self:
        """Give this instance a name of its own and return it, so that a ladder can hold several of a kind.

        It is the name in traces, ledger, gates, budgets and messages, so give it before a router has the backend::

            Router([OpenAIBackend(api_key=mine).named("first"), OpenAIBackend(api_key=ours).named("second")])

        Raises:
            InvalidRequestError: It is not text, or empty.
        """
        check_text("name", name, example='"second"')
        if not name:
            raise InvalidRequestError(f"A backend cannot be named {name!r}.", remedy='Write for example: "second".')
        self.name = name
        return self

    @abstractmethod
    def model_for(self, request: Request) -> Model:
        """Return the model that would answer a request, without loading anything heavy.

        Raises:
            NotSupportedError: No model of this backend has the task.
        """

    def with_model(self, model: str, request: Request) -> Backend:
        """Return this rung as it answers a request with another of its models; by default it has one for each task.

        What is returned has the name, the account and the connections of this rung, and is closed with it; only what
        depends on the model differs, such as `model_for`. It is asked like any other rung. Quick, as `check` is, and
        nothing is sent: whether a server really has the model is found when it is asked.

        Args:
            model: The model that a call has named.
            request: What it is to answer; of a rung with a model for each task, only that one is replaced.

        Raises:
            NotSupportedError: This rung has no such model; says which it has.
        """
        own = self.model_for(request).name
        if model != own:
            raise NotSupportedError(
                f"The {self.name} backend has no model {model!r}: {own!r} is what it is configured with.",
                remedy="Leave model= out, or configure the backend with that model.",
                backend=self.name,
            )
        return self

    def spaces(self, request: Request) -> tuple[str, ...]:
        """Return the vector spaces that may be asked for with ``space=``, the one of `model_for` first.

        Raises:
            NotSupportedError: No model of this backend has the task.
        """
        space = self.model_for(request).space
        return () if space is None else (space,)

    @abstractmethod
    def check(self, request: Request) -> None:
        """Return if the backend could answer now; cheap, without network or loading.

        Raises:
            NotSupportedError: It can never answer this; says what it can.
            NotReadyError: Something is missing or still loading; says what, and the command that fixes it.
            AuthenticationError: There is no usable credential.
        """

    def warm_up(self, request: Request) -> None:
        """Prepare what a first answer would have to wait for: fetch what may be fetched, load, run once.

        Returns when the next request of this kind would be answered at full speed, immediately if it would be already.
        It may take minutes; the router calls it in a thread of its own when a user asks for it, when a better rung is
        in trouble, and when it has skipped this rung because it was not ready. Requests that come meanwhile may use
        what is loaded already. It must not send requests that cost money or count towards a limit. By default there is
        nothing to do.

        Raises:
            BackendError: Why it cannot be made ready; as `check`.
        """

    def diagnose(self, *, timeout_s: float) -> None:
        """Return if what it needs outside of this process is there, such as its server; for ``vision doctor``.

        It may use the network, must not send requests that cost money or count towards a limit, and takes no longer
        than ``timeout_s``. It is called in a thread. By default there is nothing to look at.

        Raises:
            BackendError: What is wrong with it, by name, and how to mend it.
        """

    @property
    def credential(self) -> str | None:
        """An identifier of the account that pays (a hash, never the key); None where there is none.

        Trouble with quota or authentication blocks every task of one credential.
        """
        return None

    @property
    def is_private(self) -> bool:
        """Whether it may be asked where the input must not leave this machine; by default where it is `local`."""
        return self.local

    @property
    def account(self) -> Account:
        """With whom cached answers may be shared; by default with those who have the same credential."""
        return Account(secret=self.credential or "")

    def remember_in(self, notes: Notes) -> None:
        """Take a place for what is learned about a server, and what the last program has learned.

        The router calls it once. Notes are kept for a week, or until the user resets the backend. By default nothing
        is kept.
        """

    def recall(self) -> None:
        """Take up what was found out about its server in earlier programs, or by others; may read a store.

        The router calls it before it asks a model of which little is known (`Model.probe_first`), and before it
        explains. By default there is nothing.
        """

    def forget(self) -> None:
        """Forget what was learned, as the user resets the backend. By default there is nothing."""

    def batch_size(self, request: Request) -> int:
        """Return the best number of inputs per call; the router splits longer lists."""
        return 1

    def concurrency(self, request: Request) -> int:
        """Return how many calls of a ``_many`` request may run simultaneously."""
        return 1

    def image_px(self, request: Request) -> int | None:
        """Return the number of pixels that the shorter side of an image needs; None asks for all of them.

        A larger JPEG may then be decoded at reduced scale, which is several times faster.
        """
        return None

    def wire_rule(self, request: Request) -> WireRule | None:
        """Return how images are sent elsewhere; None where their pixels are used here.

        A file that is sent as it is is then only checked, and one that is scaled down is decoded at reduced scale.
        `image_px` does not count then.
        """
        return None

    def expected_s(self, request: Request) -> float:
        """Return the seconds that one call is expected to take, until the router has measured it.

        The router reserves this much of the deadline for the rung while it asks a better one.
        """
        return 1.0

    def estimate(self, request: Request, inputs: Sequence[Image] | Sequence[str]) -> Usage:
        """Return the most that one call could consume, for the budget check before it."""
        return FREE

    def unpriced(self, request: Request) -> Sequence[str]:
        """Return the models that such a request would ask and whose price is not known; their costs are None.

        A budget in US dollars cannot count them, so that a router which has one does not begin with them.
        """
        return ()

    def rate_limits(self, request: Request) -> RateLimits | None:
        """Return the limits for this model in the server's latest reply; None if it named none."""
        return None

    def describe(self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float) -> list[Description]:
        """Describe each image; no call may take longer than ``timeout_s`` seconds.

        Raises:
            BackendError: It could not answer; the next rung is asked.
            CallerError: The request is at fault; no other rung is asked.
        """
        raise self._unsupported(request)

    def describe_stream(
        self, image: Image, request: DescribeRequest, *, timeout_s: float
    ) -> Generator[str, None, Description]:
        """Yield a description piece by piece and return the whole record; in one piece unless overridden.

        Nothing is sent before the first piece is requested. Errors as in `describe`; one that comes before the first
        piece lets the next rung answer.
        """
        (description,) = self.describe([image], request, timeout_s=timeout_s)
        yield description.text
        return description

    def embed(self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float) -> list[Embedding]:
        """Embed each image in the space that `model_for` names. Errors as in `describe`."""
        raise self._unsupported(request)

    def embed_text(self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float) -> list[Embedding]:
        """Embed each text in the space that `model_for` names. Errors as in `describe`."""
        raise self._unsupported(request)

    def detect(self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float) -> list[Detections]:
        """Find the objects of each image, in pixels of the upright image. Errors as in `describe`."""
        raise self._unsupported(request)

    def ask(self, questions: Sequence[Sequence[Image]], request: AskRequest, *, timeout_s: float) -> list[Reply]:
        """Answer the request's prompt about the images of each question, in their order; errors as in `describe`.

        ``request.images`` says how many that are, so that `check` can refuse them. Where ``request.schema`` is set, the
        reply's ``data`` is what `vision_backends.backends.structured.read_data` finds in the text; a model that has not
        kept to it may be asked once more.
        """
        raise self._unsupported(request)

    def learned(self, request: Request) -> Sequence[str]:
        """Return in sentences what has been learned about how such a request must be put; may read a store."""
        return ()

    def status(self) -> Mapping[str, Any]:
        """Return JSON-able facts for ``vision status``: loaded models, device, versions."""
        return {}

    def close(self) -> None:
        """Release connections, threads and memory; may be called twice."""

    def _unsupported(self, request: Request) -> NotSupportedError:
        what = "answers no questions" if request.task == "ask" else f"has no {request.task}"
        return NotSupportedError(f"The {self.name} backend {what}.", backend=self.name)


class AsyncBackend(Backend):
    """A rung whose tasks are coroutines, which run on the router's event loop.

    They must not block it: whatever computes, reads files or waits for a lock belongs in a thread (such as those of
    `asyncio.to_thread`). A call is cancelled at its deadline, and when its caller has gone; it must then immediately
    release what it holds. Everything else is as in `Backend`: the other methods are plain and quick.
    """

    async def describe(  # type: ignore[override]  # the same method as a coroutine
        self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float
    ) -> list[Description]:
        """Describe each image. Errors as in `Backend.describe`."""
        raise self._unsupported(request)

    async def describe_stream(  # type: ignore[override]
        self, image: Image, request: DescribeRequest, *, timeout_s: float
    ) -> AsyncGenerator[str | Description, None]:
        """Yield a description piece by piece, and finally the whole record; in one piece unless overridden.

        Nothing is sent before the first piece is requested. Errors as in `Backend.describe`; one that comes before the
        first piece lets the next rung answer.
        """
        (description,) = await self.describe([image], request, timeout_s=timeout_s)
        yield description.text
        yield description

    async def embed(  # type: ignore[override]
        self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Embed each image in the space that `model_for` names. Errors as in `Backend.describe`."""
        raise self._unsupported(request)

    async def embed_text(  # type: ignore[override]
        self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Embed each text in the space that `model_for` names. Errors as in `Backend.describe`."""
        raise self._unsupported(request)

    async def detect(  # type: ignore[override]
        self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float
    ) -> list[Detections]:
        """Find the objects of each image, in pixels of the upright image. Errors as in `Backend.describe`."""
        raise self._unsupported(request)

    async def ask(  # type: ignore[override]
        self, questions: Sequence[Sequence[Image]], request: AskRequest, *, timeout_s: float
    ) -> list[Reply]:
        """Answer the request's prompt about the images of each question. As `Backend.ask`."""
        raise self._unsupported(request)

    async def aclose(self) -> None:
        """Release what lives on the event loop, such as connections; may be called twice. `close` releases the rest."""

    @property
    def probing(self) -> Literal["never", "when told", "by itself"]:
        """When its server may be sent pictures of ours, to find out whether its model sees; by default never.

        By itself is only for servers on this machine that nobody pays for.
        """
        return "never"

    async def probe(self, *, timeout_s: float) -> Usage | None:
        """Ask the server one question of which the answer is known, and learn from its answer.

        It may take several questions until enough is known; then `Model.probe_first` is False, or `check` refuses.

        Returns:
            What the question has consumed; None where it was not needed.

        Raises:
            BackendError: The server did not answer, which says nothing of what it can do.
        """
        raise self._unsupported(DescribeRequest())

    def probe_again(self) -> None:
        """Forget in this process what was found out, so that it is probed anew."""

    def found(self) -> ProbeReport | None:
        """Return what was found out about the model that looks at images; None as long as nothing was."""
        return None


def rehearse(backend: Backend, request: Request) -> None:
    """Run a task once, on a small grey image or a word, so that everything put off until the first call is done.

    Raises:
        BackendError: The backend could not answer.
    """
    from PIL import Image as PILImage

    from vision_backends.engine.event_loop import engine_loop
    from vision_backends.images import open_image

    if isinstance(request, AskRequest):
        request = DescribeRequest(prompt=request.prompt)
    if isinstance(request, DescribeRequest):
        request = replace(request, max_words=1)
    words = isinstance(request, EmbedTextRequest)
    example = "example" if words else open_image(PILImage.new("RGB", (64, 64), "grey"))
    task = partial(getattr(backend, request.task), [example], request, timeout_s=REHEARSAL_S)
    if isinstance(backend, AsyncBackend):
        engine_loop().run(task)
    else:
        task()
