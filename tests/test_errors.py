"""The tree of errors: its shape, its words, and that errors survive a process boundary."""

import copy
import pickle

import pytest

from vision_backends import Attempt, Usage, errors
from vision_backends.errors import (
    AllBackendsFailedError,
    BackendError,
    CallerError,
    ConfigError,
    SpaceUnavailableError,
    StreamInterruptedError,
    VisionError,
)

EVERY_ERROR = [getattr(errors, name) for name in errors.__all__]

KINDS = {
    "VisionError": "error",
    "CallerError": "caller_error",
    "InvalidImageError": "invalid_image",
    "ImageTooLargeError": "image_too_large",
    "InvalidRequestError": "invalid_request",
    "ContentRejectedError": "content_rejected",
    "SpaceMismatchError": "space_mismatch",
    "ClosedError": "closed",
    "ConfigError": "config",
    "BackendError": "backend_error",
    "QuotaExhaustedError": "quota_exhausted",
    "RateLimitedError": "rate_limited",
    "OverloadedError": "overloaded",
    "UnavailableError": "unavailable",
    "TimedOutError": "timed_out",
    "AuthenticationError": "authentication",
    "ModelNotFoundError": "model_not_found",
    "InvalidReplyError": "invalid_reply",
    "RefusedError": "refused",
    "NotSupportedError": "not_supported",
    "NotReadyError": "not_ready",
    "CallCancelledError": "cancelled",
    "HedgedError": "hedged",
    "StreamInterruptedError": "stream_interrupted",
    "SpaceUnavailableError": "space_unavailable",
    "AllBackendsFailedError": "all_backends_failed",
}

ATTEMPTS = (
    Attempt(
        backend="openai",
        outcome="failed",
        error="quota_exhausted",
        message="The account has no quota left.",
        remedy="Add credit at platform.openai.com.",
        code="insufficient_quota",
        status=429,
        usage=Usage(),
    ),
    Attempt(backend="local", outcome="skipped", error="not_ready", message="Its weights\nare not here."),
    Attempt(backend="embedded", outcome="failed", error="unavailable"),
    Attempt(backend="spare", outcome="skipped"),
)


def make(kind):
    """Return an error of a kind with every attribute that the kind has."""
    if issubclass(kind, BackendError):
        return kind(
            "It said no.",
            remedy="Ask again.",
            backend="openai",
            code="no",
            status=503,
            request_id="req_1",
            retry_after_s=1.5,
        )
    if issubclass(kind, AllBackendsFailedError | SpaceUnavailableError):
        return kind("Nobody answered.", remedy="Look below.", attempts=list(ATTEMPTS))
    if issubclass(kind, StreamInterruptedError):
        return kind("It broke off.", remedy="Ask again.", partial="A cat on", backend="openai")
    return kind("It is wrong.", remedy="Mend it.")


def repickled(error):
    """Return what another process would receive."""
    return pickle.loads(pickle.dumps(error))  # noqa: S301 — our own bytes


def test_every_class_is_in_the_drawing_of_the_tree():
    """The module's docstring is the map that its readers trust."""
    assert all(name in errors.__doc__ for name in errors.__all__)


def test_every_error_of_the_module_is_public():
    """No error can be raised that a user cannot name."""
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_")
    }
    assert raised == set(errors.__all__)


def test_kinds_are_stable():
    """Programs and ledgers compare kinds: renaming one breaks them."""
    assert {kind.__name__: kind.kind for kind in EVERY_ERROR} == KINDS


@pytest.mark.parametrize(
    ("family", "names"),
    [
        (
            CallerError,
            {
                "CallerError",
                "InvalidImageError",
                "ImageTooLargeError",
                "InvalidRequestError",
                "ContentRejectedError",
                "SpaceMismatchError",
                "ClosedError",
            },
        ),
        (
            BackendError,
            {
                "BackendError",
                "QuotaExhaustedError",
                "RateLimitedError",
                "OverloadedError",
                "UnavailableError",
                "TimedOutError",
                "AuthenticationError",
                "ModelNotFoundError",
                "InvalidReplyError",
                "RefusedError",
                "NotSupportedError",
                "NotReadyError",
                "CallCancelledError",
                "HedgedError",
            },
        ),
        (ConfigError, {"ConfigError"}),
        (StreamInterruptedError, {"StreamInterruptedError"}),
        (SpaceUnavailableError, {"SpaceUnavailableError"}),
        (AllBackendsFailedError, {"AllBackendsFailedError"}),
        (VisionError, set(KINDS)),
    ],
)
def test_families_have_the_members_that_the_tree_draws(family, names):
    """What falls back and what does not is decided by the family."""
    assert {kind.__name__ for kind in EVERY_ERROR if issubclass(kind, family)} == names


@pytest.mark.parametrize("kind", EVERY_ERROR)
@pytest.mark.parametrize("again", [repickled, copy.copy, copy.deepcopy])
def test_an_error_keeps_everything_across_a_process_boundary(kind, again):
    """Workers send their errors home with all attributes."""
    error = make(kind)
    twin = again(error)
    assert type(twin) is kind
    assert vars(twin) == vars(error)
    assert str(twin) == str(error)
    assert twin.args == error.args


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_the_text_is_the_message_and_then_the_remedy(kind):
    """Whoever prints an error sees what to do about it."""
    error = make(kind)
    assert str(error).startswith(f"{error.message} {error.remedy}")
    assert str(kind("Just this.")) == "Just this."


def test_a_backend_error_says_nothing_that_it_was_not_told():
    """None means unknown."""
    error = BackendError("It said no.")
    assert (error.remedy, error.backend, error.code, error.status, error.request_id, error.retry_after_s) == (None,) * 6


@pytest.mark.parametrize("kind", [AllBackendsFailedError, SpaceUnavailableError])
def test_the_error_of_the_whole_ladder_is_a_table(kind):
    """One line for each rung says who and why, and a second one what to do about it."""
    error = kind("Nobody answered.", attempts=ATTEMPTS)
    assert error.attempts == ATTEMPTS
    assert str(error).splitlines() == [
        "Nobody answered.",
        "  openai    quota_exhausted: The account has no quota left.",
        "            → Add credit at platform.openai.com.",
        "  local     not_ready: Its weights are not here.",
        "  embedded  unavailable",
        "  spare     skipped",
    ]


def test_the_error_of_an_empty_ladder_is_one_line():
    """No attempts, no table."""
    assert str(AllBackendsFailedError("Nobody answered.")) == "Nobody answered."


def test_a_long_message_is_cut_in_the_middle_and_drives_no_terminal():
    """Foreign words in it may be of any length and kind; what is said of them stays."""
    error = errors.UnavailableError(
        f"The name {'x' * 100_000}\x1b[2J\u202e is not there.", remedy="Try \x9b31m another."
    )
    assert error.message.startswith("The name x")
    assert error.message.endswith("x\\x1b[2J\\u202e is not there.")
    assert len(str(error)) < 2_100
    assert error.args == (error.message,)
    assert error.remedy == "Try \\x9b31m another."


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e308, 33 * 86_400.0])
def test_a_delay_that_makes_no_sense_is_unknown(seconds):
    """Whoever has named it."""
    assert errors.RateLimitedError("Slow down.", retry_after_s=seconds).retry_after_s is None
    assert errors.RateLimitedError("Slow down.", retry_after_s=31 * 86_400.0).retry_after_s == 31 * 86_400.0
