"""The rungs that ask OpenAI, Azure or an OpenAI-compatible server. Importing it imports no HTTP client."""

from __future__ import annotations

from vision_backends.backends.openai.azure import AzureBackend
from vision_backends.backends.openai.backend import OpenAIBackend

__all__ = ["AzureBackend", "OpenAIBackend"]
