"""The last rung: three small models that ship with the package and run on any CPU, immediately and offline.

This module ties models, evidence, template and the joint space to the interface of a rung. It decides what the rung can
answer; the modules beside it decide how that is computed.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from importlib.metadata import version
from pathlib import Path  # noqa: TC003 — the configuration reads the constructor's annotations
from queue import Empty
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args
from weakref import WeakKeyDictionary

from vision_backends.backends.base import Backend, rehearse
from vision_backends.backends.embedded.rapid_ocr import RapidOcr
from vision_backends.backends.embedded.reading import Reader
from vision_backends.backends.embedded.session import OnnxModel, default_threads
from vision_backends.backends.embedded.small_ocr import SmallOcr
from vision_backends.backends.embedded.word_vectors import WordVectors
from vision_backends.backends.model_cards import asset, coco_categories, model_card
from vision_backends.backends.requests import (
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    Model,
)
from vision_backends.backends.rung_names import in_own_words
from vision_backends.backends.vocabulary import joined, match_labels
from vision_backends.clock import SYSTEM_CLOCK, Clock, Stopwatch, measured
from vision_backends.config.found import FREELY
from vision_backends.engine.machine_limits import processors
from vision_backends.engine.threads import after_fork_in_child, finished_before_fork, make_queue
from vision_backends.errors import ConfigError, NotSupportedError, TimedOutError
from vision_backends.foreign_text import quote
from vision_backends.types import FREE, Description, Detections, Embedding, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from PIL import Image as PILImage

    from vision_backends.backends.embedded.evidence import Observer
    from vision_backends.backends.embedded.joint_space import JointSpace
    from vision_backends.backends.embedded.models import Classifier, Detector, Look
    from vision_backends.backends.embedded.reading import Ocr
    from vision_backends.backends.model_cards import ModelCard
    from vision_backends.backends.requests import Request
    from vision_backends.images import Image

__all__ = ["EmbeddedBackend"]

DETECTOR = "nanodet-g-416"
CLASSIFIER = "efficientnet-lite0-224"
WORDS = "minilm-l6-static-128"
TEXT_DETECTOR = "pp-ocrv6-tiny-det"
TEXT_RECOGNISER = "pp-ocrv6-tiny-rec"

OcrName = Literal["small", "rapidocr", "off"]

READING_PX = 1280
"""Shorter side of the pixels in which text is read, where there is some."""

PREPROCESSING = "p2"
"""Changes with anything that changes boxes or vectors apart from the model files."""

WORDING = "w4"
"""Changes with anything that changes descriptions apart from the model files."""

READING = "t3"
"""Changes with anything that changes which text is read, apart from the models."""

JOINING = "j1"
"""Changes with anything that changes vectors of the joint space apart from the model files and the preprocessing."""

NOT_LOCALISED = (
    "The detector has no word for {}: a box is that of another of its words; the rest is of the whole image."
)
"""Said of answers to labels of any words."""

LABELLING = "l2"
"""Changes with anything that changes what labels of any words are found in, apart from all of these."""

MOST_VOCABULARIES = 64
"""Lists of labels that are remembered with what they mean."""

CROPS_PX = 640
"""Shorter side of an image of which parts are looked at."""

A = TypeVar("A", Description, Embedding, Detections)


class EmbeddedBackend(Backend):
    """NanoDet-g and EfficientNet-Lite0 on onnxruntime's CPU provider, and a table of word vectors.

    It detects COCO's 80 objects, and looks for other labels in their boxes and in the image as a whole; it embeds
    images and describes them by template, in English. A description also quotes the text in the image. English texts
    have a vector space in which images can be embedded as well, by what is recognised in them: pass it as ``space=`` to
    compare the two.

    Args:
        threads: Threads per model; by default one per core, four at most.
        min_score: Lowest score that `detect` reports unless a request says otherwise, in [0, 1]. With 0.5 about
            one picture in ten that shows none of the 80 objects still gets a box, with 0.6 hardly any.
        ocr: What reads the text in an image for its description. ``"small"`` is in the package, and works only where a
            first look finds something like text; ``"rapidocr"`` also reads what is turned or hard to see, takes 0.1 to
            3 s for each image, and the extra ``vision-backends[ocr]``, without which the backend is not ready to
            describe; with ``"off"`` nothing is read.
        models: Folder with the model files; by default the one that ships with the package.
        clock: Where time comes from.

    Raises:
        ConfigError: A value has no meaning.

    Examples:
        >>> from vision_backends import EmbeddedBackend
        >>> with Router([EmbeddedBackend(min_score=0.5)]) as offline:
        ...     offline.detect("cat.jpg").labels.tolist()
        ['cat']
    """

    name = "embedded"

    @in_own_words
    def __init__(
        self,
        *,
        threads: int | None = None,
        min_score: Annotated[float, FREELY] = 0.5,
        ocr: OcrName = "small",
        models: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if threads is not None and threads < 1:
            raise ConfigError(f"[embedded] threads = {threads} is less than 1.")
        if not 0.0 <= min_score <= 1.0:
            raise ConfigError(f"[embedded] min_score = {min_score} is not between 0 and 1.")
        if ocr not in get_args(OcrName):
            raise ConfigError(f"[embedded] ocr = {ocr!r} is not one of {', '.join(map(repr, get_args(OcrName)))}.")
        self._threads = threads or default_threads()
        self._min_score = min_score
        self._folder = models
        self._clock = clock
        self._cards = {stem: model_card(stem) for stem in (DETECTOR, CLASSIFIER, WORDS)}
        self._models = {stem: self._open(self._cards[stem]) for stem in (DETECTOR, CLASSIFIER)}
        path, sha256 = self._file(self._cards[WORDS])
        self._words = WordVectors(path, sha256=sha256)
        self._joint_space = self._name_joint_space()
        self._meanings = lru_cache(maxsize=MOST_VOCABULARIES)(self._match)  # asked for several times in each call
        self._ocr = self._open_ocr(ocr)
        self._looks: WeakKeyDictionary[Image, Look] = WeakKeyDictionary()
        self._renew()
        after_fork_in_child(self, EmbeddedBackend._renew)

    def model_for(self, request: Request) -> Model:
        """Return the model that would answer; all of them take part in a description."""
        detector, classifier, words = self._cards.values()
        if isinstance(request, EmbedTextRequest):
            return Model(name=words.name, revision=words.revision, fingerprint=JOINING, space=self._joint_space)
        if isinstance(request, EmbedRequest) and request.space == self._joint_space:
            name = f"{words.name}+{classifier.name}+{detector.name}"
            revision = f"{words.revision}+{classifier.revision}+{detector.revision}"
            fingerprint = f"{PREPROCESSING}-{JOINING}"
            return Model(name=name, revision=revision, fingerprint=fingerprint, space=self._joint_space)
        if isinstance(request, DetectRequest):
            fingerprint = f"{PREPROCESSING}-{self._min_score:g}"
            if not self._free(request):
                return Model(name=detector.name, revision=detector.revision, fingerprint=fingerprint)
            name = f"{detector.name}+{classifier.name}+{words.name}"
            revision = f"{detector.revision}+{classifier.revision}+{words.revision}"
            return Model(name=name, revision=revision, fingerprint=f"{fingerprint}-{JOINING}-{LABELLING}")
        if isinstance(request, EmbedRequest):
            space = f"embedded/{classifier.name}@{classifier.revision}-{PREPROCESSING}"
            return Model(name=classifier.name, revision=classifier.revision, fingerprint=PREPROCESSING, space=space)
        if isinstance(request, DescribeRequest):
            name = f"{detector.name}+{classifier.name}"
            revision = f"{detector.revision}+{classifier.revision}"
            fingerprint = f"{PREPROCESSING}-{WORDING}"
            if self._ocr is not None:
                name += f"+{self._ocr.name}"
                revision += f"+{self._ocr.version}"
                fingerprint += f"-{READING}"
            return Model(name=name, revision=revision, fingerprint=fingerprint)
        raise self._unsupported(request)

    def check(self, request: Request) -> None:
        """Return if the rung can answer; nothing is loaded for it."""
        match request:
            case DescribeRequest(prompt=str()):
                message = "The embedded backend describes by template and cannot follow a prompt."
                raise NotSupportedError(message, remedy="Leave prompt= out.", backend=self.name)
            case DescribeRequest(language=str(language)) if language.lower().split("-")[0] != "en":
                message = f"The embedded backend writes English only, not {language!r}."
                raise NotSupportedError(message, remedy='Ask for language="en".', backend=self.name)
            case EmbedRequest(space=str(space)) | EmbedTextRequest(space=str(space)) if space not in (
                own := self.spaces(request)
            ):
                message = f"The embedded backend makes vectors of {' and '.join(map(repr, own))}, not of {space!r}."
                raise NotSupportedError(message, backend=self.name)
        for model in self._needed(request):
            model.check()
        if isinstance(request, DescribeRequest) and self._ocr is not None:
            self._ocr.check()

    def spaces(self, request: Request) -> tuple[str, ...]:
        """Return the spaces that may be pinned: for an image its own, and the one that it shares with texts."""
        if isinstance(request, EmbedRequest):
            return self.model_for(EmbedRequest()).space or "", self._joint_space
        return super().spaces(request)

    def warm_up(self, request: Request) -> None:
        """Load the models by running them once."""
        with finished_before_fork():  # in the child nothing could be imported, and this rung always answers
            self.check(request)
            rehearse(self, request)

    def concurrency(self, request: Request) -> int:  # noqa: ARG002 — the same for all
        """Return 2: while the models work on one image the next is decoded and scaled."""
        return 2

    def image_px(self, request: Request) -> int | None:
        """Return what the models need, or enough for the crops that a description looks at.

        An embedding takes half as much again as its model's input, so that a JPEG that was decoded at reduced scale
        gives the same vector as one that was not, but for a cosine distance of 0.001, and 0.005 at most.
        """
        if isinstance(request, DescribeRequest):
            return READING_PX if isinstance(self._ocr, RapidOcr) else CROPS_PX
        if isinstance(request, DetectRequest) and request.labels and self._free(request):
            return CROPS_PX
        if isinstance(request, EmbedRequest) and request.space != self._joint_space:
            side_px = self._cards[CLASSIFIER].input_px
            return side_px and side_px * 3 // 2
        return self._cards[DETECTOR].input_px

    def expected_s(self, request: Request) -> float:
        """Return the time of a first call, which loads the models, on a slow machine."""
        if not isinstance(request, DescribeRequest) or self._ocr is None:
            return 0.5
        return 4.0 if isinstance(self._ocr, RapidOcr) else 1.0

    def describe(self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float) -> list[Description]:
        """Describe each image by template from what the models support."""
        from vision_backends.backends.embedded.template import compose

        end = self._clock.monotonic() + timeout_s

        def left_s() -> float:
            return end - self._clock.monotonic()

        def describe(image: Image, pixels: PILImage.Image) -> partial[Description]:
            larger = partial(image.rgb, min_side_px=READING_PX)
            evidence = self._observer.observe(
                pixels,
                width=image.width,
                height=image.height,
                larger=larger,
                left_s=left_s,
                at_once=self._is_a_processor_free(),
            )
            text = compose(evidence, max_words=request.max_words)
            facts, informative = evidence.to_dict(), evidence.informative
            return partial(Description, text=text, language="en", evidence=facts, informative=informative)

        return self._answer(images, request, describe, timeout_s=timeout_s)

    def embed(self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float) -> list[Embedding]:
        """Embed each image; the vector does not depend on what else is embedded with it.

        An image that is embedded in both spaces is looked at by the classifier once, as long as it is kept.
        """
        space = self.model_for(request).space or ""

        def embed(image: Image, pixels: PILImage.Image) -> partial[Embedding]:
            look = self._looks.get(image) or self._classifier.look(pixels)
            self._looks[image] = look
            vector = look.vector
            if space == self._joint_space:
                vector = self._joint.embed(pixels, whole=look.probabilities)
            return partial(Embedding, vector=vector, space=space)

        return self._answer(images, request, embed, timeout_s=timeout_s)

    def embed_text(self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float) -> list[Embedding]:
        """Embed each text in the space that images share when it is pinned; only English has a meaning there."""
        self.check(request)
        model = self.model_for(request)
        end = self._clock.monotonic() + timeout_s
        embeddings = []
        for number, text in enumerate(texts):
            self._require_time(end, done=f"{number} of {len(texts)} texts", timeout_s=timeout_s)
            with Stopwatch().running() as watch:
                vector, notes = self._words.embed(text, truncate=request.truncate)
            trace = Trace(model=model.name, revision=model.revision, usage=FREE, timing=watch.timing, notes=notes)
            embeddings.append(Embedding(vector=vector, space=self._joint_space, trace=trace))
        return embeddings

    def detect(self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float) -> list[Detections]:
        """Find COCO's 80 objects, or what the request names: as boxes where the detector has one, else in the whole."""
        wanted, free = self._wanted(request), self._free(request)
        min_score = self._min_score if request.min_score is None else request.min_score

        def detect(image: Image, pixels: PILImage.Image) -> partial[Detections]:
            from vision_backends.backends.embedded.evidence import SURE_SCORE

            width, height = image.width, image.height
            lowest = min(min_score, SURE_SCORE) if free else min_score
            found = self._detector.detect(pixels, width=width, height=height, min_score=lowest)
            items = [
                replace(item, label=wanted[item.label])
                for item in found
                if item.label in wanted and item.score >= min_score
            ]
            if not free:
                return partial(Detections, items=tuple(items), width=width, height=height)
            from vision_backends.backends.embedded.free_labels import find_labels

            scale = (pixels.width / width, pixels.height / height)
            boxes, whole = find_labels(
                pixels,
                free,
                joint=self._joint,
                objects=found,
                scale=scale,
                min_score=min_score,
                truncate=request.truncate,
            )
            return partial(Detections, items=(*items, *boxes), width=width, height=height, image_labels=tuple(whole))

        notes = (NOT_LOCALISED.format(quote(joined([repr(label) for label in free]))),) if free else ()
        return self._answer(images, request, detect, timeout_s=timeout_s, notes=notes)

    def status(self) -> Mapping[str, Any]:
        """Return which models are loaded, and their number of threads."""
        loaded = {stem: model.loaded for stem, model in self._models.items()} | {WORDS: self._words.loaded}
        if self._ocr is not None:
            loaded[self._ocr.name] = self._ocr.loaded
        return {
            "models": {name: "loaded" if here else "on disk" for name, here in loaded.items()},
            "device": "cpu",
            "threads": self._threads,
            "onnxruntime": version("onnxruntime"),
        }

    def close(self) -> None:
        """Free the models' memory; a later call loads them again."""
        for model in self._models.values():
            model.close()
        self._words.close()
        if self._ocr is not None:
            self._ocr.close()

    def _open_ocr(self, name: OcrName) -> Ocr | None:
        if name == "off":
            return None
        if name == "rapidocr":
            return RapidOcr(threads=self._threads)
        cards = [model_card(stem) for stem in (TEXT_DETECTOR, TEXT_RECOGNISER)]
        detector, recogniser = (self._open(card, input_name="x") for card in cards)
        return SmallOcr(
            detector=detector, recogniser=recogniser, version="+".join(str(card.revision) for card in cards)
        )

    def _open(self, card: ModelCard, *, input_name: str = "image") -> OnnxModel:
        path, sha256 = self._file(card)
        return OnnxModel(path, sha256=sha256, threads=self._threads, input_name=input_name)

    def _file(self, card: ModelCard) -> tuple[Path, str]:
        if card.file is None or card.sha256 is None:
            raise ConfigError(f"The card of {card.name} names no file or no sha256.")
        return asset(card.file) if self._folder is None else self._folder / card.file, card.sha256

    @cached_property
    def _detector(self) -> Detector:
        from vision_backends.backends.embedded.models import Detector

        return Detector(self._models[DETECTOR], categories=self._categories)

    @cached_property
    def _classifier(self) -> Classifier:
        from vision_backends.backends.embedded.models import Classifier

        return Classifier(self._models[CLASSIFIER], names=self._names)

    @cached_property
    def _joint(self) -> JointSpace:
        from vision_backends.backends.embedded.joint_space import JointSpace

        return JointSpace(
            self._words,
            detector=self._detector,
            classifier=self._classifier,
            names=self._names,
            categories=tuple(self._categories),
        )

    @cached_property
    def _observer(self) -> Observer:
        from vision_backends.backends.embedded.evidence import Observer
        from vision_backends.backends.embedded.label_knowledge import read_sorts

        reader = None if self._ocr is None else Reader(self._ocr)
        sorts = read_sorts(asset("imagenet-sorts.tsv").read_text(encoding="utf-8"))
        return Observer(self._detector, classifier=self._classifier, names=self._names, sorts=sorts, reader=reader)

    @cached_property
    def _categories(self) -> dict[str, int]:
        return coco_categories()

    @cached_property
    def _names(self) -> list[str]:
        return asset("imagenet-1k.txt").read_text(encoding="utf-8").splitlines()

    def _wanted(self, request: DetectRequest) -> dict[str, str]:
        """Return the detector's words to report, each with the word that the caller used for it."""
        if request.labels is None:
            return {word: word for word in self._categories}
        return {word: label for label, word in reversed(self._meanings(request.labels).items()) if word is not None}

    def _free(self, request: DetectRequest) -> list[str]:
        """Return the labels that the detector has no word for."""
        if request.labels is None:
            return []
        return [label for label, word in self._meanings(request.labels).items() if word is None]

    def _match(self, labels: tuple[str, ...]) -> dict[str, str | None]:
        return match_labels(labels, known=self._categories)

    def _name_joint_space(self) -> str:
        """Return the name of the space that images and texts share: the recipe, and all that makes its numbers."""
        words, classifier, detector = (self._cards[stem] for stem in (WORDS, CLASSIFIER, DETECTOR))
        revisions = f"{words.revision}+{classifier.revision}+{detector.revision}"
        return f"embedded/conse-{words.name}@{revisions}-{PREPROCESSING}-{JOINING}"

    def _needed(self, request: Request) -> Iterable[OnnxModel | WordVectors]:
        """Return what an answer is made with."""
        if isinstance(request, EmbedTextRequest):
            return (self._words,)
        shared = isinstance(request, EmbedRequest) and request.space == self._joint_space
        if shared or (isinstance(request, DetectRequest) and request.labels and self._free(request)):
            return (self._words, *self._models.values())
        return (self._models[stem] for stem in self._models if request.task in self._cards[stem].tasks)

    def _require_time(self, end: float, *, done: str, timeout_s: float) -> float:
        """Return the seconds until ``end``.

        Raises:
            TimedOutError: There are none.
        """
        left_s = end - self._clock.monotonic()
        if left_s <= 0:
            raise TimedOutError(f"{done} were done after {timeout_s:.3g} s.", backend=self.name)
        return left_s

    @contextmanager
    def _turn(self, timeout_s: float) -> Iterator[None]:
        """Have pixels and intermediate results in memory for a few images only, however many callers there are.

        Raises:
            TimedOutError: It was not its turn in time.
        """
        turns = self._turns
        try:
            turns.get(timeout=timeout_s)
        except Empty:
            raise TimedOutError("All processors were at work for other calls.", backend=self.name) from None
        try:
            yield
        finally:
            turns.put(None)

    def _is_a_processor_free(self) -> bool:
        """Return whether there are two processors for every image that is worked on.

        Where there are not, a second thread for one of them only takes a processor from another, and handing work over
        costs a twentieth.
        """
        at_work = 2 * self._processors - self._turns.qsize()
        return 2 * at_work <= self._processors

    def _renew(self) -> None:
        """Begin with nobody at work, as in a forked child."""
        self._processors = max(1, processors())
        self._turns = make_queue()
        for _ in range(2 * self._processors):
            self._turns.put(None)

    def _answer(
        self,
        images: Sequence[Image],
        request: Request,
        answer: Callable[[Image, PILImage.Image], partial[A]],
        *,
        timeout_s: float,
        notes: tuple[str, ...] = (),
    ) -> list[A]:
        """Answer image after image while there is time; one takes milliseconds, so none is interrupted.

        Args:
            images: The inputs.
            request: What is asked about each.
            answer: Computes everything but the trace from an image and its pixels.
            timeout_s: Seconds for all of them.
            notes: What there is to say about each answer.

        Raises:
            TimedOutError: The time has passed.
        """
        self.check(request)
        model, min_side_px = self.model_for(request), self.image_px(request)
        end = self._clock.monotonic() + timeout_s
        answers = []
        for number, image in enumerate(images):
            left_s = self._require_time(end, done=f"{number} of {len(images)} images", timeout_s=timeout_s)
            with self._turn(left_s), Stopwatch().running() as watch:
                with measured("decode"):
                    pixels = image.rgb(min_side_px=min_side_px)
                untraced = answer(image, pixels)
            trace = Trace(model=model.name, revision=model.revision, usage=FREE, timing=watch.timing, notes=notes)
            answers.append(untraced(trace=trace))
        return answers
