"""Test doubles and contract tests, for the tests of applications and of other backends.

`FakeBackend` and `FakeAsyncBackend` are normal backends with scripted answers, `FakeClock` is a clock that is moved by
hand, `BackendContract` holds the tests that every backend has to pass, and `SandboxServer` is a scriptable OpenAI
server on loopback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision_backends.testing.clock import FakeClock
    from vision_backends.testing.contract import BackendContract
    from vision_backends.testing.fake import FakeAsyncBackend, FakeBackend, FakeCall
    from vision_backends.testing.sandbox import SandboxServer

__all__ = ["BackendContract", "FakeAsyncBackend", "FakeBackend", "FakeCall", "FakeClock", "SandboxServer"]

_HOMES = {
    "BackendContract": "contract",
    "FakeAsyncBackend": "fake",
    "FakeBackend": "fake",
    "FakeCall": "fake",
    "FakeClock": "clock",
    "SandboxServer": "sandbox",
}


def __getattr__(name: str) -> object:
    """Import only the module of the name that is used (PEP 562)."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
