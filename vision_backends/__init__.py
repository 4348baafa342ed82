"""Graceful degradation for vision models.

Ask for a description, an embedding or the objects of an image, and get the best answer that can be had right
now, with an honest account of who gave it::

    from vision_backends import Router

    router = Router.from_config()
    print(router.describe("photo.jpg"))

Every name is imported when it is first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision_backends.async_router import AsyncRouter
    from vision_backends.backends.base import AsyncBackend, Backend
    from vision_backends.backends.embedded import EmbeddedBackend
    from vision_backends.backends.local import LocalBackend
    from vision_backends.backends.openai import AzureBackend, OpenAIBackend
    from vision_backends.backends.requests import (
        AskRequest,
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
    from vision_backends.images import Image, ImageLimits, KeptImage, open_image
    from vision_backends.reports import Explanation, RungStatus, Verdict, WarmUp, WarmUpReport
    from vision_backends.router import Router
    from vision_backends.types import (
        FREE,
        TASKS,
        Attempt,
        Description,
        Detection,
        Detections,
        Embedding,
        ImageLabel,
        Reply,
        Task,
        Timing,
        Trace,
        Usage,
    )

__all__ = [
    "FREE",
    "TASKS",
    "AllBackendsFailedError",
    "AskRequest",
    "AsyncBackend",
    "AsyncRouter",
    "Attempt",
    "AuthenticationError",
    "AzureBackend",
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
    "EmbeddedBackend",
    "Embedding",
    "Explanation",
    "HedgedError",
    "Image",
    "ImageLabel",
    "ImageLimits",
    "ImageTooLargeError",
    "InvalidImageError",
    "InvalidReplyError",
    "InvalidRequestError",
    "KeptImage",
    "LocalBackend",
    "Model",
    "ModelNotFoundError",
    "NotReadyError",
    "NotSupportedError",
    "OpenAIBackend",
    "OverloadedError",
    "QuotaExhaustedError",
    "RateLimitedError",
    "RateLimits",
    "RefusedError",
    "Reply",
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

_HOMES = {
    "FREE": "types",
    "TASKS": "types",
    "AllBackendsFailedError": "errors",
    "AskRequest": "backends.requests",
    "AsyncBackend": "backends.base",
    "AsyncRouter": "async_router",
    "Attempt": "types",
    "AuthenticationError": "errors",
    "Backend": "backends.base",
    "AzureBackend": "backends.openai",
    "BackendError": "errors",
    "CallCancelledError": "errors",
    "CallerError": "errors",
    "ClosedError": "errors",
    "ConfigError": "errors",
    "ContentRejectedError": "errors",
    "DescribeRequest": "backends.requests",
    "Description": "types",
    "DetectRequest": "backends.requests",
    "Detection": "types",
    "Detections": "types",
    "EmbedRequest": "backends.requests",
    "EmbedTextRequest": "backends.requests",
    "EmbeddedBackend": "backends.embedded",
    "Embedding": "types",
    "Explanation": "reports",
    "HedgedError": "errors",
    "Image": "images",
    "ImageLabel": "types",
    "ImageLimits": "images",
    "ImageTooLargeError": "errors",
    "InvalidImageError": "errors",
    "InvalidReplyError": "errors",
    "InvalidRequestError": "errors",
    "KeptImage": "images",
    "LocalBackend": "backends.local",
    "Model": "backends.requests",
    "ModelNotFoundError": "errors",
    "NotReadyError": "errors",
    "NotSupportedError": "errors",
    "OpenAIBackend": "backends.openai",
    "OverloadedError": "errors",
    "QuotaExhaustedError": "errors",
    "RateLimitedError": "errors",
    "RateLimits": "backends.requests",
    "RefusedError": "errors",
    "Reply": "types",
    "Request": "backends.requests",
    "Router": "router",
    "RungStatus": "reports",
    "SpaceMismatchError": "errors",
    "SpaceUnavailableError": "errors",
    "StreamInterruptedError": "errors",
    "Task": "types",
    "TimedOutError": "errors",
    "Timing": "types",
    "Trace": "types",
    "UnavailableError": "errors",
    "Usage": "types",
    "Verdict": "reports",
    "VisionError": "errors",
    "WarmUp": "reports",
    "WarmUpReport": "reports",
    "open_image": "images",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())  # quiet, unless the application sets up logging


def __getattr__(name: str) -> object:
    """Import only the module of the name that is used (PEP 562)."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    """Return what there is, imported or not."""
    return sorted({*globals(), *__all__})
