"""How long a start takes: importing the package, and running the command line in fresh processes."""

from __future__ import annotations

from timing import PHOTOS, Figure, measure, run_python, show

ROUNDS = 15

HEAVY = ("torch", "transformers", "onnxruntime", "openai")

IMPORT = """
import sys, time
started = time.perf_counter()
import vision_backends
print(time.perf_counter() - started, *sys.modules)
"""


def measure_startup() -> list[Figure]:
    """Return the figures; each command runs once before it counts, which leaves its files in the page cache."""
    imports = [run_python("-c", IMPORT)[0].split() for _ in range(ROUNDS + 1)][1:]
    modules = set(imports[0][1:])
    commands = {
        "vision --help, whole process": (["--help"], 300),
        "vision describe, whole process": (["describe", str(PHOTOS / "cat.jpg")], 1200),
    }
    taken_s: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS + 1):
        for name, (arguments, _) in commands.items():
            taken_s[name].append(run_python("-m", "vision_backends", *arguments)[1])
    return [
        measure("import vision_backends", [float(words[0]) * 1e3 for words in imports], "ms", target=100),
        Figure(name=f"of {', '.join(HEAVY)}: imported", value=len(modules.intersection(HEAVY)), unit="", target=0),
        Figure(name="modules after the import", value=len(modules), unit=""),
        *(
            measure(name, [seconds * 1e3 for seconds in taken_s[name][1:]], "ms", target=target)
            for name, (_, target) in commands.items()
        ),
    ]


if __name__ == "__main__":
    show("Startup", measure_startup)
