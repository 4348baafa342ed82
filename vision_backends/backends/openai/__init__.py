"""The rung that asks OpenAI or an OpenAI-compatible server. Importing it imports no HTTP client."""

from __future__ import annotations

from vision_backends.backends.openai.backend import OpenAIBackend

__all__ = ["OpenAIBackend"]
