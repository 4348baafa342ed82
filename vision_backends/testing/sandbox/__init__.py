"""A scriptable OpenAI server on loopback, for tests and for development without spending money."""

from __future__ import annotations

from vision_backends.testing.sandbox.fault_table import FAULTS
from vision_backends.testing.sandbox.faults import HEALTHY, Fault
from vision_backends.testing.sandbox.limits import Limits
from vision_backends.testing.sandbox.pictures import Picture, image_tokens
from vision_backends.testing.sandbox.request_log import ReceivedRequest
from vision_backends.testing.sandbox.script import Chaos, Script, Step
from vision_backends.testing.sandbox.server import SandboxServer

__all__ = [
    "FAULTS",
    "HEALTHY",
    "Chaos",
    "Fault",
    "Limits",
    "Picture",
    "ReceivedRequest",
    "SandboxServer",
    "Script",
    "Step",
    "image_tokens",
]
