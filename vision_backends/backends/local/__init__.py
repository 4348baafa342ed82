"""The local rung: Hugging Face models on this machine."""

from vision_backends.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
