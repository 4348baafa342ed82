"""Runs that nobody has measured: all figures are made up, so that a report of each kind can be written."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from benchmarks.records import (
    Answer,
    Box,
    CallPoint,
    Contestant,
    Example,
    FailoverResult,
    Interval,
    LatencyResult,
    Load,
    Machine,
    Metric,
    Phase,
    Published,
    QualityResult,
    Run,
    Split,
)

PHOTOS = Path(__file__).parents[2] / "benchmarks" / "photos"

DATASET = "synthetic-24"

MACHINE = Machine(
    system="Linux 6.1",
    processor="Made-up CPU",
    cores=2,
    memory_bytes=8_000_000_000,
    python="3.11.2",
    packages={"vision-backends": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.27.0"},
)

MODELS = {
    ("openai", "describe"): "gpt-made-up",
    ("local", "describe"): "Salesforce/blip-image-captioning-base",
    ("embedded", "describe"): "embedded-made-up",
    ("openai", "embed"): "embedding-made-up",
    ("local", "embed"): "sentence-transformers/clip-ViT-B-32",
    ("embedded", "embed"): "efficientnet-made-up",
    ("openai", "detect"): "gpt-made-up",
    ("local", "detect"): "ustc-community/dfine-small-coco",
    ("embedded", "detect"): "nanodet-made-up",
}

SCORES = {
    ("openai", "describe"): {"CIDEr-D": 1.08, "BLEU-4": 0.31, "CLIPScore": 0.79},
    ("local", "describe"): {"CIDEr-D": 0.94, "BLEU-4": 0.30, "CLIPScore": 0.75},
    ("embedded", "describe"): {"CIDEr-D": 0.17, "BLEU-4": 0.04, "CLIPScore": 0.58},
    ("openai", "embed"): {"R@1 text→image": 0.71, "R@1 image↔image": 0.83},
    ("local", "embed"): {"R@1 text→image": 0.63, "R@1 image↔image": 0.80},
    ("embedded", "embed"): {"R@1 text→image": None, "R@1 image↔image": 0.54},
    ("openai", "detect"): {"mAP": 0.284, "mAP50": 0.51},
    ("local", "detect"): {"mAP": 0.472, "mAP50": 0.63},
    ("embedded", "detect"): {"mAP": 0.214, "mAP50": 0.36},
}

MEDIANS_S = {"openai": 1.32, "local": 0.41, "embedded": 0.031}

PRICES_USD = {"openai": 0.42, "local": 0.0, "embedded": 0.0}

PUBLISHED = {
    ("local", "describe"): Published(
        metric="COCO captions CIDEr, Karpathy test split",
        value=133.3,
        source="published: https://arxiv.org/abs/2201.12086, ViT-B with CapFilt-L",
    ),
    ("local", "detect"): Published(
        metric="COCO val2017 box AP, percent", value=48.5, source="published: https://github.com/Peterande/D-FINE"
    ),
    ("embedded", "detect"): Published(
        metric="COCO val2017 box AP, percent", value=22.9, source="published: https://github.com/RangiLyu/nanodet"
    ),
}

PLAN = (
    ("healthy", 0, 20, "openai"),
    ("rate limits", 20, 35, "both"),
    ("quota gone", 35, 65, "embedded"),
    ("recovery", 65, 90, "openai"),
)


def make_contestant(backend: str, task: str, *, random_weights: bool = False) -> Contestant:
    """A rung at a task."""
    published = PUBLISHED.get((backend, task))
    return Contestant(
        backend=backend,
        task=task,
        model=MODELS.get((backend, task)),
        revision=None if backend == "openai" else "0123abc",
        engine={"local": "torch", "embedded": "onnxruntime"}.get(backend),
        device=None if backend == "openai" else "cpu",
        dtype=None if backend == "openai" else "float32",
        random_weights=random_weights,
        parameters=None if backend == "openai" else 86_600_000,
        licence=None if backend == "openai" else "Apache-2.0",
        published=(published,) if published else (),
    )


def make_metric(name: str, value: float | None, *, half: float = 0.06, note: str | None = None) -> Metric:
    """A figure with its interval."""
    return Metric(
        name=name,
        value=value,
        interval=None if value is None else Interval(low=value - half, high=value + half),
        implementation="pycocoevalcap 1.2" if name in {"CIDEr-D", "BLEU-4"} else "made-up 1.0",
        note="it has no text tower" if value is None else note,
        per_class={"person": 0.61, "cat": 0.7} if name == "mAP" else None,
    )


def make_quality(backend: str, task: str, *, random_weights: bool = False, gain: float = 0.0) -> QualityResult:
    """How good a rung was at a task; declined images only in the embedded rung's detection."""
    declined = {"not_supported": 2} if (backend, task) == ("embedded", "detect") else {}
    scores = {} if random_weights else SCORES[backend, task]
    return QualityResult(
        contestant=make_contestant(backend, task, random_weights=random_weights),
        dataset=DATASET,
        images=24,
        answered=24 - sum(declined.values()),
        declined=declined,
        metrics=tuple(
            make_metric(name, None if value is None else value + gain, half=0.15 if name == "CIDEr-D" else 0.05)
            for name, value in scores.items()
        ),
        cost_usd=PRICES_USD[backend] * 24 / 1000,
        median_s=MEDIANS_S[backend],
    )


def make_latency(backend: str, task: str, *, random_weights: bool = False, slower: float = 1.0) -> LatencyResult:
    """How fast a rung was at a task: 60 warm calls."""
    chance = np.random.default_rng(len(backend) * 10 + len(task))
    median_s = MEDIANS_S[backend] * slower * {"describe": 1.0, "embed": 0.4, "detect": 0.8}[task]
    rate = 1 / median_s
    is_remote = backend == "openai"
    return LatencyResult(
        contestant=make_contestant(backend, task, random_weights=random_weights),
        cold_s=tuple(median_s * 2 + chance.uniform(0.5, 0.8, 5) * (1 if is_remote else 3)),
        warm_s=tuple(median_s * chance.lognormal(0, 0.28 if is_remote else 0.09, 60)),
        split=Split(
            decode_s=0.008,
            queue_s=None if is_remote else 0.001,
            model_s=None if is_remote else median_s * 0.7,
            wire_s=median_s * 0.9 if is_remote else None,
            other_s=median_s * 0.05,
        ),
        loads=tuple(
            Load(
                concurrency=size,
                images_per_s=rate * (size**0.9 if is_remote else min(size, 1.6)),
                p50_s=median_s,
                p90_s=median_s * 1.4,
                p99_s=median_s * 2,
                calls=60,
                failed=2 if is_remote and size == 16 else 0,
            )
            for size in (1, 4, 16)
        ),
        memory_bytes={"openai": 120, "local": 1900, "embedded": 210}[backend] * 1_000_000,
        cost_per_1000_usd=PRICES_USD[backend],
    )


def make_day(library: str, *, requests: int = 1, loses: bool = False) -> FailoverResult:
    """One library's day: 360 calls in 90 s, of which some are lost in the third phase where ``loses`` says so."""
    chance = np.random.default_rng(len(library))
    calls = []
    for place in range(360):
        at_s = place / 4
        name, _, _, who = next(part for part in PLAN if part[1] <= at_s < part[2])
        backend = who if who != "both" else ("openai" if chance.random() < 0.6 else "embedded")
        backend = None if loses and name == "quota gone" and chance.random() < 0.3 else backend
        middle_s = {"openai": 0.25, "embedded": 0.032, None: 0.8}[backend]
        taken_s = middle_s * chance.lognormal(0, 0.25)
        error = None if backend else "QuotaExhaustedError"
        calls.append(CallPoint(at_s=at_s, phase=name, backend=backend, elapsed_s=taken_s, error=error))
    return FailoverResult(
        library=library,
        version="1.2.3",
        settings="best settings, no retries underneath",
        phases=tuple(_sum_up(part, calls, requests) for part in PLAN),
        calls=tuple(calls),
    )


def _sum_up(part, calls, requests) -> Phase:
    name, starts_s, ends_s, who = part
    mine = [call for call in calls if call.phase == name]
    p50, p90, p99 = np.percentile([call.elapsed_s for call in mine], [50, 90, 99])
    names = [call.backend or "nobody" for call in mine]
    return Phase(
        name=name,
        starts_s=starts_s,
        ends_s=ends_s,
        calls=len(mine),
        answered_by={each: names.count(each) for each in sorted(set(names))},
        p50_s=p50,
        p90_s=p90,
        p99_s=p99,
        wire_requests=requests if who == "embedded" else len(mine),
        cost_usd=None if who == "both" else 0.001,
    )


def make_example(name: str, *, caption: str = "a made-up caption") -> Example:
    """A real photo with answers that nobody gave."""
    picture = PILImage.open(PHOTOS / f"{name}.jpg").convert("RGB")
    picture.thumbnail((360, 360))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    width, height = picture.size
    box = (width * 0.2, height * 0.15, width * 0.8, height * 0.9)
    small = (width * 0.1, height * 0.5, width * 0.35, height * 0.8)
    near = (width * 0.22, height * 0.1, width * 0.77, height * 0.92)
    return Example(
        image=f"{name}.jpg",
        credit="somebody, CC0, https://example.org/photo",
        thumbnail=f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}",
        width=width,
        height=height,
        captions=(caption, "another made-up caption of the same picture"),
        boxes=(Box(label=name, xyxy=box), Box(label="thing", xyxy=small)),
        answers=(
            _make_answer(
                "openai", 1.4, text=f"A made-up, long and careful description of a {name} before something else."
            ),
            _make_answer("openai", 1.1, boxes=(Box(label=name, xyxy=near, score=0.97),)),
            _make_answer("local", 0.4, text=f"a {name} in front of a wall"),
            _make_answer(
                "local", 0.3, boxes=(Box(label=name, xyxy=near, score=0.9), Box(label="thing", xyxy=small, score=0.4))
            ),
            _make_answer("embedded", 0.03, text=f"Probably a {name}. The main colour is dark blue."),
            _make_answer("embedded", 0.02, boxes=(Box(label="thing", xyxy=box, score=0.51),)),
            _make_answer("embedded", 0.02, nearest=("temple.jpg", "cat.jpg")),
        ),
    )


def _make_answer(backend, elapsed_s, **said) -> Answer:
    return Answer(backend=backend, model=f"{backend}-made-up", elapsed_s=elapsed_s, **said)


def make_run(*, backends=("openai", "local", "embedded"), random_weights=False, gain=0.0, slower=1.0, **changes) -> Run:
    """A whole run: three rungs, three tasks, two libraries and three photos; any field can be changed."""
    pairs = [(backend, task) for task in ("describe", "embed", "detect") for backend in backends]
    fields = {
        "started_at": "2026-11-25T13:22:00+00:00",
        "finished_at": "2026-11-25T13:31:00+00:00",
        "commit": "220d693",
        "command": ("quality", "--limit", "24"),
        "seed": 7,
        "settings": {"options": {"backends": list(backends), "limit": 24}, "configuration": {"ladder": list(backends)}},
        "machine": MACHINE,
        "quality": tuple(
            make_quality(*pair, random_weights=random_weights and pair[0] == "local", gain=gain) for pair in pairs
        ),
        "latency": tuple(
            make_latency(*pair, random_weights=random_weights and pair[0] == "local", slower=slower) for pair in pairs
        ),
        "failover": (make_day("vision-backends"), make_day("a-peer", requests=120, loses=True)),
        "examples": tuple(make_example(name) for name in ("cat", "astronaut", "coffee")),
        "spent_usd": 0.031,
    }
    return Run(**(fields | changes))


def make_part(*results, **changes):
    """A run with these results of quality and latency, and nothing else."""
    timed = tuple(each for each in results if isinstance(each, LatencyResult))
    rated = tuple(each for each in results if not isinstance(each, LatencyResult))
    return make_run(**{"quality": rated, "latency": timed, "failover": (), "examples": ()} | changes)
