"""The local rung on a GPU, beside what people would otherwise run there with the same weights; writes one JSON file.

Models have their published architectures and true sizes, with random weights: times are real, quality is not measured.
References run as their documentation shows, in 32 bits. For each model there are its tensors alone (already on the
device, in 32 and in 16 bits: what no pipeline can beat), pictures in memory and JPEG files. Then come equality of the
results, memory that is taken by somebody else, and two processes on one card.

Without a GPU it says so and measures nothing; ``--device cpu`` runs every line of it all the same.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from embedded import LARGE, make_photo
from local import TOKENS, WORDS, plain_photos
from PIL import Image as PILImage
from timing import ROOT, Figure, measure, print_table, time_in_turns

sys.path.insert(0, str(ROOT))

from benchmarks.machine import look_at_machine
from benchmarks.weights import make_checkpoint
from vision_backends import Router
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.local.runtime.tuning_cache import TuningCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FROM_FILES = 10.0
"""Times the rate of sentence-transformers as it comes, from JPEG files."""

LEAST_COSINE = 0.999

NEAR_PX, NEAR_SCORE = 2.0, 0.05
BEST_BOXES = 20

PLENTY_S = 600.0

BATCH = 32

LEFT_BYTES = 64_000_000
"""What somebody else leaves of the memory of the device."""


def find_device(wanted: str) -> str | None:
    """Return the device to measure; None where there is no GPU and none other was named."""
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def device_facts(device: str) -> dict[str, Any]:
    """Return what the device is."""
    import torch

    if device.startswith("cuda"):
        facts = torch.cuda.get_device_properties(device)
        return {"name": facts.name, "memory_bytes": facts.total_memory, "capability": [facts.major, facts.minor]}
    return {"name": device}


def synchronize(device: str) -> None:
    """Wait for what was begun on a device."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def rung(folder: Path, role: str, model: Path, device: str, *, name: str = "local") -> LocalBackend:
    """Return a rung with one model on a device."""
    keys = ("caption_model", "embedding_model", "detection_model", "open_vocabulary_model")
    models = {**dict.fromkeys(keys, ""), f"{role}_model": str(model)}
    cache = TuningCache(folder / "remembered")
    return LocalBackend(**models, device=device, tuning_cache=cache).named(name)


def rates(actions: dict[str, Callable[[int], object]], *, count: int, rounds: int) -> dict[str, list[float]]:
    """Return what each action does per second in each round, after one round that does not count."""
    for action in actions.values():
        action(0)
    taken_s = time_in_turns(actions, rounds=rounds)
    return {name: [count / seconds for seconds in each] for name, each in taken_s.items()}


def compare(what: str, found: dict[str, list[float]], *, least: float | None = None) -> list[Figure]:
    """Return the rates, and how many times the reference's the rung's is."""
    ratios = [ours / theirs for ours, theirs in zip(found["rung"], found["reference"], strict=True)]
    return [
        measure(f"{what}: the rung, times the reference", ratios, "×", target=least, at_least=True),
        *(measure(f"{what}: {who}", each, "/s") for who, each in found.items()),
    ]


def tensors_alone(what: str, model: Any, inputs: dict[str, Any], device: str, *, rounds: int) -> list[Figure]:  # noqa: ANN401 — transformers'
    """Return how many inputs a model takes per second that are on the device already, in 32 and in 16 bits."""
    import torch

    figures = []
    for dtype in (torch.float32, torch.bfloat16):
        plain = deepcopy(model).to(device=device, dtype=dtype)  # the reference's own weights stay exact
        placed = {
            name: each.to(device=device, dtype=dtype if each.is_floating_point() else None)
            for name, each in inputs.items()
        }

        def run(_: int, plain: Any = plain, placed: dict[str, Any] = placed) -> None:  # noqa: ANN401 — as above
            with torch.inference_mode():
                plain(**placed)
            synchronize(device)

        count = len(next(iter(placed.values())))
        found = rates({"": run}, count=count, rounds=rounds)[""]
        figures.append(measure(f"{what}: tensors alone, {str(dtype).removeprefix('torch.')}", found, "/s"))
    return figures


def measure_embeddings(folder: Path, device: str, *, images: int, files: int, rounds: int) -> list[Figure]:
    """CLIP ViT-B/32 beside sentence-transformers."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = make_checkpoint("embedding", folder / "clip", seed=1)
    reference = SentenceTransformer(str(model), device=device)
    photos = plain_photos()
    many = [photos[number % len(photos)].rotate(number) for number in range(images)]
    paths = jpeg_files(folder, files)
    tower: Any = reference[0].model.vision_model
    pixels = torch.rand(min(BATCH, images), 3, tower.config.image_size, tower.config.image_size)
    figures = tensors_alone("CLIP", tower, {"pixel_values": pixels}, device, rounds=rounds)
    with closing(rung(folder, "embedding", model, device)) as backend, open_router(backend) as router:
        in_memory: dict[str, Callable[[int], object]] = {
            "reference": lambda _: reference.encode(many),
            "rung": lambda _: router.embed_many(many),
        }
        from_files: dict[str, Callable[[int], object]] = {
            "reference": lambda _: reference.encode([PILImage.open(path) for path in paths]),
            "rung": lambda _: router.embed_many(paths),
        }
        figures += compare(f"CLIP: {images} pictures", rates(in_memory, count=images, rounds=rounds))
        figures += compare(
            f"CLIP: {files} JPEG files of 12 MP", rates(from_files, count=files, rounds=rounds), least=FROM_FILES
        )
        exact = reference.encode(many, normalize_embeddings=True)
        found = np.stack([np.asarray(each) for each in router.embed_many(many)])
    least = float((exact * found).sum(-1).min())
    return [*figures, Figure(name="CLIP: smallest cosine", value=least, unit="", target=LEAST_COSINE, at_least=True)]


def measure_captions(folder: Path, device: str, *, images: int, files: int, rounds: int) -> list[Figure]:
    """BLIP-base beside transformers' generate."""
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, BlipForConditionalGeneration

    model = make_checkpoint("caption", folder / "blip", seed=2)
    reference = BlipForConditionalGeneration.from_pretrained(model).eval().to(device)
    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(model)
    photos = [plain_photos()[number % 8].rotate(number) for number in range(images)]
    paths = jpeg_files(folder, files)

    def generate(some: Sequence[PILImage.Image]) -> list[str]:
        said = []
        for start in range(0, len(some), BATCH):
            batch = [each.convert("RGB") for each in some[start : start + BATCH]]
            pixels = processor(images=batch, return_tensors="pt")["pixel_values"].to(device)
            with torch.inference_mode():
                tokens = reference.generate(pixel_values=pixels, max_new_tokens=TOKENS)
            said += [tokenizer.decode(row[1:], skip_special_tokens=True).strip() for row in tokens.cpu()]
        return said

    pixels = torch.rand(
        min(BATCH, images), 3, reference.config.vision_config.image_size, reference.config.vision_config.image_size
    )
    figures = tensors_alone("BLIP's eyes", reference.vision_model, {"pixel_values": pixels}, device, rounds=rounds)
    with closing(rung(folder, "caption", model, device)) as backend, open_router(backend) as router:
        describe = partial(router.describe_many, max_words=WORDS)
        in_memory: dict[str, Callable[[int], object]] = {
            "reference": lambda _: generate(photos),
            "rung": lambda _: describe(photos),
        }
        from_files: dict[str, Callable[[int], object]] = {
            "reference": lambda _: generate([PILImage.open(path) for path in paths]),
            "rung": lambda _: describe(paths),
        }
        figures += compare(f"BLIP: {images} pictures", rates(in_memory, count=images, rounds=rounds))
        figures += compare(f"BLIP: {files} JPEG files of 12 MP", rates(from_files, count=files, rounds=rounds))
        ours = [str(each) for each in describe(photos)]
    equal = float(np.mean([a == b for a, b in zip(ours, generate(photos), strict=True)]))
    return [*figures, Figure(name="BLIP: captions equal to those in 32 bits", value=equal, unit="")]


def measure_detection(folder: Path, device: str, *, images: int, files: int, rounds: int) -> list[Figure]:
    """D-FINE-S beside transformers."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    model = make_checkpoint("detection", folder / "dfine", seed=3)
    reference = AutoModelForObjectDetection.from_pretrained(model).eval().to(device)
    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    photos = [plain_photos()[number % 8] for number in range(images)]
    paths = jpeg_files(folder, files)

    def detect(some: Sequence[PILImage.Image]) -> list[Any]:
        found = []
        for start in range(0, len(some), BATCH):
            batch = [each.convert("RGB") for each in some[start : start + BATCH]]
            inputs = processor(images=batch, return_tensors="pt").to(device)
            with torch.inference_mode():
                outputs = reference(**inputs)
            sizes = [photo.size[::-1] for photo in batch]
            found += processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        return found

    pixels = torch.rand(min(BATCH, images), 3, 640, 640)
    figures = tensors_alone("D-FINE-S", reference, {"pixel_values": pixels}, device, rounds=rounds)
    with closing(rung(folder, "detection", model, device)) as backend, open_router(backend) as router:
        in_memory: dict[str, Callable[[int], object]] = {
            "reference": lambda _: detect(photos),
            "rung": lambda _: router.detect_many(photos),
        }
        from_files: dict[str, Callable[[int], object]] = {
            "reference": lambda _: detect([PILImage.open(path) for path in paths]),
            "rung": lambda _: router.detect_many(paths),
        }
        figures += compare(f"D-FINE-S: {images} pictures", rates(in_memory, count=images, rounds=rounds))
        figures += compare(f"D-FINE-S: {files} JPEG files of 12 MP", rates(from_files, count=files, rounds=rounds))
        (best,) = detect(photos[:1])
        found = router.detect(photos[0], min_score=0.0)
    corners = best["boxes"].cpu().clamp(min=0).minimum(torch.tensor(photos[0].size * 2))
    rows = list(zip(best["scores"].tolist(), corners.tolist(), strict=True))[:BEST_BOXES]
    near = [
        any(
            abs(item.score - score) <= NEAR_SCORE and np.abs(np.subtract(item.xyxy, box)).max() <= NEAR_PX
            for item in found
        )
        for score, box in rows
    ]
    return [*figures, Figure(name="D-FINE-S: best boxes that are the same", value=float(np.mean(near)), unit="")]


def measure_shortage(folder: Path, device: str, *, images: int) -> list[Figure]:
    """Memory that somebody else takes: every picture is answered, below if need be, and afterwards here again."""
    model = make_checkpoint("embedding", folder / "clip", seed=1)
    photos = [plain_photos()[number % 8].rotate(number) for number in range(images)]
    with (
        closing(rung(folder, "embedding", model, device)) as first,
        closing(rung(folder, "embedding", model, "cpu", name="processor")) as below,
        open_router(first, below) as router,
    ):
        router.embed(photos[0])
        with memory_taken(device):
            during = router.embed_many(photos)
        router.reset()
        after = router.embed_many(photos)
        answered = sum(not isinstance(each, Exception) for each in during) / images
        here = sum(not isinstance(each, Exception) and each.trace.backend == "local" for each in after) / images
    return [
        Figure(name="memory taken: share that is answered", value=answered, unit="", target=1.0, exact=True),
        Figure(name="memory free again: share answered by the device", value=here, unit="", target=1.0, exact=True),
    ]


def measure_neighbours(device: str, *, images: int) -> list[Figure]:
    """Two processes on one device, beside one."""
    alone = _neighbours(1, device, images=images)
    together = _neighbours(2, device, images=images)
    return [
        measure("one process", alone, "/s"),
        Figure(name="two processes: their rates together, times one's", value=sum(together) / sum(alone), unit="×"),
    ]


def _neighbours(count: int, device: str, *, images: int) -> list[float]:
    command = [sys.executable, __file__, "--worker", "--device", device, "--images", str(images)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [float(each.communicate(timeout=PLENTY_S)[0].splitlines()[-1]) for each in running]


def work(device: str, *, images: int) -> None:
    """Print how many pictures per second this process embeds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint("embedding", folder / "clip", seed=1)
        photos = [plain_photos()[number % 8].rotate(number) for number in range(images)]
        with closing(rung(folder, "embedding", model, device)) as backend, open_router(backend) as router:
            router.embed_many(photos)
            started = time.perf_counter()
            router.embed_many(photos)
            print(images / (time.perf_counter() - started))


@contextmanager
def memory_taken(device: str) -> Iterator[None]:
    """Take all memory of a device but a little; on a processor nothing."""
    import torch

    taken = []
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        taken.append(torch.empty(max(0, free - LEFT_BYTES), dtype=torch.uint8, device=device))
    try:
        yield
    finally:
        taken.clear()
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def open_router(*backends: LocalBackend) -> Router:
    """Return a router that keeps no answers and has plenty of time."""
    return Router(list(backends), caching=False, deadline_s=PLENTY_S)


def jpeg_files(folder: Path, count: int) -> list[Path]:
    """Return different JPEG files of 12 megapixels."""
    scene = make_photo(folder / "large.jpg", LARGE)
    data, paths = scene.read_bytes(), [folder / f"large-{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(data + bytes([number % 256]))
    return paths


def main() -> None:
    """Measure, print a table, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, mps or cpu; by default the first GPU")
    parser.add_argument("--images", type=int, default=512, help="pictures in memory; 512 by default")
    parser.add_argument("--files", type=int, default=128, help="JPEG files of 12 megapixels; 128 by default")
    parser.add_argument("--rounds", type=int, default=5, help="5 by default")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the file; gpu.json by default")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = find_device(given.device)
    if device is None:
        print("There is no GPU that torch can use here: nothing was measured. --device cpu tries the script itself.")
        return
    if given.worker:
        work(device, images=given.images)
        return
    sizes = {"images": given.images, "files": given.files, "rounds": given.rounds}
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (measure_embeddings, measure_captions, measure_detection):
            figures += part(folder, device, **sizes)
            gc.collect()
        figures += measure_shortage(folder, device, images=given.images)
        figures += measure_neighbours(device, images=given.images)
    print_table(figures)
    rows = [asdict(figure) | {"ok": figure.ok} for figure in figures]
    facts = {
        "device": device_facts(device),
        "machine": look_at_machine().model_dump(mode="json"),
        "python": platform.python_version(),
    }
    given.out.write_text(json.dumps({**facts, **sizes, "figures": rows}, indent=2, default=str), encoding="utf-8")
    print(f"\n{given.out}: {statistics.fmean(figure.ok is not False for figure in figures):.0%} of targets reached")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
