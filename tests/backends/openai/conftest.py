"""A scriptable server on loopback, backends that speak to it, and pictures to ask about."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from PIL import Image as PILImage

from vision_backends.backends.openai import OpenAIBackend
from vision_backends.engine.event_loop import engine_loop
from vision_backends.images import open_image
from vision_backends.testing.sandbox import SandboxServer

KEY = "sk-canary-7f3a9c51d2"


class PlainBackend(OpenAIBackend):
    """The backend with plain methods, which wait in the test's thread for what its coroutines do on the event loop."""

    def describe(self, images, request, *, timeout_s):
        ask = super().describe
        return engine_loop().run(lambda: ask(images, request, timeout_s=timeout_s))

    def describe_stream(self, image, request, *, timeout_s):
        pieces = super().describe_stream(image, request, timeout_s=timeout_s)
        try:
            while (piece := engine_loop().run(lambda: anext(pieces, None))) is not None:
                yield piece
        finally:
            engine_loop().run(pieces.aclose)

    def embed(self, images, request, *, timeout_s):
        ask = super().embed
        return engine_loop().run(lambda: ask(images, request, timeout_s=timeout_s))

    def embed_text(self, texts, request, *, timeout_s):
        ask = super().embed_text
        return engine_loop().run(lambda: ask(texts, request, timeout_s=timeout_s))

    def detect(self, images, request, *, timeout_s):
        ask = super().detect
        return engine_loop().run(lambda: ask(images, request, timeout_s=timeout_s))

    def close(self):
        engine_loop().run(self.aclose)
        super().close()


@pytest.fixture(scope="session")
def _server():
    with SandboxServer() as server:
        yield server


@pytest.fixture
def sandbox(_server):
    """A sandbox as new."""
    _server.reset()
    return _server


@pytest.fixture
def make_backend(sandbox):
    """Make backends that speak to the sandbox, and close them."""
    made = []

    def make(**settings):
        backend = PlainBackend(**{"api_key": KEY, "base_url": sandbox.url, **settings})
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.close()


@pytest.fixture(params=["chat", "responses"])
def backend(request, make_backend):
    """A backend for each of the two APIs."""
    return make_backend(api=request.param)


@pytest.fixture
def photo():
    """An image of 96×64 px."""
    pixels = np.random.default_rng(7).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    return open_image(pixels)


class Embedder(ThreadingHTTPServer):
    """Embeds images in the shape of infinity-emb or vLLM, or falls for the letters of the data URL."""

    daemon_threads = True

    def __init__(self, shape):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.shape = shape
        self.bodies = []
        self.broken = False
        self.uneven = False

    @property
    def url(self):
        """The base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        images = body.get("modality") == "image" and self.server.shape == "modality"
        if "messages" in body:
            images, inputs = True, [part["image_url"]["url"] for part in body["messages"][0]["content"]]
            status = 200 if self.server.shape == "messages" and body.get("input") is None else 400
        else:
            inputs = body["input"]
            status = 200 if self.server.shape != "messages" else 400
        if self.server.broken:
            status = 500
        size = 32 + (len(self.server.bodies) if self.server.uneven else 0)
        rows = [
            {"index": place, "embedding": _vector(text, images=images, size=size)} for place, text in enumerate(inputs)
        ]
        reply = {"data": rows, "usage": {"prompt_tokens": len(inputs)}} if status == 200 else {"error": "no"}
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Say nothing."""


def _vector(text, *, images, size):
    content = text.encode()
    if images:
        content = PILImage.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))).convert("RGB").tobytes()
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=size).tolist()


@pytest.fixture
def make_embedder():
    """Start embedding servers, and stop them."""
    made = []

    def make(shape):
        server = Embedder(shape)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        made.append((server, thread))
        return server

    yield make
    for server, thread in made:
        server.shutdown()
        thread.join()
        server.server_close()
