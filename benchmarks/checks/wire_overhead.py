"""What the router adds to a direct call of the SDK, with an image of 500 kB, on loopback.

Both sides open and encode the same photo in turns; the time for that is reported separately, and the rest compared. The
server runs in a process of its own.
"""

from __future__ import annotations

import base64
import io
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import openai
from PIL import Image as PILImage
from timing import PHOTOS, Figure, measure, show, time_in_turns

from benchmarks.sandbox_process import API_KEY, RemoteSandbox
from vision_backends import Router, open_image
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.images import encode_for_wire
from vision_backends.storage import open_store

SIZE = (1024, 768)
"""The size at which the model sees the image: nothing is scaled on the way."""

WANTED_BYTES = 500_000

MODEL = "gpt-sandbox"


def make_photo() -> bytes:
    """Return a JPEG that is sent as about 500 kB: a real photo, with enough noise to make it that large."""
    random = np.random.default_rng(5)
    with PILImage.open(PHOTOS / "raccoon.jpg") as photo:
        scene = np.asarray(photo.convert("RGB").resize(SIZE, PILImage.Resampling.LANCZOS), dtype=np.float32)
    noise = random.standard_normal(scene.shape, dtype=np.float32)
    data = b""
    for strength in range(0, 100, 2):
        picture = PILImage.fromarray((scene + strength * noise).clip(0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=95)
        data = buffer.getvalue()
        if len(encode(data)) >= WANTED_BYTES:
            break
    return data


def encode(photo: bytes) -> bytes:
    """Return a photo as the rung sends it: opened, checked, without metadata."""
    return encode_for_wire(open_image(photo).rgb()).data


class Direct:
    """The SDK alone, as a program without a router would use it.

    Args:
        url: The server.
    """

    def __init__(self, url: str) -> None:
        self.client = openai.OpenAI(base_url=url, api_key=API_KEY, max_retries=0, timeout=20)

    def describe(self, photo: bytes) -> str | None:
        """Encode the photo and send it."""
        url = "data:image/jpeg;base64," + base64.b64encode(encode(photo)).decode("ascii")
        content = [
            {"type": "text", "text": "Describe this image."},
            {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
        ]
        messages = [{"role": "system", "content": "You look at an image."}, {"role": "user", "content": content}]
        reply = self.client.chat.completions.create(model=MODEL, messages=messages, max_tokens=400)
        return reply.choices[0].message.content


def measure_wire_overhead(rounds: int) -> list[Figure]:
    """Return the figures."""
    photo = make_photo()
    with RemoteSandbox.started() as sandbox, tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        direct = Direct(sandbox.url)
        stack.enter_context(direct.client)
        routers = {
            "router": Router([backend(sandbox.url)], caching=False),
            "booked": Router([backend(sandbox.url)], store=open_store(Path(folder) / "state.sqlite"), caching=False),
        }
        for router in routers.values():
            stack.enter_context(router)
        actions = {"encode": lambda _: encode(photo), "direct": lambda _: direct.describe(photo)}
        actions |= {name: lambda _, router=router: router.describe(photo) for name, router in routers.items()}
        time_in_turns(actions, rounds=max(3, rounds // 10))
        taken_s = time_in_turns(actions, rounds=rounds)
        sizes = {request["pictures"][0]["size_bytes"] for request in sandbox.requests()}
    if len(sizes) != 1:
        raise AssertionError(f"The two sides sent images of different sizes in bytes: {sizes}.")
    encode_ms = statistics.median(taken_s["encode"]) * 1e3
    direct_ms = [seconds * 1e3 - encode_ms for seconds in taken_s["direct"]]
    figures = [
        Figure(name="size of the image on the wire", value=sizes.pop() / 1e3, unit="kB"),
        measure("opening and encoding it, separately", [seconds * 1e3 for seconds in taken_s["encode"]], "ms"),
        measure("the SDK alone, after encoding", direct_ms, "ms"),
    ]
    for name, label in (("router", "added by the router"), ("booked", "added by the router, SQLite ledger and gates")):
        pairs = zip(taken_s[name], taken_s["direct"], strict=True)
        added_ms = [(ours - theirs) * 1e3 for ours, theirs in pairs]
        figures.append(measure(label, added_ms, "ms", target=0.3))
    return figures


def backend(url: str) -> OpenAIBackend:
    """Return the rung that asks the sandbox."""
    return OpenAIBackend(api_key=API_KEY, base_url=url, model=MODEL)


if __name__ == "__main__":
    show("The router over the SDK, with an image of 500 kB", measure_wire_overhead, options={"rounds": 300})
