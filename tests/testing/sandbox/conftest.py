"""A running sandbox, the real SDK in front of it, and images to send."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import pytest
from openai import OpenAI
from PIL import Image

from vision_backends.testing.clock import FakeClock
from vision_backends.testing.sandbox import SandboxServer


@dataclass
class Caller:
    """Asks each endpoint for something small."""

    client: OpenAI

    def chat(self, content="Describe it.", **options):
        """Return a chat completion, or its stream."""
        messages = [{"role": "user", "content": content}]
        return self.client.chat.completions.create(model="gpt-sandbox", messages=messages, **options)

    def stream(self, content="Describe it.", **options):
        """Return the chunks of a chat completion."""
        return list(self.chat(content, stream=True, **options))

    def responses(self, content="Describe it.", **options):
        """Return a response, or its stream."""
        return self.client.responses.create(model="gpt-sandbox", input=content, **options)

    def embed(self, given=("one", "two"), **options):
        """Return embeddings."""
        given = given if isinstance(given, str) else list(given)
        return self.client.embeddings.create(model="text-embedding-3-small", input=given, **options)


@pytest.fixture
def clock():
    """Return the clock of the sandbox."""
    return FakeClock()


@pytest.fixture
def server(clock):
    """Yield a running sandbox."""
    with SandboxServer(clock=clock) as running:
        yield running


@pytest.fixture
def client(server):
    """Yield the SDK in front of it, without retries."""
    with OpenAI(base_url=server.url, api_key=server.api_key, max_retries=0, timeout=5) as sdk:
        yield sdk


@pytest.fixture
def call(client):
    """Return short ways to ask each endpoint."""
    return Caller(client)


@pytest.fixture
def data_url():
    """Return a function that makes the data URL of a one-coloured image."""

    def make(size=(64, 48), colour=(200, 100, 50), kind="PNG", mime=None, **options):
        buffer = io.BytesIO()
        Image.new("RGB", size, colour).save(buffer, kind, **options)
        data = base64.b64encode(buffer.getvalue()).decode()
        return f"data:{mime or 'image/' + kind.lower()};base64,{data}"

    return make


@pytest.fixture
def image_part(data_url):
    """Return a function that makes the content part of an image."""

    def make(detail="auto", **options):
        return {"type": "image_url", "image_url": {"url": data_url(**options), "detail": detail}}

    return make
