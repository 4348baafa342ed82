"""The embedded rung; importing it loads neither numpy nor onnxruntime."""

from __future__ import annotations

from vision_backends.backends.embedded.backend import EmbeddedBackend

__all__ = ["EmbeddedBackend"]
