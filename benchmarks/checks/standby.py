"""What warm standby saves: the first answer of the local rung after the quota of the better one is exhausted.

The real SDK calls the sandbox, which answers a few calls, refuses one by its rate limit, answers again, and then has
no quota left. The rung below is BLIP at its published size, with random weights: its times are real, its words are not.
Each variant is measured in fresh processes, in turns.

An answer takes seconds, and on a busy machine twice as long from one moment to the next, so that the ratio of two
answers hardly shows whether a model had to be loaded. What does is the part of the local rung's own time in which it
neither decoded nor computed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from timing import PHOTOS, ROOT, Figure, measure, run_python, show

from benchmarks.sandbox_process import API_KEY, RemoteSandbox

sys.path.insert(0, str(ROOT))

from benchmarks.weights import make_checkpoint

PHOTO = PHOTOS / "cat.jpg"

TOO_FAST = {
    "name": "too fast",
    "status": 429,
    "body": {"error": {"message": "Too fast.", "type": "requests", "code": "rate_limit_exceeded"}},
    "headers": {"retry-after": "1"},
}
"""A sign of trouble that the call itself survives, since the better answer is worth waiting a second for."""

DAY = {
    "steps": [
        {"play": "healthy", "times": 3},
        {"play": TOO_FAST},
        {"play": "healthy"},
        {"play": "quota_gone", "times": None},
    ]
}

WAYS = {"without": "off", "with warm standby": "standby", "with router.warm_up() at the start": "asked"}

DAY_OF_A_PROCESS = """
import json, sys, time
from vision_backends import Router
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.openai import OpenAIBackend

url, key, photo, model, way, pause_s = sys.argv[1:]
others = dict.fromkeys(("embedding_model", "detection_model", "open_vocabulary_model"), "")
ladder = [OpenAIBackend(api_key=key, base_url=url), LocalBackend(caption_model=model, engine="torch", **others)]

def ask():
    started = time.perf_counter()
    trace = router.describe(photo, max_words=8).trace
    seconds = time.perf_counter() - started
    working_s = (trace.timing.decode_s or 0.0) + (trace.timing.model_s or 0.0)
    return trace.backend, seconds, trace.attempts[-1].elapsed_s - working_s

with Router(ladder, caching=False, warm_standby=way == "standby") as router:
    if way == "asked":
        router.warm_up(["describe"], backend="local", wait_s=300)
    good = [ask() for _ in range(4)]
    time.sleep(float(pause_s))
    first, *later = [ask() for _ in range(4)]
    assert {each[0] for each in good} == {"openai"} and {each[0] for each in [first, *later]} == {"local"}
    print(json.dumps({"first": first[1], "waited": first[2], "later": [each[1] for each in later]}))
"""
"""Prints the seconds of the local rung's first answer, how many of them it waited for the model, and later answers'."""


def measure_standby(processes: int, pause: int) -> list[Figure]:
    """Return the figures.

    Args:
        processes: How many fresh processes are measured for each variant.
        pause: Seconds between the first sign of trouble and the first call without quota.
    """
    first_s: dict[str, list[float]] = {way: [] for way in WAYS}
    waited_s: dict[str, list[float]] = {way: [] for way in WAYS}
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder, RemoteSandbox.started() as sandbox:
        model = make_checkpoint("caption", Path(folder), seed=1)
        for _ in range(processes):
            for way, argument in WAYS.items():
                sandbox.play(DAY)
                said, _ = run_python(
                    "-c", DAY_OF_A_PROCESS, sandbox.url, API_KEY, str(PHOTO), str(model), argument, str(pause)
                )
                times = json.loads(said)
                first_s[way].append(times["first"])
                waited_s[way].append(times["waited"])
                ratios[way].append(times["first"] / median(times["later"]))
    figures = []
    for way in WAYS:
        without = way == "without"
        ms = [[each * 1e3 for each in seconds[way]] for seconds in (first_s, waited_s)]
        figures += [
            measure(f"first degraded answer, {way}", ms[0], "ms"),
            measure("… of this, waited for the model", ms[1], "ms", target=None if without else 100),
            measure("… ÷ later ones of its process", ratios[way], "", target=None if without else 1.2),
        ]
    return figures


if __name__ == "__main__":
    show("Warm standby", measure_standby, options={"processes": 5, "pause": 15})
