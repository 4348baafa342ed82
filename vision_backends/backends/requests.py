"""Requests to backends, and what a backend says about its model and its server's rate limits.

This module decides which requests are valid. It must not know any backend or the router.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from vision_backends.arguments import check_flag, check_number, check_text, iterate, shown
from vision_backends.backends.languages import language_tag
from vision_backends.backends.texts import half_character
from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from vision_backends.types import Task

__all__ = [
    "MOST_CHARS",
    "AskRequest",
    "DescribeRequest",
    "DetectRequest",
    "EmbedRequest",
    "EmbedTextRequest",
    "Model",
    "RateLimits",
    "Request",
    "check_unicode",
    "is_embedding",
    "shape_of",
]


MOST_CHARS = 1_000_000
"""Characters of a prompt, of all labels together, or of a text to embed that is sent anywhere: about 250,000 tokens."""


MOST_IMAGES = 16
"""Of one question: more are worse seen by every model, and as much as most servers take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeRequest:
    """Ask for a text about an image.

    Attributes:
        prompt: An instruction or question; None asks for a plain description.
        language: BCP 47 tag or name of the wanted language, kept as its tag; None leaves it to the backend.
        max_words: About how long the text may be; None leaves it to the backend.
    """

    task: ClassVar[Task] = "describe"
    prompt: str | None = None
    language: str | None = None
    max_words: int | None = None

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt, example='"What does the sign say?"')
        check_text("language", self.language, example='"de"')
        check_number("max_words", self.max_words, example=30, whole=True)
        if self.prompt is not None and not self.prompt.strip():
            raise InvalidRequestError("The prompt is empty.", remedy="Leave prompt= out for a description.")
        if self.language is not None and not self.language.strip():
            raise InvalidRequestError("The language is empty.", remedy='Name one, such as language="de".')
        _check_length("The prompt is", self.prompt)
        check_unicode("The prompt", self.prompt)
        check_unicode("The language", self.language)
        if self.language is not None:
            object.__setattr__(self, "language", language_tag(self.language))
        if self.max_words is not None:
            object.__setattr__(self, "max_words", int(self.max_words))
            if self.max_words < 1:
                message = f"max_words={self.max_words} leaves no room for a word."
                raise InvalidRequestError(message, remedy="Pass 1 or more, or leave max_words= out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Ask for the vector of an image.

    Attributes:
        space: The only acceptable vector space; None accepts the backend's own.
    """

    task: ClassVar[Task] = "embed"
    space: str | None = None

    def __post_init__(self) -> None:
        check_text("space", self.space, example="embedding.space")
        check_unicode("The space", self.space)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedTextRequest:
    """Ask for the vector of a text.

    Attributes:
        space: The only acceptable vector space; None accepts the backend's own.
        truncate: Whether the end of a text that is longer than the model reads may be left out.
    """

    task: ClassVar[Task] = "embed_text"
    space: str | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        check_text("space", self.space, example="embedding.space")
        check_unicode("The space", self.space)
        check_flag("truncate", self.truncate)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectRequest:
    """Ask for the objects of an image.

    Attributes:
        labels: What to look for; None means the backend's own closed vocabulary.
        min_score: Lowest score to report, in [0, 1]; None leaves it to the backend.
        truncate: Whether the end of labels that are longer than the model reads may be left out.
    """

    task: ClassVar[Task] = "detect"
    labels: tuple[str, ...] | None = None
    min_score: float | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        if self.labels is not None:
            labels = iterate("labels", self.labels, remedy='Pass a list: labels=["a dog"].')
            object.__setattr__(self, "labels", tuple(labels))  # a list would have no hash, by which requests are known
            _check_length("The labels are", *self.labels)
            if not self.labels or any(map(_is_blank, self.labels)):
                raise InvalidRequestError(
                    f"labels={shown(list(self.labels))} names nothing to look for.",
                    remedy='Pass words such as labels=["a dog"], or leave labels= out.',
                )
            if len(set(self.labels)) != len(self.labels):
                message = f"labels={shown(list(self.labels))} names something twice."
                raise InvalidRequestError(message, remedy="Name each thing once.")
            for label in self.labels:
                check_unicode("A label", label)
        check_flag("truncate", self.truncate)
        check_number("min_score", self.min_score, example=0.3)
        if self.min_score is not None:
            object.__setattr__(self, "min_score", float(self.min_score))  # of numpy's, no cache key is made
            if not 0.0 <= self.min_score <= 1.0:
                message = f"min_score={self.min_score} is not between 0 and 1."
                raise InvalidRequestError(message, remedy="Write for example: min_score=0.3")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRequest:
    """Ask a question about some images together.

    Attributes:
        prompt: The question or instruction.
        system: What holds for the whole answer; None leaves it to the backend.
        schema: JSON schema that the answer has to follow, as JSON; None for prose.
        images: How many images a question has.
        form: Full name of the class that reads the answer; None where the schema alone decides.
        reader: That class; `structured.read_data` has it validate answers.
    """

    task: ClassVar[Task] = "ask"
    prompt: str
    system: str | None = None
    schema: str | None = None
    images: int = 1
    form: str | None = None
    reader: type[Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("prompt", "system"):
            text = getattr(self, name)
            check_text(name, text, example='"What does the sign say?"')
            check_unicode(f"The {name}", text)
            if text is not None and not text.strip():
                raise InvalidRequestError(f"The {name} is empty.", remedy=f"Pass a text as {name}.")
        if self.prompt is None:
            raise InvalidRequestError("There is no prompt.", remedy="Ask something about the images.")
        _check_length("Prompt, system and schema are", self.prompt, self.system, self.schema)
        if not 1 <= self.images <= MOST_IMAGES:
            raise InvalidRequestError(
                f"A question about {self.images} images cannot be asked.",
                remedy=f"Pass 1 to {MOST_IMAGES} images; for one answer each, use describe_many(images, prompt=…).",
            )


Request = DescribeRequest | EmbedRequest | EmbedTextRequest | DetectRequest | AskRequest
"""Everything that determines an answer, apart from the image or text itself and the model."""


def is_embedding(request: Request) -> bool:
    """Return whether vectors are asked for."""
    return isinstance(request, EmbedRequest | EmbedTextRequest)


def shape_of(request: Request) -> tuple[str, ...]:
    """Return the task of a request and which of its options are set: requests of one shape need the same models."""
    return (request.task, *[name for name in request.__slots__ if getattr(request, name) not in {None, False}])


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Which model would answer a request; known without loading it.

    Attributes:
        name: The model's name as its provider writes it.
        revision: Its exact version; None where the provider has none.
        fingerprint: Everything else that changes the answer (preprocessing version, dtype, base URL).
        space: For embeddings, the vector space that it produces.
        probe_first: Whether it is not known yet what it can do: the router then calls `Backend.recall` before it asks,
            and `AsyncBackend.probe`, as long as this stays so and the backend is one that is probed by itself.
    """

    name: str
    revision: str | None = None
    fingerprint: str = ""
    space: str | None = None
    probe_first: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """With whom a backend's cached answers may be shared: with those who ask the same server as the same customer.

    Attributes:
        server: What is asked: base address, organization, project; empty for what runs here.
        secret: A hash of what proves who asks: the key, headers; empty where nothing does.
    """

    server: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """The limits in a server's latest reply; None for those it did not name.

    Attributes:
        remaining_requests: Requests left in the current window.
        remaining_tokens: Tokens left in the current window.
        limit_requests: Requests per window.
        limit_tokens: Tokens per window.
        reset_requests_s: Seconds until the requests are full again, counted from the reply.
        reset_tokens_s: Seconds until the tokens are full again, counted from the reply.
    """

    remaining_requests: int | None = None
    remaining_tokens: int | None = None
    limit_requests: int | None = None
    limit_tokens: int | None = None
    reset_requests_s: float | None = None
    reset_tokens_s: float | None = None


def check_unicode(what: str, text: str | None) -> None:
    """Return if a text can be written down.

    Raises:
        InvalidRequestError: It holds half a character: a surrogate, which no encoding of Unicode has.
    """
    at = half_character(text) if isinstance(text, str) else None
    if text is not None and at is not None:
        raise InvalidRequestError(
            f"{what} is not valid Unicode: character {at} is {text[at]!a}, half of a character.",
            remedy='Repair it: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
        )


def _check_length(what: str, *texts: object) -> None:
    """Return unless texts are so long that merely writing them down would hold up other calls.

    Raises:
        InvalidRequestError: They are longer than any model reads beside an image.
    """
    length = sum(len(text) for text in texts if isinstance(text, str))
    if length > MOST_CHARS:
        raise InvalidRequestError(
            f"{what} {length:,} characters long, and may be at most {MOST_CHARS:,}.", remedy="Ask for less."
        )


def _is_blank(label: object) -> bool:
    return not isinstance(label, str) or not label.strip()
