"""Graceful degradation for vision models.

Ask for a description, an embedding or the objects of an image, and get the best answer that can be had right
now, with an honest account of who gave it::

    from vision_backends import Router

    router = Router.from_config()
    print(router.describe("photo.jpg"))

The routers are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vision_backends.backends.base import AsyncBackend, Backend
from vision_backends.backends.requests import (
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    Model,
    RateLimits,
    Request,
)
from vision_backends.errors import (
    AllBackendsFailedError,
    AuthenticationError,
    BackendError,
    CallCancelledError,
    CallerError,
    ClosedError,
    ConfigError,
    ContentRejectedError,
    HedgedError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidReplyError,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
    NotSupportedError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
    SpaceMismatchError,
    SpaceUnavailableError,
    StreamInterruptedError,
    TimedOutError,
    UnavailableError,
    VisionError,
)
from vision_backends.images import Image, ImageLimits, open_image
from vision_backends.reports import Explanation, RungStatus, Verdict, WarmUp, WarmUpReport
from vision_backends.types import (
    FREE,
    TASKS,
    Attempt,
    Description,
    Detection,
    Detections,
    Embedding,
    Task,
    Timing,
    Trace,
    Usage,
)

if TYPE_CHECKING:
    from vision_backends.async_router import AsyncRouter
    from vision_backends.router import Router

__all__ = [
    "FREE",
    "TASKS",
    "AllBackendsFailedError",
    "AsyncBackend",
    "AsyncRouter",
    "Attempt",
    "AuthenticationError",
    "Backend",
    "BackendError",
    "CallCancelledError",
    "CallerError",
    "ClosedError",
    "ConfigError",
    "ContentRejectedError",
    "DescribeRequest",
    "Description",
    "DetectRequest",
    "Detection",
    "Detections",
    "EmbedRequest",
    "EmbedTextRequest",
    "Embedding",
    "Explanation",
    "HedgedError",
    "Image",
    "ImageLimits",
    "ImageTooLargeError",
    "InvalidImageError",
    "InvalidReplyError",
    "InvalidRequestError",
    "Model",
    "ModelNotFoundError",
    "NotReadyError",
    "NotSupportedError",
    "OverloadedError",
    "QuotaExhaustedError",
    "RateLimitedError",
    "RateLimits",
    "RefusedError",
    "Request",
    "Router",
    "RungStatus",
    "SpaceMismatchError",
    "SpaceUnavailableError",
    "StreamInterruptedError",
    "Task",
    "TimedOutError",
    "Timing",
    "Trace",
    "UnavailableError",
    "Usage",
    "Verdict",
    "VisionError",
    "WarmUp",
    "WarmUpReport",
    "open_image",
]


logging.getLogger(__name__).addHandler(logging.NullHandler())  # quiet, unless the application sets up logging


def __getattr__(name: str) -> object:
    """Import a router when it is asked for (PEP 562)."""
    if name == "Router":
        from vision_backends.router import Router

        return Router
    if name == "AsyncRouter":
        from vision_backends.async_router import AsyncRouter

        return AsyncRouter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
