"""The errors of the package, and which of them let a request fall back to the next rung.

This module decides how failures are named; it must not know any provider's codes, any backend or the router.

    VisionError
    ├─ CallerError                 never falls back, trips nothing
    │  ├─ InvalidImageError        not an image that can be used; says what is accepted
    │  ├─ ImageTooLargeError       more bytes or pixels than the limits allow
    │  ├─ InvalidRequestError      bad option, empty labels, unknown backend or space
    │  ├─ ContentRejectedError     the provider's policy said no
    │  ├─ SpaceMismatchError       two vectors of different spaces were compared
    │  └─ ClosedError              the router was closed before
    ├─ ConfigError                 bad file, unknown key, missing extra: says what to install or write
    ├─ BackendError                falls back to the next rung
    │  ├─ QuotaExhaustedError · RateLimitedError · OverloadedError · UnavailableError · TimedOutError
    │  ├─ AuthenticationError · ModelNotFoundError      fall back, and are loud
    │  ├─ InvalidReplyError · NotSupportedError · NotReadyError
    │  ├─ RefusedError             was asked and will not do it: a field, a size, a task; falls back, and is loud
    │  └─ HedgedError · CallCancelledError             only in traces and the ledger
    ├─ StreamInterruptedError      a stream broke off after its first piece; has the text so far
    ├─ SpaceUnavailableError       no rung can produce the pinned vector space now
    └─ AllBackendsFailedError      nothing could answer; its message is a table of rung, reason and remedy
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar, TypeVar

from vision_backends.foreign_text import printable, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vision_backends.types import Attempt, Usage

__all__ = [
    "AllBackendsFailedError",
    "AuthenticationError",
    "BackendError",
    "CallCancelledError",
    "CallerError",
    "ClosedError",
    "ConfigError",
    "ContentRejectedError",
    "HedgedError",
    "ImageTooLargeError",
    "InvalidImageError",
    "InvalidReplyError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "NotReadyError",
    "NotSupportedError",
    "OverloadedError",
    "QuotaExhaustedError",
    "RateLimitedError",
    "RefusedError",
    "SpaceMismatchError",
    "SpaceUnavailableError",
    "StreamInterruptedError",
    "TimedOutError",
    "UnavailableError",
    "VisionError",
]


TEXT_TOO_LONG = "text_too_long"
UNREADABLE_INPUT = "unreadable_input"
"""Codes of a `NotSupportedError` that is about one input of a call: the text is longer than the model reads, or has no
word that it knows, or its processor cannot take the picture. The others can be answered."""

ABOUT_ONE_INPUT = frozenset(
    {TEXT_TOO_LONG, UNREADABLE_INPUT, "only_thoughts", "limit_used_up", "empty_reply", "repetition"}
)
"""These, and the codes of an `InvalidReplyError` that is about what a model has said of one of several inputs."""


E = TypeVar("E", bound=BaseException)

MAX_CODE_CHARS = 200

MAX_DELAY_S = 32 * 86_400.0
"""The longest that makes sense: a quota that comes back next month."""

MAX_MESSAGE_CHARS = 2_000
"""Longer messages are cut in the middle: what is quoted in them may come from anybody."""


class VisionError(Exception):
    """Base of every error that this package raises; what would drive a terminal stands escaped in its message.

    Args:
        message: What is wrong, as a sentence that names the value.
        remedy: What the reader can do about it, as a sentence; None where there is nothing to do.

    Attributes:
        kind: A stable name of the class for programs and logs, for example ``"quota_exhausted"``.
        usage: What the failed request consumed, where the provider said so; a refusal is billed, for example.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(_shown(message))
        self.message: str = self.args[0]
        self.remedy = remedy and _shown(remedy)
        self.usage: Usage | None = None

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


def _shown(text: str) -> str:
    if len(text) > MAX_MESSAGE_CHARS:  # what is said of a long name often stands behind it
        text = f"{text[: MAX_MESSAGE_CHARS // 2]}…{text[-MAX_MESSAGE_CHARS // 2 :]}"
    return printable(text, keep="\n")


def without_frames(error: E) -> E:
    """Return an error that is kept instead of raised, without its traceback and those of its causes.

    The frames in them would keep what they worked on, such as images, and refer to whoever keeps the error.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            left += each.__cause__, each.__context__
    return error


def plausible_delay_s(seconds: float | None) -> float | None:
    """Return a delay that somebody else has named; None for one that nobody can mean: negative, endless, no number."""
    return seconds if seconds is not None and 0 <= seconds <= MAX_DELAY_S else None


class CallerError(VisionError):
    """The request itself is wrong: every rung would reject it, so nothing falls back."""

    kind = "caller_error"


class InvalidImageError(CallerError):
    """The input cannot be read as one of the accepted images."""

    kind = "invalid_image"


class ImageTooLargeError(CallerError):
    """The image has more bytes or pixels than the configured limits."""

    kind = "image_too_large"


class InvalidRequestError(CallerError):
    """An option is not valid: empty labels, an unknown backend, a deadline of zero."""

    kind = "invalid_request"


class ContentRejectedError(CallerError):
    """A provider's content policy refused the request; asking another backend would circumvent it."""

    kind = "content_rejected"


class SpaceMismatchError(CallerError):
    """Two embeddings of different vector spaces were compared."""

    kind = "space_mismatch"


def caller_error(kind: object, message: str, *, remedy: str | None) -> CallerError:
    """Return an error again of which these were kept; of its own class where that is one of the package's."""
    kinds = {each.kind: each for each in CallerError.__subclasses__()}
    return kinds.get(str(kind), CallerError)(message, remedy=remedy)


class ClosedError(CallerError, RuntimeError):
    """The router was asked for something after it had been closed."""

    kind = "closed"


class ConfigError(VisionError):
    """The configuration cannot be used; the message names the key and the nearest valid one."""

    kind = "config"


class BackendError(VisionError):
    """One backend could not answer; the router asks the next rung.

    Args:
        message: What happened, as a sentence.
        remedy: What the reader can do about it.
        backend: Name of the backend; the router fills it in where the backend left it out.
        code: The provider's own error code, such as ``"insufficient_quota"``.
        status: HTTP status, where there was one.
        request_id: The provider's id of the request, for its support.
        retry_after_s: Seconds after which the provider says a new attempt makes sense; None if that is over 32 days.
    """

    kind = "backend_error"

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        backend: str | None = None,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.backend = backend
        self.code = code and quote(code, max_chars=MAX_CODE_CHARS)
        self.status = status
        self.request_id = request_id and quote(request_id, max_chars=MAX_CODE_CHARS)
        self.retry_after_s = plausible_delay_s(retry_after_s)


class QuotaExhaustedError(BackendError):
    """The account has no money or quota left; waiting a minute does not help."""

    kind = "quota_exhausted"


class RateLimitedError(BackendError):
    """Too many requests or tokens for this minute; it recovers by itself."""

    kind = "rate_limited"


class OverloadedError(BackendError):
    """The backend has more work than it can handle: a full queue, ``slow_down``, 503."""

    kind = "overloaded"


class UnavailableError(BackendError):
    """An outage: no connection, a 5xx, or anything that was not understood."""

    kind = "unavailable"


class TimedOutError(BackendError):
    """No answer arrived within the time given to this rung."""

    kind = "timed_out"


class AuthenticationError(BackendError):
    """The key is missing, wrong or not allowed to do this."""

    kind = "authentication"


class ModelNotFoundError(BackendError):
    """The configured model does not exist or is not open to this account."""

    kind = "model_not_found"


class InvalidReplyError(BackendError):
    """An answer arrived but cannot be used: wrong shape, cut short, not what was asked for."""

    kind = "invalid_reply"


class NotSupportedError(BackendError):
    """This backend cannot do what was asked, however healthy it is."""

    kind = "not_supported"


class RefusedError(BackendError):
    """The server was asked and will not do it, though it may be healthy: a field, a size or a task that it lacks.

    Attributes:
        field: Name of the request's field that it named, such as ``"max_tokens"``.
        lasting: Whether it would refuse the next request of this task as well.
        blind: Whether it says that its model sees no images, whatever is asked about them.
    """

    kind = "refused"
    field: str | None = None
    lasting: bool = False
    blind: bool = False


class NotReadyError(BackendError):
    """This backend could do it, but something is missing or still loading."""

    kind = "not_ready"


class HedgedError(BackendError):
    """The next rung answered before this one did; appears only in traces."""

    kind = "hedged"


class CallCancelledError(BackendError):
    """Its answer was no longer awaited, so it was cancelled; appears only in traces and the ledger."""

    kind = "cancelled"


class StreamInterruptedError(VisionError):
    """A stream broke off after its first piece, when no other rung could take over.

    Args:
        message: What happened.
        partial: The text received until then.
        backend: Name of the backend that was streaming.
        remedy: What the reader can do about it.
    """

    kind = "stream_interrupted"

    def __init__(
        self, message: str, *, partial: str = "", backend: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.partial = partial
        self.backend = backend


def last_of_each(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Return the last attempt of each rung in their order; that it was passed over later says less than its failure."""
    last: dict[str, Attempt] = {}
    for attempt in attempts:
        if attempt.outcome != "skipped" or attempt.backend not in last:
            last[attempt.backend] = attempt
    return list(last.values())


class _LadderError(VisionError):
    """What the two errors of an exhausted ladder share: the attempts, shown as a table."""

    def __init__(self, message: str, *, attempts: Sequence[Attempt] = (), remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.attempts = tuple(attempts)

    def __str__(self) -> str:
        rows = [super().__str__()]
        width = max((len(attempt.backend) for attempt in self.attempts), default=0)
        tries = Counter(attempt.backend for attempt in self.attempts if attempt.outcome == "failed")
        for attempt in last_of_each(self.attempts):
            why = f": {' '.join(attempt.message.split())}" if attempt.message else ""
            often = f" ({tries[attempt.backend]} attempts)" if tries[attempt.backend] > 1 else ""
            rows.append(f"  {attempt.backend:<{width}}  {attempt.error or attempt.outcome}{often}{why}")
            if attempt.remedy:
                rows.append(f"  {'':<{width}}  → {attempt.remedy}")
        return "\n".join(rows)


class SpaceUnavailableError(_LadderError):
    """No rung can produce vectors of the pinned space now; none of another space were substituted."""

    kind = "space_unavailable"


class AllBackendsFailedError(_LadderError):
    """No rung could answer.

    Attributes:
        attempts: What became of each rung, in the order asked; ``str(error)`` shows them as a table.
    """

    kind = "all_backends_failed"

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which the first rung may be asked again; None where none has said when."""
        waits_s = [attempt.retry_after_s for attempt in last_of_each(self.attempts)]
        return min((wait_s for wait_s in waits_s if wait_s is not None), default=None)
