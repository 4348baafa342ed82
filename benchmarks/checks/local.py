"""The local rung beside what people would otherwise run: the plain libraries with the same weights, in the same run.

Models have their published architectures and true sizes, with random weights: times are real, quality is not measured.
References run as their documentation shows. All take turns, and a ratio is the median over the turns. The precision and
the engine that the rung has chosen on this machine are printed first, and below each ratio is the most that this
processor allows: how many times faster the same arithmetic would be at its highest speed of multiplying matrices, or of
reading weights where each is used once per token. The targets were set for a processor with 16-bit instructions; on one
without, some are out of reach. On a shared machine this bound moves with the reference's time.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from embedded import LARGE, make_photo
from PIL import Image as PILImage
from timing import PHOTOS, ROOT, Figure, measure, show, time_in_turns

sys.path.insert(0, str(ROOT))

from benchmarks.weights import make_checkpoint
from vision_backends import DescribeRequest, DetectRequest, EmbedRequest, Router, open_image
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.engine.event_loop import engine_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vision_backends import Image

WORDS, TOKENS = 13, 20
"""A limit of this many words, and the tokens that the rung allows for it."""

CALLERS, CALLS = 8, 6

BEST_BOXES = 20

PLENTY_S = 600.0

PEAK_SIDE, READ_BYTES, PEAK_ROUNDS = 2048, 400_000_000, 10
"""Side of the matrices, and size of a table that no cache holds, by which the processor is measured."""


def times(
    name: str, reference: Sequence[float], ours: Sequence[float], *, least: float, floor_s: float | None = None
) -> list[Figure]:
    """Return how many times faster we are, turn by turn, and the most that is possible.

    Args:
        name: What was measured.
        reference: Seconds of the reference in each turn.
        ours: Seconds of ours.
        least: The target.
        floor_s: Seconds that it takes at least at this processor's highest speed; None where that was not counted.
    """
    ratios = [theirs / mine for theirs, mine in zip(reference, ours, strict=True)]
    figure = measure(name, ratios, "×", target=least)
    milliseconds = statistics.median(reference) * 1000, statistics.median(ours) * 1000
    print(f"{name}: {milliseconds[0]:.0f} ms by the reference, {milliseconds[1]:.0f} ms here", file=sys.stderr)
    figures = [Figure(**{**vars(figure), "at_least": True})]
    if floor_s is not None:
        most = statistics.median(reference) / floor_s
        figures.append(Figure(name=f"{name}: the most that this processor allows", value=most, unit="×"))
    return figures


@dataclass(frozen=True, slots=True)
class Processor:
    """How fast this machine is in the precision that the rung has chosen.

    Attributes:
        flops: Floating-point operations per second of large matrix products.
        bytes_per_s: Bytes per second that all threads together read from memory.
    """

    flops: float
    bytes_per_s: float

    @classmethod
    def measured(cls, numbers: str) -> Processor:
        """Measure it: the best of some rounds, with torch's own product and with oneDNN's on packed weights.

        Args:
            numbers: As ``status()`` names them, such as ``"bfloat16+float32"``.
        """
        import torch

        dtype = getattr(torch, numbers.split("+", maxsplit=1)[0])
        side, rows = PEAK_SIDE, torch.randn(PEAK_SIDE, PEAK_SIDE).to(dtype)
        plain = torch.randn(side, side).to(dtype)
        products: list[Callable[[], object]] = [lambda: torch.nn.functional.linear(rows, plain)]
        with suppress(AttributeError, RuntimeError):
            packed = torch.ops.mkldnn._reorder_linear_weight(plain, side)  # noqa: SLF001 — no other way
            products.append(lambda: torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], ""))  # noqa: SLF001
        large = torch.zeros(READ_BYTES, dtype=torch.uint8).view(torch.float32)
        with torch.inference_mode():
            product_s = min(min(time_in_turns({"": lambda _, f=f: f()}, rounds=PEAK_ROUNDS)[""]) for f in products)
            read_s = min(time_in_turns({"": lambda _: large.sum()}, rounds=PEAK_ROUNDS)[""])
        found = cls(flops=2 * side**3 / product_s, bytes_per_s=READ_BYTES / read_s)
        print(f"this processor: {found.flops / 1e9:.0f} GFLOP/s in {dtype}", end=", ", file=sys.stderr)
        print(f"reads {found.bytes_per_s / 1e9:.0f} GB/s", file=sys.stderr)
        return found


def operations(compute: Callable[[], object]) -> int:
    """Return the floating-point operations of a computation's matrix products, convolutions and attention."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops())


def measure_local(*, rounds: int, images: int, large: int) -> list[Figure]:
    """Return the figures of all tasks, each with its model alone in memory; 0 images leave embeddings out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = measure_embeddings(folder, rounds=rounds, images=images, large=large) if images else []
        return [*figures, *measure_captions(folder, rounds=rounds), *measure_detection(folder, rounds=rounds)]


def backend_of(folder: Path, role: str, model: Path) -> LocalBackend:
    """Return a rung with one model, loaded; what it chose is printed."""
    keys = ("caption_model", "embedding_model", "detection_model", "open_vocabulary_model")
    none = dict.fromkeys(keys, "")
    backend = LocalBackend(**{**none, f"{role}_model": str(model)}, tuning_cache=TuningCache(folder / "remembered"))
    photo = open_image(PHOTOS / "cat.jpg")
    requests = {"caption": DescribeRequest(max_words=1), "embedding": EmbedRequest(), "detection": DetectRequest()}
    answer(backend, requests[role], photo)
    status = backend.status()[role]
    print(f"{role}: {status['dtype']} on {status['device']}, engine {status['engine']}", file=sys.stderr)
    return backend


def answer(backend: LocalBackend, request: DescribeRequest | EmbedRequest | DetectRequest, photo: Image) -> Any:  # noqa: ANN401 — the task's
    """Return a rung's answer to a request about one photo."""
    task = getattr(backend, request.task)
    (found,) = engine_loop().run(lambda: task([photo], request, timeout_s=PLENTY_S))
    return found


def plain_photos() -> list[PILImage.Image]:
    """Return photos without their colour profiles, which the rung applies and the references ignore."""
    photos = [PILImage.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    for photo in photos:
        photo.info.pop("icc_profile", None)
    return photos


def numbers_of(backend: LocalBackend) -> str:
    """Return the precision in which the one model of a rung computes."""
    (status,) = backend.status().values()
    return str(status["dtype"])


def measure_embeddings(folder: Path, *, rounds: int, images: int, large: int) -> list[Figure]:
    """CLIP ViT-B/32 beside sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = make_checkpoint("embedding", folder / "clip", seed=1)
    reference = SentenceTransformer(str(model), device="cpu")
    backend = backend_of(folder, "embedding", model)
    photos = plain_photos()
    many = [photos[number % len(photos)].rotate(number) for number in range(images)]
    scene = make_photo(folder / "large.jpg", LARGE)
    files = [_copy(scene, folder / f"large-{number}.jpg", number) for number in range(large)]
    with Router([backend], caching=False, deadline_s=PLENTY_S) as router:
        one = time_in_turns(
            {
                "reference": lambda number: reference.encode([photos[number % len(photos)]]),
                "ours": lambda number: router.embed(photos[number % len(photos)]),
            },
            rounds=4 * rounds,
        )
        batch = time_in_turns(
            {"reference": lambda _: reference.encode(many), "ours": lambda _: router.embed_many(many)}, rounds=rounds
        )
        end_to_end = time_in_turns(
            {
                "reference": lambda _: reference.encode([PILImage.open(path) for path in files]),
                "ours": lambda _: router.embed_many(files),
            },
            rounds=max(2, rounds // 2),
        )
        exact = reference.encode(many, normalize_embeddings=True)
        found = np.stack([np.asarray(each) for each in router.embed_many(many)])
        numbers = numbers_of(backend)
    each_s = operations(lambda: reference.encode([photos[0]])) / Processor.measured(numbers).flops
    figures = [
        *times("CLIP: one image at a time", one["reference"], one["ours"], least=4, floor_s=each_s),
        *times(f"CLIP: embed_many of {images}", batch["reference"], batch["ours"], least=4, floor_s=each_s * images),
        *times(f"CLIP: {large} JPEG files of 12 MP", end_to_end["reference"], end_to_end["ours"], least=5),
        Figure(
            name="CLIP: smallest cosine to 32-bit",
            value=float((exact * found).sum(-1).min()),
            unit="",
            target=0.999,
            at_least=True,
        ),
        *measure_callers(backend, photos),
        measure_overhead(backend, photos[0]),
    ]
    backend.close()
    return figures


def measure_callers(backend: LocalBackend, photos: Sequence[PILImage.Image]) -> list[Figure]:
    """Simultaneous callers with one image each: sharing batches, compared with the same model behind a lock."""
    opened = [open_image(photo) for photo in photos]
    lock = threading.Lock()

    def embed(number: int) -> None:
        answer(backend, EmbedRequest(), opened[number % len(opened)])

    def embed_alone(number: int) -> None:
        with lock:
            embed(number)

    rates: dict[str, list[float]] = {"lock": [], "shared": []}
    slow: dict[str, list[float]] = {"lock": [], "shared": []}
    for _ in range(3):
        for name, action in (("lock", embed_alone), ("shared", embed)):
            rate, late_s = _rush(action)
            rates[name].append(rate)
            slow[name].append(late_s)
    return [
        Figure(
            name=f"CLIP: throughput of {CALLERS} callers, times a lock's",
            value=statistics.median(rates["shared"]) / statistics.median(rates["lock"]),
            unit="×",
            target=1.3,
            at_least=True,
        ),
        Figure(
            name=f"CLIP: p95 of {CALLERS} callers, share of a lock's",
            value=statistics.median(slow["shared"]) / statistics.median(slow["lock"]),
            unit="",
            target=1.0,
        ),
    ]


def _rush(action: Callable[[int], None]) -> tuple[float, float]:
    """Have all callers make calls back to back; return calls per second, and the 95th percentile in seconds."""
    taken_s: list[float] = []

    def call(caller: int) -> None:
        for number in range(CALLS):
            started = time.perf_counter()
            action(caller + number)
            taken_s.append(time.perf_counter() - started)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    started = time.perf_counter()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    rate = CALLERS * CALLS / (time.perf_counter() - started)
    return rate, statistics.quantiles(taken_s, n=20)[-1]


def measure_overhead(backend: LocalBackend, photo: PILImage.Image) -> Figure:
    """Return the time that the rung adds to preparing the image and computing."""
    image, added_ms = open_image(photo), []
    for _ in range(20):
        started = time.perf_counter()
        timing = answer(backend, EmbedRequest(), image).trace.timing
        spent_s = (timing.decode_s or 0.0) + (timing.model_s or 0.0) if timing else 0.0
        added_ms.append((time.perf_counter() - started - spent_s) * 1000)
    return measure("the rung's own time in a call", added_ms, "ms", target=2)


def measure_captions(folder: Path, *, rounds: int) -> list[Figure]:
    """BLIP-base beside transformers' generate."""
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, BlipForConditionalGeneration

    from vision_backends.backends.local.models.blip import BlipDecoder

    model = make_checkpoint("caption", folder / "blip", seed=2)
    reference = BlipForConditionalGeneration.from_pretrained(model).eval()
    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    backend = backend_of(folder, "caption", model)
    photos = plain_photos()[:8]

    def generate(some: Sequence[PILImage.Image], plain: Any = reference) -> Any:  # noqa: ANN401 — transformers'
        pixels = processor(images=list(some), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return plain.generate(pixel_values=pixels.to(plain.dtype), max_new_tokens=TOKENS)

    with Router([backend], caching=False, deadline_s=PLENTY_S) as router:
        one = time_in_turns(
            {
                "reference": lambda number: generate([photos[number % 8]]),
                "ours": lambda number: router.describe(photos[number % 8], max_words=WORDS),
            },
            rounds=rounds,
        )
        batch = time_in_turns(
            {
                "reference": lambda _: generate(photos),
                "ours": lambda _: router.describe_many(photos, max_words=WORDS),
            },
            rounds=rounds,
        )
        said = [str(each) for each in router.describe_many(photos, max_words=WORDS)]
        chosen = numbers_of(backend)
    speed, numbers = Processor.measured(chosen), getattr(torch, chosen)
    pixels = processor(images=photos[:1], return_tensors="pt")["pixel_values"]
    seeing = operations(lambda: BlipDecoder(reference).generate(pixels, max_new_tokens=1))
    once = ("crossattention.self.key", "crossattention.self.value", "position_embeddings")  # an image, not a token
    weights = reference.text_decoder.named_parameters()
    read = sum(each.numel() for name, each in weights if not any(part in name for part in once)) * numbers.itemsize
    telling_s = TOKENS * read / speed.bytes_per_s
    tokens = generate(photos, reference.to(numbers))
    tokenizer = AutoTokenizer.from_pretrained(model)
    expected = [tokenizer.decode(row[1:], skip_special_tokens=True).strip() for row in tokens]
    backend.close()
    return [
        *times(
            f"BLIP: a caption of {TOKENS} tokens",
            one["reference"],
            one["ours"],
            least=2.5,
            floor_s=seeing / speed.flops + telling_s,
        ),
        *times(
            "BLIP: a batch of 8 captions",
            batch["reference"],
            batch["ours"],
            least=2.5,
            floor_s=8 * seeing / speed.flops + telling_s,
        ),
        Figure(
            name="BLIP: captions equal to the reference's",
            value=float(np.mean([a == b for a, b in zip(said, expected, strict=True)])),
            unit="",
            target=1.0,
            exact=True,
        ),
    ]


def measure_detection(folder: Path, *, rounds: int) -> list[Figure]:
    """D-FINE-S and RT-DETRv2-R18 beside transformers."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    figures = []
    photo = PILImage.open(PHOTOS / "coffee.jpg").convert("RGB")
    for name, role in (("D-FINE-S", "detection"), ("RT-DETRv2-R18", "detection-rtdetr")):
        model = make_checkpoint(role, folder / role, seed=3)  # type: ignore[arg-type]  # both are roles
        reference = AutoModelForObjectDetection.from_pretrained(model).eval()
        processor = AutoImageProcessor.from_pretrained(model, backend="pil")
        backend = backend_of(folder, "detection", model)

        def detect(reference: Any = reference, processor: Any = processor) -> Any:  # noqa: ANN401 — transformers'
            with torch.inference_mode():
                outputs = reference(**processor(images=[photo], return_tensors="pt"))
            return processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[photo.size[::-1]])[0]

        with Router([backend], caching=False, deadline_s=PLENTY_S) as router:
            taken_s = time_in_turns(
                {"reference": lambda _, detect=detect: detect(), "ours": lambda _, router=router: router.detect(photo)},
                rounds=2 * rounds,
            )
            found = router.detect(photo, min_score=0.0)
            chosen = numbers_of(backend)
        best = detect()
        corners = best["boxes"].clamp(min=0).minimum(torch.tensor(photo.size * 2))  # the rung cuts boxes to the image
        rows = list(zip(best["scores"].tolist(), corners.tolist(), strict=True))[:BEST_BOXES]
        near = [
            any(abs(item.score - score) <= 0.02 and np.abs(np.subtract(item.xyxy, box)).max() <= 1 for item in found)
            for score, box in rows
        ]
        floor_s = operations(detect) / Processor.measured(chosen).flops
        backend.close()
        figures += [
            *times(f"{name} at 640", taken_s["reference"], taken_s["ours"], least=2.5, floor_s=floor_s),
            Figure(
                name=f"{name}: best boxes within 1 px and 0.02",
                value=float(np.mean(near)),
                unit="",
                target=1.0,
                exact=True,
            ),
        ]
    return figures


def _copy(scene: Path, path: Path, number: int) -> Path:
    """Write a different file for every image, so that none can come from a cache."""
    data = scene.read_bytes()
    path.write_bytes(data + bytes([number % 256]))
    return path


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    show(
        "The local rung beside the plain libraries",
        measure_local,
        options={"rounds": 5, "images": 256, "large": 64},
    )
