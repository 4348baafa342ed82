"""A scriptable server on loopback, backends that speak to it, and pictures to ask about."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import queue
import socket
import struct
import time
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
        """Return descriptions."""
        ask = super().describe
        return engine_loop().run(lambda: ask(images, request, timeout_s=timeout_s))

    def describe_stream(self, image, request, *, timeout_s):
        """Yield the pieces of a description, and at last the record."""
        pieces = super().describe_stream(image, request, timeout_s=timeout_s)
        try:
            while (piece := engine_loop().run(lambda: anext(pieces, None))) is not None:
                yield piece
        finally:
            engine_loop().run(pieces.aclose)

    def embed(self, images, request, *, timeout_s):
        """Return embeddings of images."""
        ask = super().embed
        return engine_loop().run(lambda: ask(images, request, timeout_s=timeout_s))

    def embed_text(self, texts, request, *, timeout_s):
        """Return embeddings of texts."""
        ask = super().embed_text
        return engine_loop().run(lambda: ask(texts, request, timeout_s=timeout_s))

    def detect(self, images, request, *, timeout_s):
        """Return detections."""
        ask = super().detect
        return engine_loop().run(lambda: ask(images, request, timeout_s=timeout_s))

    def close(self):
        """Close the connections of the event loop, and wait for that."""
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


ANSWER = json.dumps({"choices": [{"message": {"content": "a cat"}, "finish_reason": "stop"}]}).encode()


class Talk:
    """One connection of a client, as bytes."""

    def __init__(self, server, connection, number):
        self.server = server
        self.socket = connection
        self.number = number

    def receive(self):
        """Return the head and the JSON of the next request, or None where the client hangs up."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := self.socket.recv(65_536)):
                return None
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        sizes = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        while len(rest) < int(sizes[0] if sizes else 0):
            if not (piece := self.socket.recv(1_000_000)):
                return None
            rest += piece
        request = head.decode(), rest
        self.server.received.append(request)
        return request

    def send(self, data):
        """Send bytes."""
        self.socket.sendall(data)

    def reply(self, body=ANSWER, *, status=200, headers=()):
        """Send a whole reply."""
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}", *headers]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def reset(self):
        """End the connection with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def wait_for_the_end(self):
        """Return when the client has hung up, having said so to `RawServer.hung_up`."""
        with contextlib.suppress(OSError):
            while self.socket.recv(65_536):
                pass
        self.server.hung_up.put(time.monotonic())


class RawServer:
    """A server on loopback whose every byte a test decides."""

    def __init__(self, talk):
        self.received = []
        self.connections = 0
        self.hung_up = queue.SimpleQueue()
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open = []
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self):
        """The base URL."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(Thread(target=self._serve, args=(connection, self.connections)))
            self._threads[-1].start()

    def _serve(self, connection, number):
        with connection, contextlib.suppress(OSError):
            self._talk(Talk(self, connection, number))

    def close(self):
        """End every connection and thread."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def make_server():
    """Start servers that talk as they are told, and stop them."""
    made = []

    def make(talk):
        made.append(RawServer(talk))
        return made[-1]

    yield make
    for server in made:
        server.close()
