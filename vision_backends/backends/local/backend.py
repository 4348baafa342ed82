"""The local rung: Hugging Face models on this machine, loaded when they are first needed.

This module ties checkpoints, loading and models to the interface of a rung. It decides what the rung can answer, and
what it reports until it can; the modules beside it decide how anything is computed.
"""

from __future__ import annotations

import _thread
import os
import weakref
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from vision_backends.backends.base import AsyncBackend, rehearse
from vision_backends.backends.local.capabilities import ClosedVocabulary, check_caption, check_space
from vision_backends.backends.local.configured_model import LocalModel, Role
from vision_backends.backends.local.hub.hub import Hub, HuggingFaceHub
from vision_backends.backends.local.runtime.engines import EngineName  # noqa: TC001 — a key of the table is read by its type
from vision_backends.backends.local.runtime.idle_unload import IdleWatch
from vision_backends.backends.local.runtime.loader import BATCH, LoaderSettings, was_forked_while_loading
from vision_backends.backends.local.runtime.memory import give_back_memory
from vision_backends.backends.local.runtime.precision import Dtype  # noqa: TC001 — the same
from vision_backends.backends.local.runtime.timed_lookup import TimedLookup
from vision_backends.backends.local.runtime.torch_environment import check_packages
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.backends.requests import (
    AskRequest,
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    Model,
)
from vision_backends.backends.rung_names import in_own_words
from vision_backends.backends.structured import ask_again, in_words, read_data
from vision_backends.clock import SYSTEM_CLOCK, Clock, Deadline, Stopwatch
from vision_backends.config.found import FREELY, ordered
from vision_backends.engine.event_loop import engine_loop
from vision_backends.engine.threads import awaited_at_exit
from vision_backends.errors import ConfigError, InvalidReplyError, NotReadyError, NotSupportedError
from vision_backends.types import FREE, Description, Detections, Embedding, Reply, Trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vision_backends.backends.local.models.detector import ClosedDetector, OpenDetector
    from vision_backends.backends.local.models.embedder import Embedder
    from vision_backends.backends.local.models.roles import Engine
    from vision_backends.backends.requests import Request
    from vision_backends.images import Image
    from vision_backends.types import Detection

__all__ = ["LocalBackend"]

NUMBERS = "p5"
"""Changes with anything that changes answers, apart from the checkpoint."""

EXPECTED_S = {"describe": 2.0, "ask": 2.0, "embed": 0.2, "embed_text": 0.1, "detect": 1.0}
LOADING_S = 5.0
"""Rough times on two cores; the first call also imports torch and reads the weights. Measured with random weights of
the default sizes: 0.08 s for an embedding, 1.4 s for a caption of 20 tokens, 3.4 s more for a first call that finds its
files in the page cache."""

FETCHING_LESS = ordered("never", "background", "wait")
"""What a configuration file that was only found may set."""

LONGEST_END_S = 5.0
"""How long the interpreter's exit waits while the models of a dropped backend are freed."""

T = TypeVar("T")


class LocalBackend(AsyncBackend):
    """BLIP, CLIP and DETR-family models, run by transformers on a GPU or the CPU.

    Every model is a name on the hub (``"org/name"``, ``"org/name@revision"``) or a folder. Only safetensors weights are
    loaded, and code from a checkpoint is never run; once a model is fetched, the network is not used again. Close the
    backend before the process forks, or start workers with ``spawn``: torch's threads do not survive a fork.

    Args:
        device: ``"auto"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"cpu"``.
        caption_model: Model for descriptions: BLIP, BLIP-2 or Florence-2, which write captions, or an image-text-
            to-text model with a chat template, such as SmolVLM or Qwen-VL, which also follows prompts.
        embedding_model: Model for embeddings of images and texts: CLIP or SigLIP, plain or from sentence-transformers.
        detection_model: Model for a closed vocabulary: D-FINE, RT-DETR, RF-DETR, LW-DETR, a DETR variant or YOLOS.
        open_vocabulary_model: Model for arbitrary labels: Grounding DINO, MM Grounding DINO, OWLv2 or OWL-ViT; with
            ``""`` there is none, and labels have to be in the detection model's vocabulary.
        download: When weights that are not on this machine are fetched: ``"never"``; ``"background"``: from the first
            request on, while the next rung answers; ``"wait"``: by the first request, which waits for them.
        caption_beams: Beams for beam search; more are slower. By default as many as the checkpoint is configured for,
            usually 1.
        caption_seed: Samples captions, reproducibly for one seed; by default nothing is sampled.
        min_score: Lowest score that `detect` reports unless a request says otherwise, in [0, 1]; open-vocabulary models
            use the lower thresholds of their publishers.
        dtype: Precision to compute in: ``"auto"`` is 16-bit on a GPU, and on a CPU that supports it and was measured to
            be faster with it; or ``"float32"``, ``"bfloat16"``, ``"float16"``.
        engine: ``"auto"`` lets OpenVINO, where it is installed (extra ``[openvino]``), compute those parts of models on
            a CPU for which its results agree with torch's; ``"openvino"`` also requires that it is installed;
            ``"torch"`` never uses it.
        threads: Threads per model; by default as many as the application lets torch use, and no more than there are
            processors for this process. Torch's setting for the rest of the process is left alone.
        max_queue: Inputs that may wait for one model; more are refused, so that the next rung answers.
        max_memory_bytes: Most memory that loading one model may take; by default what is free.
        idle_unload_s: Seconds without use after which a model is dropped from memory, to be loaded again when it is
            needed; by default models stay loaded.
        hub: Where models are fetched from by name.
        tuning_cache: Where measurements and converted parts are kept; by default in the user's cache folder.
        clock: Where time comes from.

    Raises:
        ConfigError: A value is not valid.
    """

    name = "local"

    @in_own_words
    def __init__(  # noqa: PLR0913 — each is a key of its table
        self,
        *,
        device: str = "auto",
        caption_model: str = "Salesforce/blip-image-captioning-base",
        embedding_model: str = "sentence-transformers/clip-ViT-B-32",
        detection_model: str = "ustc-community/dfine-small-coco",
        open_vocabulary_model: str = "IDEA-Research/grounding-dino-tiny",
        download: Annotated[Literal["never", "background", "wait"], FETCHING_LESS] = "background",
        caption_beams: int | None = None,
        caption_seed: int | None = None,
        min_score: Annotated[float, FREELY] = 0.5,
        dtype: Dtype = "auto",
        engine: EngineName = "auto",
        threads: int | None = None,
        max_queue: int = 64,
        max_memory_bytes: int | None = None,
        idle_unload_s: float | None = None,
        hub: Hub | None = None,
        tuning_cache: TuningCache | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not 0.0 <= min_score <= 1.0:
            raise ConfigError(f"[local] min_score = {min_score} is not between 0 and 1.")
        if idle_unload_s is not None and not idle_unload_s > 0:
            raise ConfigError(
                f"[local] idle_unload_s = {idle_unload_s} is not positive.",
                remedy="Leave it out to keep models loaded.",
            )
        if caption_beams is not None and (caption_beams < 1 or caption_seed is not None):
            message = f"[local] caption_beams = {caption_beams} is less than 1, or set together with caption_seed."
            raise ConfigError(message, remedy="Set it to at least 1 without caption_seed, or leave it out.")
        settings = LoaderSettings(
            device=device,
            dtype=dtype,
            engine=engine,
            threads=threads,
            max_queue=max_queue,
            max_memory_bytes=max_memory_bytes,
            tuning_cache=tuning_cache or TuningCache(),
        )
        names: dict[Role, str] = {
            "caption": caption_model,
            "embedding": embedding_model,
            "detection": detection_model,
            "open_vocabulary": open_vocabulary_model,
        }
        source = hub or HuggingFaceHub()
        self._models = {
            role: LocalModel(name, role=role, download=download, settings=settings, hub=source, clock=clock)
            for role, name in names.items()
            if name
        }
        self._clock = clock
        self._min_score = min_score
        self._dtype, self._engine = dtype, engine
        self._caption_beams, self._caption_seed = caption_beams, caption_seed
        self._vocabulary: ClosedVocabulary | None = None
        self._check_packages = TimedLookup(partial(check_packages, engine=engine), clock=clock)
        self._idle = (
            IdleWatch([*self._models.values()], idle_s=idle_unload_s, on_dropped=give_back_memory)
            if idle_unload_s is not None
            else None
        )
        self._forked = False
        dropped = weakref.finalize(self, _free_later, [*self._models.values()], self._idle, os.getpid())
        dropped.atexit = False
        if hasattr(os, "register_at_fork"):
            this = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _mark_forked(this()))

    def model_for(self, request: Request) -> Model:
        """Return the configured model; its revision is None until it is on this machine, unless it is pinned."""
        model = self._model(request)
        embeds = isinstance(request, EmbedRequest | EmbedTextRequest)
        fingerprint = f"{NUMBERS}-{self._dtype}-{self._engine}"
        if isinstance(request, DetectRequest):
            fingerprint += f"-{self._min_score:g}"
        elif isinstance(request, DescribeRequest | AskRequest):
            fingerprint += f"-{self._caption_beams}-{self._caption_seed}"
        return Model(
            name=model.name,
            revision=model.revision,
            fingerprint=fingerprint,
            space=model.space if embeds else None,
        )

    def check(self, request: Request) -> None:
        """Return if the rung can answer, now or after a fetch that it may wait for; imports and fetches nothing."""
        self._check_process()
        self._check_request(request)
        self._model(request).check()

    def warm_up(self, request: Request) -> None:
        """Fetch a model where that is allowed, load it and run it once."""
        self._check_process()
        self._check_request(request)
        model = self._model(request)
        model.load()
        self._watch_idle()
        self._check_request(request)  # again, as it is known only now what the model can do
        if model.needs_rehearsal(request.task):
            rehearse(self, request)

    def batch_size(self, request: Request) -> int:  # noqa: ARG002 — the same for all
        """Return 16, two of the model's batches: while it works on one, the next is decoded and scaled."""
        return 2 * BATCH

    def concurrency(self, request: Request) -> int:  # noqa: ARG002 — the same for all
        """Return 2, so that the model never waits for the next call."""
        return 2

    def image_px(self, request: Request) -> int | None:
        """Return how long the shorter side of an image has to be for the model; None while that is unknown."""
        checkpoint = self._model(request).checkpoint
        return checkpoint.image_px if checkpoint is not None else None

    def expected_s(self, request: Request) -> float:
        """Return roughly what one call takes on two cores, including the load if it is still to come."""
        return EXPECTED_S[request.task] + (0.0 if self._model(request).loaded else LOADING_S)

    async def describe(  # type: ignore[override]  # a coroutine, as in `AsyncBackend`
        self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float
    ) -> list[Description]:
        """Describe each image; plain captions are in English."""
        from vision_backends.backends.local.models.captioner import Captioner

        deadline = Deadline(self._clock, timeout_s)
        with self._answering(request) as watch:
            captioner = await self._load(request, Captioner, deadline)
            captions = await captioner.caption(
                images,
                deadline=deadline,
                prompt=request.prompt,
                language=request.language,
                max_words=request.max_words,
                num_beams=self._caption_beams,
                seed=self._caption_seed,
            )
        language = request.language or ("en" if captioner.plain else None)
        trace = self._trace(request, watch, captioner)
        return [Description(text=text, language=language, complete=done, trace=trace) for text, done in captions]

    async def embed(  # type: ignore[override]
        self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Embed each image in the space that texts share; no vector depends on what else is in its batch."""
        deadline = Deadline(self._clock, timeout_s)
        with self._answering(request) as watch:
            embedder, space = await self._embedder(request, deadline)
            vectors = await embedder.embed_images(images, deadline=deadline)
        trace = self._trace(request, watch, embedder)
        return [Embedding(vector=vector, space=space, trace=trace) for vector in vectors]

    async def embed_text(  # type: ignore[override]
        self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Embed each text in the space that images share."""
        deadline = Deadline(self._clock, timeout_s)
        with self._answering(request) as watch:
            embedder, space = await self._embedder(request, deadline)
            read = await embedder.embed_texts(texts, truncate=request.truncate, deadline=deadline)
        trace = self._trace(request, watch, embedder)
        return [
            Embedding(vector=vector, space=space, trace=replace(trace, notes=(unread,) if unread else ()))
            for vector, unread in read
        ]

    async def detect(  # type: ignore[override]
        self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float
    ) -> list[Detections]:
        """Find the objects of the closed vocabulary, or what the labels name."""
        deadline = Deadline(self._clock, timeout_s)
        with self._answering(request) as watch:
            detector, found, unread = await self._find(images, request, deadline)
        trace = replace(self._trace(request, watch, detector), notes=unread)
        return [
            Detections(items=tuple(items), width=image.width, height=image.height, trace=trace)
            for image, items in zip(images, found, strict=True)
        ]

    async def ask(  # type: ignore[override]
        self, questions: Sequence[Sequence[Image]], request: AskRequest, *, timeout_s: float
    ) -> list[Reply]:
        """Answer a question about one image; one that does not follow the schema is asked once more."""
        deadline = Deadline(self._clock, timeout_s)
        self._check_request(request)
        return [await self._answer(image, request, deadline) for (image,) in questions]

    async def _answer(self, image: Image, request: AskRequest, deadline: Deadline) -> Reply:
        (said,) = await self.describe([image], _instruction(request), timeout_s=deadline.remaining_s)
        read = engine_loop().compute.start
        try:
            data = await read(partial(read_data, said.text, request))
        except InvalidReplyError as error:
            again = ask_again(request, said.text, error)
            try:
                (said,) = await self.describe([image], _instruction(again), timeout_s=deadline.remaining_s)
            except NotSupportedError:  # a small model does not read as much
                raise error from None
            data = await read(partial(read_data, said.text, request))
        return Reply(text=said.text, data=data, complete=said.complete, trace=said.trace)

    def status(self) -> Mapping[str, Any]:
        """Return which models are loaded, where and how large, and why others are not."""
        return {role: model.status() for role, model in self._models.items()}

    def close(self) -> None:
        """Free the models' memory; a later call loads them again."""
        _free([*self._models.values()], self._idle)

    def _watch_idle(self) -> None:
        if self._idle is not None:
            self._idle.start()

    @contextmanager
    def _answering(self, request: Request) -> Iterator[Stopwatch]:
        """Keep a call's model from being dropped while the call runs, and measure where its time goes."""
        with self._model(request).in_use(request.task), Stopwatch(clock=self._clock).running() as watch:
            self._watch_idle()
            yield watch

    def _model(self, request: Request) -> LocalModel:
        if isinstance(request, DescribeRequest | AskRequest):
            role: Role = "caption"
        elif isinstance(request, DetectRequest):
            role = "open_vocabulary" if request.labels and "open_vocabulary" in self._models else "detection"
        else:
            role = "embedding"
        if role not in self._models:
            raise self._unsupported(request)
        return self._models[role]

    async def _load(self, request: Request, kind: type[T], deadline: Deadline) -> T:
        """Return the loaded model that answers a request."""
        self._check_process()
        self._check_request(request)
        made = await self._model(request).get(deadline)
        self._check_request(request)  # again, as it is known only now what the model can do
        if not isinstance(made, kind):
            raise self._unsupported(request)
        return made

    async def _embedder(self, request: EmbedRequest | EmbedTextRequest, deadline: Deadline) -> tuple[Embedder, str]:
        """Return the embedder and its space.

        Raises:
            NotReadyError: Its revision has only just become known, so this is not the space that was announced.
        """
        from vision_backends.backends.local.models.embedder import Embedder

        announced = self.model_for(request).space
        embedder = await self._load(request, Embedder, deadline)
        space = self._model(request).space_at(embedder.loaded.checkpoint.revision)
        if space != announced:
            message = f"The weights have just arrived or changed: vectors are now in the space {space!r}."
            raise NotReadyError(message, remedy="Ask again.", code="space_became_known", retry_after_s=0.1)
        return embedder, space

    async def _find(
        self, images: Sequence[Image], request: DetectRequest, deadline: Deadline
    ) -> tuple[ClosedDetector | OpenDetector, list[list[Detection]], tuple[str, ...]]:
        """Return the detector, the objects that it found in each image, and which parts of the labels were not read."""
        from vision_backends.backends.local.models.detector import ClosedDetector, OpenDetector

        if request.labels and "open_vocabulary" in self._models:
            opened = await self._load(request, OpenDetector, deadline)
            found, unread = await opened.detect(
                images,
                labels=request.labels,
                min_score=request.min_score,
                truncate=request.truncate,
                deadline=deadline,
            )
            return opened, found, unread
        closed = await self._load(request, ClosedDetector, deadline)
        least = self._min_score if request.min_score is None else request.min_score
        found = await closed.detect(images, wanted=self._wanted(request), min_score=least, deadline=deadline)
        return closed, found, ()

    def _check_process(self) -> None:
        if self._forked or was_forked_while_loading():
            raise NotReadyError(
                "This process was forked from one that had loaded local models; torch would hang in it.",
                remedy="Start workers with spawn or forkserver, or fork before the first request.",
                backend=self.name,
                code="forked",
            )
        self._check_packages()

    def _check_request(self, request: Request) -> None:
        """Refuse what the model can never do, as far as that is already known."""
        if isinstance(request, EmbedRequest | EmbedTextRequest):
            check_space(request, self._model(request).space)
        elif isinstance(request, DetectRequest):
            self._wanted(request)
            return
        if isinstance(request, AskRequest):
            if request.images > 1:
                raise NotSupportedError(
                    f"The {self.name} backend answers questions about one image, not about {request.images}.",
                    remedy="Ask about one image, or put a backend on the ladder that takes several.",
                    backend=self.name,
                )
            request = _instruction(request)
        if isinstance(request, DescribeRequest) and (checkpoint := self._model(request).checkpoint) is not None:
            check_caption(request, checkpoint)

    def _wanted(self, request: DetectRequest) -> dict[str, str] | None:
        """Return the closed vocabulary's names to report, each with the caller's word for it; None for all."""
        checkpoint = self._model(request).checkpoint
        if request.labels is None or "open_vocabulary" in self._models or checkpoint is None:
            return None
        if self._vocabulary is None or self._vocabulary.checkpoint is not checkpoint:
            self._vocabulary = ClosedVocabulary(checkpoint)
        return self._vocabulary.wanted(request.labels)

    def _trace(self, request: Request, watch: Stopwatch, engine: Engine) -> Trace:
        """Return the trace of what an engine has answered; by now the model may be loaded from other files."""
        revision = engine.loaded.checkpoint.revision
        return Trace(model=self._model(request).name, revision=revision, usage=FREE, timing=watch.timing)


def _instruction(request: AskRequest) -> DescribeRequest:
    """Return a question as the instruction that a chat template takes, which may know no system's words."""
    form = None if request.schema is None else in_words(request.schema)
    return DescribeRequest(prompt="\n\n".join(filter(None, (request.system, request.prompt, form))))


def _free(models: Sequence[LocalModel], idle: IdleWatch | None) -> None:
    """Free the memory of models."""
    if idle is not None:
        idle.stop()
    was_loaded = any(model.touched for model in models)
    for model in models:
        model.close()
    if was_loaded:
        give_back_memory()


def _free_later(models: Sequence[LocalModel], idle: IdleWatch | None, pid: int) -> None:
    """Free the models of a backend that was dropped, instead of when Python finds time for circular references.

    In a thread of its own, and started without any lock: Python may drop a backend anywhere, even where a lock of these
    models, or of the module threading, is held.
    """
    if os.getpid() == pid and any(model.touched for model in models):
        with suppress(RuntimeError):  # the system starts no more threads
            _thread.start_new_thread(_free_now, (models, idle))


def _free_now(models: Sequence[LocalModel], idle: IdleWatch | None) -> None:
    with suppress(NotReadyError), awaited_at_exit(LONGEST_END_S):
        _free(models, idle)


def _mark_forked(backend: LocalBackend | None) -> None:
    """Tell a backend that it is in a forked child: its own threads and torch's exist only in the parent."""
    if backend is None:
        return
    for model in backend._models.values():  # noqa: SLF001 — the same module
        backend._forked |= model.touched  # noqa: SLF001
        model.after_fork()
    if backend._idle is not None:  # noqa: SLF001
        backend._idle.after_fork()  # noqa: SLF001
