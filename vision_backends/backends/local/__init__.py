"""The rung of local Hugging Face models."""

from vision_backends.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
