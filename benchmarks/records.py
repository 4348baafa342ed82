"""What one run of the benchmark leaves behind: one JSON file, valid by the schema that these records define.

This module decides the shape of results. It must not know how anything is measured or shown. Times are in seconds,
money in US dollars, shares in [0, 1]; None means that a figure was not measured, never 0.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = [
    "Answer",
    "Box",
    "CallPoint",
    "Contestant",
    "Example",
    "FailoverResult",
    "Interval",
    "LatencyResult",
    "Lateness",
    "Load",
    "Machine",
    "Metric",
    "Phase",
    "Published",
    "QualityResult",
    "Run",
    "Split",
]

SCHEMA_VERSION: Literal["vision-backends-benchmark/1"] = "vision-backends-benchmark/1"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(_Record):
    """A 95 % confidence interval."""

    low: float
    high: float


class Published(_Record):
    """A figure that somebody else published; stands beside measured ones, never among them."""

    metric: str
    value: float
    source: str


class Contestant(_Record):
    """Who was measured: one rung with the model that answered.

    Attributes:
        backend: Name of the rung, such as ``"local"``.
        task: ``"describe"``, ``"embed"`` or ``"detect"``.
        model: As its publisher writes it; None where nothing answered.
        revision: Its exact version, where it has one.
        engine: What ran it, such as ``"openvino"``; None where that is unknown.
        device: Where it ran, such as ``"cpu"``.
        dtype: Numbers it ran in, such as ``"float32"``.
        random_weights: True when the weights are random: its times are real, its quality was not measured.
        parameters: How many weights, from the model's card.
        licence: From the model's card.
        published: Figures of the model's card.
    """

    backend: str
    task: Literal["describe", "embed", "detect"]
    model: str | None = None
    revision: str | None = None
    engine: str | None = None
    device: str | None = None
    dtype: str | None = None
    random_weights: bool = False
    parameters: int | None = None
    licence: str | None = None
    published: tuple[Published, ...] = ()


class Metric(_Record):
    """One measured figure of quality.

    Attributes:
        name: The field's own name, such as ``"CIDEr-D"`` or ``"mAP"``.
        value: The figure; None when it could not be measured, then ``note`` says why.
        interval: By bootstrap over images.
        higher_is_better: Direction.
        implementation: Package and version that computed it.
        note: What a reader has to know beside it, such as the tokenizer used.
        per_class: For detection, the same figure for each class.
    """

    name: str
    value: float | None
    interval: Interval | None = None
    higher_is_better: bool = True
    implementation: str
    note: str | None = None
    per_class: dict[str, float] | None = None


class QualityResult(_Record):
    """How good one rung's answers were.

    Attributes:
        contestant: Who was measured.
        dataset: Name of the data set and split.
        images: How many images were asked about.
        answered: How many were answered.
        declined: Error kind by how often it was the reason for no answer.
        reason: Why the first image that got no answer got none, in a sentence.
        metrics: The figures, over answered images; the notes say how declined ones count.
        cost_usd: What all answers cost; None where the provider does not say.
        median_s: Median seconds of an answer, one at a time.
    """

    contestant: Contestant
    dataset: str
    images: int
    answered: int
    declined: dict[str, int] = {}
    reason: str | None = None
    metrics: tuple[Metric, ...] = ()
    cost_usd: float | None = None
    median_s: float | None = None


class Split(_Record):
    """Where the time of a warm call goes, medians; what is unknown is None, ``other_s`` is the rest."""

    decode_s: float | None = None
    queue_s: float | None = None
    model_s: float | None = None
    wire_s: float | None = None
    other_s: float | None = None


class Load(_Record):
    """What so many callers at once get."""

    concurrency: int
    images_per_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    calls: int
    failed: int = 0


class LatencyResult(_Record):
    """How fast one rung answers.

    Attributes:
        contestant: Who was measured.
        cold_s: Seconds of the first answer in fresh processes, import and load included.
        warm_s: Seconds of single warm calls, in the order of measuring; rungs took turns.
        split: Where a warm call's time goes.
        loads: Throughput and latency at rising concurrency.
        memory_bytes: Peak resident memory of a fresh process that gave one answer.
        cost_per_1000_usd: What a thousand answers cost.
        note: What a reader has to know beside it.
    """

    contestant: Contestant
    cold_s: tuple[float, ...] = ()
    warm_s: tuple[float, ...] = ()
    split: Split = Split()
    loads: tuple[Load, ...] = ()
    memory_bytes: int | None = None
    cost_per_1000_usd: float | None = None
    note: str | None = None


class CallPoint(_Record):
    """One call of the played day.

    Attributes:
        at_s: When it was due, from the start of the day.
        phase: The part of the day.
        backend: Who answered; None for nobody.
        elapsed_s: How long it took, from when it was due.
        late_s: How much of that passed before it was issued; None where that was not measured.
        error: Why nobody answered.
    """

    at_s: float
    phase: str
    backend: str | None
    elapsed_s: float
    late_s: float | None = None
    error: str | None = None


class Lateness(_Record):
    """How late a day was played, beside its plan.

    Attributes:
        p50_s: Median of how long after it was due a call was issued.
        p99_s: Ninety-ninth percentile.
        max_s: The latest call.
        turns_max_s: How long after it was due the upper server did what it was to do, at most.
    """

    p50_s: float
    p99_s: float
    max_s: float
    turns_max_s: float


class Phase(_Record):
    """One part of the played day, such as ``"rate limits"``.

    Attributes:
        name: What the upper server did.
        starts_s: When it began, from the start of the day.
        ends_s: When it ended.
        calls: How many calls were made in it.
        answered_by: Backend by number of answers; failures under ``"nobody"``.
        p50_s: Median seconds of a call.
        p90_s: Ninetieth percentile.
        p99_s: Ninety-ninth percentile.
        wire_requests: Requests that reached the upper server.
        cost_usd: What the answers cost.
    """

    name: str
    starts_s: float
    ends_s: float
    calls: int
    answered_by: dict[str, int]
    p50_s: float
    p90_s: float
    p99_s: float
    wire_requests: int
    cost_usd: float | None = None


class FailoverResult(_Record):
    """How one library came through the same day.

    Attributes:
        library: ``"vision-backends"`` or a peer's name.
        version: Its version.
        settings: How it was set up, in words.
        phases: The day's parts in order.
        lateness: How late it was played; None where that was not measured.
        calls: Every call, for the time line; may be thinned out evenly.
    """

    library: str
    version: str
    settings: str
    phases: tuple[Phase, ...]
    lateness: Lateness | None = None
    calls: tuple[CallPoint, ...] = ()


class Box(_Record):
    """One found object, in pixels of the thumbnail; ``score`` is None for the truth."""

    label: str
    xyxy: tuple[float, float, float, float]
    score: float | None = None


class Answer(_Record):
    """What one rung said about an example image."""

    backend: str
    model: str | None = None
    random_weights: bool = False
    text: str | None = None
    boxes: tuple[Box, ...] | None = None
    nearest: tuple[str, ...] | None = None
    declined: str | None = None
    elapsed_s: float | None = None


class Example(_Record):
    """One image with what was said about it.

    Attributes:
        image: Its name in the data set.
        credit: Author and licence.
        thumbnail: JPEG as a ``data:`` URL, at most 360 pixels on the longer side.
        width: Pixels of the thumbnail.
        height: Pixels of the thumbnail.
        captions: The data set's own.
        boxes: The data set's own.
        answers: One for each rung and task.
    """

    image: str
    credit: str | None = None
    thumbnail: str
    width: int
    height: int
    captions: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    answers: tuple[Answer, ...] = ()


class Machine(_Record):
    """Where it was measured."""

    system: str
    processor: str
    cores: int
    memory_bytes: int | None
    accelerators: tuple[str, ...] = ()
    python: str
    packages: dict[str, str]


class Run(_Record):
    """One run of the benchmark.

    Attributes:
        version: Version of this schema.
        started_at: ISO 8601 in UTC.
        finished_at: The same; None while it is unfinished, so that it can be resumed.
        commit: Of the checkout, with ``-dirty`` where files differ; None outside one.
        program: What was typed to start it, such as ``"vision bench"``.
        command: The arguments, such as ``["quality", "--limit", "20"]``.
        seed: Of every random choice.
        settings: All options in force, and the configuration without secrets.
        machine: Where.
        photos: Tells the photos that were asked about from all others, by their names and contents; None without any.
        quality: One result per rung and task.
        latency: The same.
        failover: One result per library.
        examples: Images with what each rung said.
        spent_usd: What the whole run has cost.
        stopped: Why it ended early, such as the budget; None when it did not.
    """

    version: Literal["vision-backends-benchmark/1"] = SCHEMA_VERSION
    started_at: str
    finished_at: str | None = None
    commit: str | None = None
    program: str = "vision bench"
    command: tuple[str, ...]
    seed: int
    settings: dict[str, object]
    machine: Machine
    photos: str | None = None
    quality: tuple[QualityResult, ...] = ()
    latency: tuple[LatencyResult, ...] = ()
    failover: tuple[FailoverResult, ...] = ()
    examples: tuple[Example, ...] = ()
    spent_usd: float | None = None
    stopped: str | None = None
