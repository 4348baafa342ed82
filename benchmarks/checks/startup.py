"""What a start costs: importing the package and running the command line in fresh processes, beside bare scripts."""

from __future__ import annotations

import json

from embedded import model_runs
from timing import PHOTOS, Cost, Figure, cost_of_python, measure, run_python, show

ROUNDS = 15

HEAVY = ("torch", "transformers", "onnxruntime", "openai", "aiohttp", "numpy", "pydantic_settings")

IMPORT = """
import sys, time
started = time.process_time()
import vision_backends
print(time.process_time() - started, *sys.modules)
"""

DESCRIBE = """
import sys
from vision_backends.cli import main
try:
    main(["describe", sys.argv[1]])
finally:
    print(*sys.modules)
"""

TYPER = """
import typer
app = typer.Typer()

@app.command()
def one():
    "Do one thing."

@app.command()
def other():
    "Do another."

app()
"""
"""The least that a command line of this library costs."""

BARE = """
import json, sys
import numpy
import onnxruntime
from PIL import Image

photo, *models = json.loads(sys.argv[1])
with Image.open(photo) as file:
    image = file.convert("RGB")
for path, name, outputs, sizes in models:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for size in sizes:
        pixels = numpy.asarray(image.resize(size), dtype=numpy.float32)
        session.run(outputs, {name: (pixels.transpose(2, 0, 1)[None] - 127) / 128})
"""
"""What a program has to do that describes the photo with the same models."""

PHOTO = PHOTOS / "cat.jpg"


def _bare_arguments() -> str:
    """Return the photo and each model that describing it runs, with the sizes of the pictures that it sees."""
    models: dict[str, tuple[str, str, list[str] | None, list[tuple[int, int]]]] = {}
    for run in model_runs("describe", PHOTO):
        height, width = run.image.shape[2:]
        path = str(run.model.path)
        models.setdefault(path, (path, run.model.input_name, run.outputs, []))[-1].append((width, height))
    return json.dumps([str(PHOTO), *models.values()])


def measure_startup(*, rounds: int = ROUNDS) -> list[Figure]:
    """Return the figures; each command runs once before it counts, which leaves its files in the page cache.

    The processes take turns. Ratios are of the processor time that they take, which other work on the machine leaves
    nearly alone; the elapsed time is shown besides.
    """
    imports = [run_python("-c", IMPORT)[0].split() for _ in range(rounds + 1)][1:]
    modules = set(imports[0][1:])
    needed = set(run_python("-c", DESCRIBE, str(PHOTO))[0].split())
    commands = {
        "typer": ("-c", TYPER, "--help"),
        "help": ("-m", "vision_backends", "--help"),
        "bare": ("-c", BARE, _bare_arguments()),
        "describe": ("-m", "vision_backends", "describe", str(PHOTO)),
        "status": ("-m", "vision_backends", "status"),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, arguments in commands.items():
            costs[name].append(cost_of_python(*arguments))
    taken_ms = {name: [each.taken_s * 1e3 for each in found[1:]] for name, found in costs.items()}
    cpu_ms = {name: [each.cpu_s * 1e3 for each in found[1:]] for name, found in costs.items()}

    def beside(figure: str, ours: str, theirs: str, *, target: float) -> list[Figure]:
        cpu, elapsed = (
            [own / other for own, other in zip(each[ours], each[theirs], strict=True)] for each in (cpu_ms, taken_ms)
        )
        return [
            measure(f"{figure}: processor time", cpu, "times", target=target),
            measure(f"{figure}: elapsed", elapsed, "times"),
        ]

    return [
        measure("import vision_backends", [float(words[0]) * 1e3 for words in imports], "ms", target=100),
        Figure(name=f"of {', '.join(HEAVY)}: imported", value=len(modules.intersection(HEAVY)), unit="", target=0),
        Figure(name="modules after the import", value=len(modules), unit=""),
        Figure(
            name="of openai, aiohttp, torch, pydantic_settings: imported by vision describe",
            value=len(needed & {"openai", "aiohttp", "torch", "pydantic_settings"}),
            unit="",
            target=0,
        ),
        measure("vision --help, whole process", taken_ms["help"], "ms", target=300),
        measure("vision describe, whole process", taken_ms["describe"], "ms", target=1200),
        measure("vision status, whole process", taken_ms["status"], "ms"),
        *beside("vision --help beside a Typer app of two empty commands", "help", "typer", target=1.3),
        *beside("vision describe beside a bare script", "describe", "bare", target=1.6),
    ]


if __name__ == "__main__":
    show("Startup", measure_startup, options={"rounds": ROUNDS})
