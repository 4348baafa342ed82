"""The embedded rung on two threads: beside its models alone, large photos beside small ones, memory, whole folders."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image as PILImage
from timing import PHOTOS, Cost, Figure, cost_in_turns, measure, run_python, show

from vision_backends import Router
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.embedded.session import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

ROUNDS = 40

FOLDER_ROUNDS = 5

FOLDER_PHOTOS = 24

TARGETS_MS = {"detect": 25, "embed": 15, "describe": 60}

SMALL, LARGE = (1152, 864), (4000, 3000)
"""One and twelve megapixels."""

CONFIG = """
ladder = ["embedded"]
state = "memory"
cache.enabled = false
embedded.threads = 2
"""

MEMORY = """
import re, sys
from pathlib import Path
from vision_backends import Router

with Router.from_config(sys.argv[1]) as router:
    for method in (router.detect, router.embed, router.describe):
        method(sys.argv[2])
status = Path("/proc/self/status")
if status.exists():  # because the kernel's other figure, in getrusage(2), starts at the parent's
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024)
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


FOLDER = """
import os, sys, time
from pathlib import Path
from vision_backends import Router
from vision_backends.backends.embedded import EmbeddedBackend

task, cores, folder = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
photos = sorted(Path(folder).iterdir())
with Router([EmbeddedBackend()], caching=False) as router:
    ask = getattr(router, f"{task}_many")
    ask(photos[:4])
    started, started_cpu = time.perf_counter(), time.process_time()
    answers = ask(photos)
    taken = time.perf_counter() - started, time.process_time() - started_cpu
assert all(not isinstance(answer, Exception) for answer in answers)
print(*taken)
"""


def make_photo(path: Path, size: tuple[int, int]) -> Path:
    """Write one scene with that many pixels, as a phone would, and return where.

    It is made from a real photo, scaled, with noise like a sensor's: its variance grows with the brightness. Without it
    a large photo would be smooth, and cheaper to decode than a real one.
    """
    with PILImage.open(PHOTOS / "raccoon.jpg") as photo:
        scene = np.asarray(photo.resize(size, PILImage.Resampling.LANCZOS), dtype=np.float32)
    noise = np.random.default_rng(12).standard_normal(scene.shape, dtype=np.float32) * np.sqrt(4 + scene / 8)
    picture = PILImage.fromarray((scene + noise).clip(0, 255).astype(np.uint8))
    picture.save(path, "JPEG", quality=90)
    return path


def make_folder(photo: Path, folder: Path) -> None:
    """Write different photos of the same size: what is equal in a list is asked about once."""
    folder.mkdir()
    with PILImage.open(photo) as image:
        for number in range(FOLDER_PHOTOS):
            image.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT if number % 2 else PILImage.Transpose.ROTATE_180).save(
                folder / f"{number:02}.jpg", "JPEG", quality=90 - number // 2
            )


class ModelRun(NamedTuple):
    """One run of a model of the rung.

    Attributes:
        model: Which.
        outputs: The outputs that were wanted; None for all.
        image: Its input, [1, 3, H, W].
    """

    model: OnnxModel
    outputs: list[str] | None
    image: npt.NDArray[np.float32]

    def again(self) -> object:
        """Run the model once more."""
        return self.model.run(self.outputs, self.image)


def model_runs(task: str, photo: Path) -> list[ModelRun]:
    """Return each run of a model that a task takes, the first look for text among them."""
    runs: list[ModelRun] = []
    run = OnnxModel.run

    def recording(
        model: OnnxModel, outputs: list[str] | None, image: npt.NDArray[np.float32]
    ) -> list[npt.NDArray[np.float32]]:
        runs.append(ModelRun(model, outputs, image))
        return run(model, outputs, image)

    OnnxModel.run = recording  # type: ignore[method-assign]  # the rung has no seam there, and needs none
    try:
        with Router([EmbeddedBackend(threads=2)], caching=False) as router:
            getattr(router, task)(photo)
    finally:
        OnnxModel.run = run  # type: ignore[method-assign]
    return runs


def _alone(photo: Path) -> dict[str, Callable[[int], object]]:
    """Return what each task has to do at least: decode the photo, and run its models on the inputs that they had."""
    return {task: partial(_repeat, photo, model_runs(task, photo)) for task in TARGETS_MS}


def _repeat(photo: Path, runs: Sequence[ModelRun], _round: int) -> None:
    with PILImage.open(photo) as file:
        file.convert("RGB")
    for run in runs:
        run.again()


def _beside(task: str, own: list[Cost], alone: list[Cost]) -> list[Figure]:
    pairs = list(zip(own, alone, strict=True))
    name = f"{task} beside its models and a decode"
    return [
        measure(f"{name}: processor time", [a.cpu_s / b.cpu_s for a, b in pairs], "times", target=1.25),
        measure(f"{name}: elapsed", [a.taken_s / b.taken_s for a, b in pairs], "times", target=1.25),
    ]


def measure_folder(folder: Path, *, rounds: int) -> list[Figure]:
    """Return how much faster two cores go through a folder than one; both in processes of their own, in turns."""
    figures = []
    for task in TARGETS_MS:
        costs: dict[str, list[Cost]] = {"1": [], "2": []}
        for _ in range(rounds):
            for cores, found in costs.items():
                taken_s, cpu_s = map(float, run_python("-c", FOLDER, task, cores, str(folder))[0].split())
                found.append(Cost(taken_s, cpu_s))
        pairs = list(zip(costs["1"], costs["2"], strict=True))
        faster = [one.taken_s / two.taken_s for one, two in pairs]
        dearer = [two.cpu_s / one.cpu_s for one, two in pairs]
        figures += [
            measure(f"{task} a folder: two cores against one", faster, "times", target=1.8, at_least=True),
            measure(f"{task} a folder: processor time on two cores against one", dearer, "times", target=1.1),
        ]
    return figures


def measure_embedded(*, rounds: int = ROUNDS, folder_rounds: int = FOLDER_ROUNDS) -> list[Figure]:
    """Return the figures; the models are loaded before anything is timed.

    Args:
        rounds: How often each task is asked for.
        folder_rounds: How often the folder is gone through; 0 leaves it out.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "vision.toml"
        config.write_text(CONFIG, encoding="utf-8")
        small, large = make_photo(folder / "small.jpg", SMALL), make_photo(folder / "large.jpg", LARGE)
        with Router.from_config(config) as router:
            methods = {"detect": router.detect, "embed": router.embed, "describe": router.describe}
            actions: dict[str, Callable[[int], object]] = {}
            for task, method in methods.items():
                for photo in (small, large):
                    method(photo)
                    actions[f"{task} {photo.stem}"] = lambda _, method=method, photo=photo: method(photo)
            timings = {task: [method(small).trace.timing for _ in range(rounds)] for task, method in methods.items()}
            alone = _alone(small)
            costs = cost_in_turns(actions | {f"{task} alone": run for task, run in alone.items()}, rounds=rounds + 1)
        taken_s = {name: [each.taken_s for each in found[1:]] for name, found in costs.items()}
        memory_bytes = [int(run_python("-c", MEMORY, str(config), str(photo))[0]) for photo in (small, large)]
        sizes_bytes = [photo.stat().st_size for photo in (small, large)]
        make_folder(small, folder / "photos")
        in_folder = measure_folder(folder / "photos", rounds=folder_rounds) if folder_rounds else []
    times = [
        measure(f"{task}, 1 megapixel", [s * 1e3 for s in taken_s[f"{task} small"]], "ms", target=target)
        for task, target in TARGETS_MS.items()
    ]
    large_times = [
        measure(f"{task}, 12 megapixels", [s * 1e3 for s in taken_s[f"{task} large"]], "ms") for task in TARGETS_MS
    ]
    ratios = [
        Figure(name=f"{task}, 12 to 1 megapixels", value=big.value / little.value, unit="times", target=2)
        for task, big, little in zip(TARGETS_MS, large_times, times, strict=True)
    ]
    return [
        *times,
        *(
            figure
            for task in TARGETS_MS
            for figure in _beside(task, costs[f"{task} small"][1:], costs[f"{task} alone"][1:])
        ),
        *(
            measure(f"{task}, of which {words}", [1e3 * (getattr(each, part) or 0) for each in found], "ms")
            for task, found in timings.items()
            for words, part in (("decoding and scaling", "decode_s"), ("models", "model_s"))
        ),
        *large_times,
        *ratios,
        *in_folder,
        Figure(name="peak memory, 1 megapixel", value=memory_bytes[0] / 1e6, unit="MB", target=200),
        Figure(name="peak memory, 12 megapixels", value=memory_bytes[1] / 1e6, unit="MB"),
        Figure(name="size of the 1-megapixel JPEG", value=sizes_bytes[0] / 1e6, unit="MB"),
        Figure(name="size of the 12-megapixel JPEG", value=sizes_bytes[1] / 1e6, unit="MB"),
    ]


if __name__ == "__main__":
    show(
        "The embedded rung on two threads, decoding included",
        measure_embedded,
        options={"rounds": ROUNDS, "folder-rounds": FOLDER_ROUNDS},
    )
