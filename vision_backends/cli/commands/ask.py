"""``vision describe``, ``ask``, ``detect`` and ``embed``.

This module decides how options become a question to the router, and a long list becomes several. It must not know
any backend.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict, TypeVar, Unpack

import typer

from vision_backends.cli.inputs import Input, find_images, folders_left_out, read_paths, texts
from vision_backends.cli.options import (
    AskOptions,
    Images,
    Label,
    Language,
    ListOptions,
    Prompt,
    Space,
    Truncate,
    command,
    rungs_of,
)
from vision_backends.cli.rendering.answers import (
    NOT_FETCHED,
    Tally,
    print_description,
    print_detections,
    print_embedding,
    print_json,
    print_pieces,
    print_reply,
)
from vision_backends.cli.rendering.exits import at_terminal, tell
from vision_backends.cli.rendering.outputs import drawing_paths, refuse_inputs, save_drawing, save_vectors
from vision_backends.cli.rendering.progress import progress_bar
from vision_backends.cli.rows import Rows, open_rows
from vision_backends.cli.servers import tell_prices, tell_servers
from vision_backends.errors import InvalidRequestError, VisionError
from vision_backends.images import ImageLimits
from vision_backends.regular_file import read_regular
from vision_backends.types import Description, Detections, Embedding, Reply, Task

if TYPE_CHECKING:
    from vision_backends.config.settings import Settings
    from vision_backends.reports import Explanation, Verdict
    from vision_backends.router import Router
    from vision_backends.routing.options import CallKeywords

__all__ = ["ask", "describe", "detect", "embed"]

A = TypeVar("A", Description, Embedding, Detections, Reply)
A_co = TypeVar("A_co", Description, Embedding, Detections, Reply, covariant=True)

MOST_SCHEMA_BYTES = 1_000_000
"""Of a file with a JSON schema."""

MATRIX = ".npy"
"""The ending of a file that is written as a whole, instead of row by row."""

PART = 64
"""How many inputs of a long list are asked about before their answers are printed."""


Outcomes = Iterator[tuple[Input, A | VisionError]]


class _Question(TypedDict, total=False):
    """What decides which model would answer; see `Router.explain`."""

    prompt: str | None
    language: str | None
    labels: Sequence[str] | None
    space: str | None


class Ask(Protocol[A_co]):
    """One of the router's ``_many`` methods, with everything filled in but the inputs."""

    def __call__(
        self,
        sources: Sequence[Path | bytes | str],
        /,
        *,
        deadline_s: float | None,
        progress: Callable[[int, int], None],
    ) -> Sequence[A_co | VisionError]:
        """Return an answer or an error for each source, in order."""


@command
def describe(
    paths: Images = None,
    *,
    prompt: Prompt = None,
    language: Language = None,
    max_words: Annotated[
        int | None, typer.Option(metavar="N", help="Approximate maximum length of the text in words.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print the text of one image while it is being written.")
    ] = False,
    options: ListOptions,
) -> None:
    """Describe images in words."""
    options.check_out()
    with _open_router(options, "describe", prompt=prompt, language=language) as (router, settings):
        inputs = _images(paths or (), options, settings)
        keywords = options.keywords()
        if stream:
            only = _only_input(inputs, options)
            pieces = router.describe_stream(
                only.source,
                prompt=prompt,
                language=language,
                max_words=max_words,
                backends=keywords["backends"],
                model=options.model,
                local_only=options.local_only,
                deadline_s=options.deadline,
            )
            print_pieces(only.name, pieces)
            return
        asked: dict[str, Any] = {"prompt": prompt, "language": language, "max_words": max_words}
        each = partial(router.describe_each, **asked, **keywords)
        many = partial(router.describe_many, **asked, **keywords)
        with _rows(inputs, "describe", asked, options, settings) as (left, rows):
            answers = (
                _answers(left, many, options, rows)
                if _shares_time(options)
                else _as_they_come(left, each, options, rows)
            )
            show = partial(print_description, many=len(inputs) > 1)
            _present(answers, show, options, _tally(inputs, left, options), rows)


@command
def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question or instruction.")],
    paths: Images = None,
    *,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What holds for the whole answer, such as a role or a style.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON schema that the answer follows; it is then printed as JSON."),
    ] = None,
    options: AskOptions,
) -> None:
    """Ask one question about one or several images together."""
    form = None if schema is None else _read_schema(schema)
    with _open_router(options, "ask", prompt=question) as (router, settings):
        inputs = _images(paths or (), options, settings)
        name = ", ".join(each.name for each in inputs)
        outcome: Reply | VisionError
        try:
            sources = [_readable(each).source for each in inputs]
            keywords = options.keywords()
            keywords["deadline_s"] = options.deadline
            outcome = router.ask(sources, question, system=system, schema=form, **keywords)
        except VisionError as error:
            outcome = error
        _present(
            iter([(Input(name=name, source=""), outcome)]), print_reply, options, Tally(total=1, quiet=options.quiet)
        )


@command
def detect(
    paths: Images = None,
    *,
    label: Label = None,
    min_score: Annotated[float | None, typer.Option(metavar="SCORE", help="Lowest score to report, 0 to 1.")] = None,
    truncate: Truncate = False,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Draw the boxes into OUT.png, OUT.jpg or OUT.webp, or into a folder OUT."),
    ] = None,
    options: ListOptions,
) -> None:
    """Find objects in images, each with a box and a score."""
    options.check_out()
    with _open_router(options, "detect", labels=label) as (router, settings):
        inputs = _images(paths or (), options, settings)
        drawings = None if draw is None else drawing_paths(draw, inputs)
        asked: dict[str, Any] = {"labels": label, "min_score": min_score, "truncate": truncate}
        each = partial(router.detect_each, **asked, **options.keywords())
        many = partial(router.detect_many, **asked, **options.keywords())
        with _rows(inputs, "detect", asked, options, settings) as (left, rows):
            answers = (
                _answers(left, many, options, rows)
                if _shares_time(options)
                else _as_they_come(left, each, options, rows)
            )
            tally = _tally(inputs, left, options)
            if drawings is not None:
                answers = _drawn(answers, drawings, ImageLimits(**settings.images.model_dump()), tally)
            _present(answers, partial(print_detections, many=len(inputs) > 1), options, tally, rows)


@command
def embed(
    paths: Images = None,
    *,
    text: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Embed this text instead of an image; can be repeated.")
    ] = None,
    space: Space = None,
    truncate: Truncate = False,
    options: ListOptions,
) -> None:
    """Turn images or texts into vectors that can be compared.

    With --out FILE.npy, all vectors are written at the end, as one array, with FILE.npy.json beside it.
    """
    options.check_out(MATRIX)
    with _open_router(options, "embed_text" if text else "embed", space=space) as (router, settings):
        inputs = _embeddable(paths or (), text or (), options, settings)
        if truncate and not text:
            raise InvalidRequestError("--truncate is for texts.", remedy="Pass --text, or leave it out.")
        asked = {"space": space, "truncate": truncate, "text": bool(text)}
        with _rows(inputs, "embed", asked, options, settings) as (left, rows):
            pinned = _one_space(space, rows)
            keywords: dict[str, Any] = {"space": pinned, **options.keywords()}
            if text:
                texts_many = partial(router.embed_text_many, truncate=truncate, **keywords)
                answers = _answers(left, texts_many, options, rows, in_parts=False)
            elif _shares_time(options) or (pinned is None and rows is None):
                many = partial(router.embed_many, **keywords)
                answers = _answers(left, many, options, rows, in_parts=False)  # parts might be of two spaces
            else:
                answers = _as_they_come(left, partial(_in_one_space, router, pinned, options.keywords()), options, rows)
            if rows is not None and space is None:
                answers = _honest(answers, rows)
            if options.out is not None and rows is None:
                refuse_inputs([options.out], inputs)
                answers = _saved(answers, options.out, quiet=options.quiet)
            show = None if options.out else partial(print_embedding, many=len(inputs) > 1)
            _present(answers, show, options, _tally(inputs, left, options), rows)


def _one_space(space: str | None, rows: Rows | None) -> str | None:
    """Return the space that vectors have to be of; None where the first of them decides.

    Raises:
        InvalidRequestError: It is not that of the rows which are there.
    """
    there = None if rows is None else rows.space
    if space is not None and there is not None and space != there:
        raise InvalidRequestError(
            f"The file of --out holds vectors of {there!r}, and no others go with them.", remedy="Name another file."
        )
    return space or there


def _in_one_space(
    router: "Router", space: str | None, keywords: "CallKeywords", sources: Iterable[Path | bytes | str]
) -> Iterator[Embedding | VisionError]:
    """Yield vectors as they come, of the space that was named, or of the first one."""
    coming = iter(sources)
    for source in coming:
        if space is not None:
            yield from router.embed_each(chain([source], coming), space=space, **keywords)
            return
        (first,) = router.embed_many([source], **keywords)
        yield first
        space = first.space if isinstance(first, Embedding) else None


def _honest(
    answers: Iterator[tuple[Input, Embedding | VisionError]], rows: Rows
) -> Iterator[tuple[Input, Embedding | VisionError]]:
    """Call vectors degraded that are of the space of a degraded one, and not of the one that was passed over for it."""
    because = f"the file holds degraded vectors of {rows.space}" if rows.has_degraded else None
    for each, outcome in answers:
        vector = outcome
        if isinstance(outcome, Embedding):
            trace = outcome.trace
            if trace.degraded:
                because = because or trace.reason
            elif because and any(attempt.error == "not_supported" for attempt in trace.attempts[:-1]):
                vector = replace(outcome, trace=replace(trace, degraded=True, reason=because))
        yield each, vector


@contextmanager
def _rows(
    inputs: list[Input], asking: str, asked: Mapping[str, Any], options: ListOptions, settings: "Settings"
) -> Iterator[tuple[list[Input], Rows | None]]:
    """Yield the inputs that have no row yet, and the file of rows; all inputs where no such file was named."""
    if options.out is None or options.out.suffix.lower() == MATRIX:
        if options.redo:
            raise InvalidRequestError(f"--redo is for rows, and {options.out} is written as a whole.")
        yield inputs, None
        return
    deciding = {"backends": rungs_of(options.backends), "model": options.model, "local_only": options.local_only}
    with open_rows(
        options.out,
        inputs,
        command=asking,
        options={**asked, **deciding},
        redo_degraded=options.redo == "degraded",
        max_bytes=settings.images.max_bytes,
    ) as rows:
        left = rows.remaining(inputs, bar=partial(progress_bar, quiet=options.quiet, doing="comparing with the rows"))
        try:
            yield left, rows
        finally:
            there = len(inputs) - len(left)
            told = f"; {there} of {len(inputs)} inputs had theirs" if there else ""
            if not options.quiet:
                tell(f"{rows.written} {'row' if rows.written == 1 else 'rows'} written to {options.out}{told}")


def _readable(given: Input) -> Input:
    """Return an input that can be asked about.

    Raises:
        InvalidRequestError: It cannot.
    """
    if given.error is not None:
        raise given.error
    return given


def _read_schema(path: Path) -> dict[str, Any]:
    """Return the JSON schema in a file.

    Raises:
        InvalidRequestError: There is none.
    """
    try:
        value = json.loads(read_regular(path, max_bytes=MOST_SCHEMA_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"{path} holds no JSON schema: {why}.", remedy="Name a file of JSON.") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{path} holds no JSON schema, which is an object.", remedy="Name a file of JSON.")
    return value


@contextmanager
def _open_router(options: AskOptions, task: Task, **question: Unpack[_Question]) -> "Iterator[tuple[Router, Settings]]":
    """Open a router, after fetching the model that would answer if it were here.

    It is fetched where the configuration says so (``download = "wait"``), or a person at a terminal does. Otherwise the
    next rung answers, and the command that fetches it is named. So is a server that is not OpenAI's.
    """
    with options.open_router() as opened:
        chosen: dict[str, Any] = {"backends": rungs_of(options.backends), "model": options.model}
        explanation = opened[0].explain(task, **question, **chosen, local_only=options.local_only)
        if not options.quiet:
            tell_servers(opened[1], (verdict.backend for verdict in explanation.verdicts))
            tell_prices(explanation)
        missing = _missing_model(explanation)
        download = opened[1].table(missing.backend).get("download", "background") if missing else "never"
        waits, may_ask = download == "wait", download == "background" and at_terminal() and not options.quiet
        if missing is None or missing.model is None or not (waits or may_ask):
            yield opened
            return
    from vision_backends.cli.commands.pull import fetch

    fetch(options.config, missing.model, asked=not waits)
    with options.open_router() as opened:
        yield opened


def _missing_model(explanation: "Explanation") -> "Verdict | None":
    """Return the rung that would answer if its model were here; None where another does, or nothing would help."""
    for verdict in explanation.verdicts:
        if verdict.ready:
            return None
        if verdict.code == NOT_FETCHED:
            return verdict
    return None


def _only_input(inputs: Sequence[Input], options: ListOptions) -> Input:
    """Return the one image whose description can be streamed.

    Raises:
        InvalidRequestError: There are several, it cannot be read, or an option excludes streaming.
    """
    for given, option, why in (
        (options.as_json, "--json", "prints whole answers"),
        (options.batch, "--batch", "is for answers that can wait"),
        (options.out, "--out", "is for whole answers"),
    ):
        if given:
            raise InvalidRequestError(f"{option} {why}.", remedy="Leave out --stream.")
    if len(inputs) != 1:
        raise InvalidRequestError(f"--stream shows one text, not {len(inputs)}.", remedy="Name one image.")
    return _readable(inputs[0])


def _embeddable(paths: Sequence[str], text: Sequence[str], options: AskOptions, settings: "Settings") -> list[Input]:
    if bool(paths or options.paths_from) == bool(text):
        raise InvalidRequestError(
            "Images and --text were both given." if text else "There is nothing to embed.",
            remedy="Name images, or pass --text.",
        )
    return texts(text) if text else _images(paths, options, settings)


def _images(paths: Sequence[str], options: AskOptions, settings: "Settings") -> list[Input]:
    """Return the images that a command names, and tell which folders were left out.

    Raises:
        InvalidRequestError: It names none.
    """
    if options.paths_from is None:
        if options.null:
            raise InvalidRequestError("--null needs --paths-from.", remedy="Pass --paths-from - for standard input.")
        if not paths:
            raise InvalidRequestError("No image is named.", remedy="Name images, folders or patterns, or - for a pipe.")
    listed = [] if options.paths_from is None else read_paths(options.paths_from, null=options.null)
    if paths or listed:
        found = find_images(paths, max_bytes=settings.images.max_bytes, recursive=options.recursive, listed=listed)
    else:
        raise InvalidRequestError(f"--paths-from {options.paths_from} names nothing.")
    skips = not options.recursive and not options.quiet
    for folder, count in (folders_left_out([*paths, *listed]) if skips else {}).items():
        which = "a folder in it was" if count == 1 else f"{count} folders in it were"
        tell(f"{folder}: {which} left out; -r takes the images of all folders below")
    return found


def _tally(inputs: Sequence[Input], left: Sequence[Input], options: AskOptions) -> Tally:
    return Tally(total=len(left), quiet=options.quiet, answered=len(inputs) - len(left))


def _shares_time(options: AskOptions) -> bool:
    """Return whether the inputs have one deadline, or wait for a better backend together instead of one by one."""
    return options.batch or options.deadline is not None


def _as_they_come(
    inputs: Sequence[Input], ask: Callable[..., Iterator[A | VisionError]], options: AskOptions, rows: Rows | None
) -> Outcomes[A]:
    """Yield each input with its answer or error as soon as there is one, in order."""
    source = attrgetter("source") if rows is None else rows.note
    coming = ask(source(each) for each in inputs if each.error is None)
    with progress_bar(len(inputs), quiet=options.quiet) as bar:
        for done, each in enumerate(inputs, start=1):
            outcome = each.error or next(coming)
            with bar.hidden():
                yield each, outcome
                sys.stdout.flush()
            bar.counter(before=done)(0, len(inputs))


def _answers(
    inputs: Sequence[Input], ask: Ask[A], options: AskOptions, rows: Rows | None, *, in_parts: bool = True
) -> Outcomes[A]:
    """Yield each input with its answer or error, in order: those of a part together, and all within one deadline."""
    source = attrgetter("source") if rows is None else rows.note
    started, deadline_s = time.monotonic(), options.deadline
    if options.batch and deadline_s is not None:
        in_parts = False  # only the router knows how long it has waited
    size = PART if in_parts else max(1, len(inputs))
    with progress_bar(len(inputs), quiet=options.quiet) as bar:
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            left_s = deadline_s
            if deadline_s is not None and start:
                left_s = max(deadline_s - (time.monotonic() - started), 1e-3)  # the router wants more than nothing
            outcomes = iter(
                ask(
                    [source(each) for each in part if each.error is None],
                    deadline_s=left_s,
                    progress=bar.counter(before=start),
                )
            )
            with bar.hidden():
                for each in part:
                    yield each, each.error or next(outcomes)
                sys.stdout.flush()


def _drawn(
    answers: Iterator[tuple[Input, Detections | VisionError]], paths: dict[str, Path], limits: ImageLimits, tally: Tally
) -> Iterator[tuple[Input, Detections | VisionError]]:
    """Pass answers on and draw each on its image; a drawing that fails takes nothing from the answers."""
    for each, outcome in answers:
        yield each, outcome
        if not isinstance(outcome, VisionError):
            try:
                save_drawing(paths[each.name], each, outcome, limits=limits)
            except VisionError as error:
                tally.fail(each.name, error, unwritten=True)


def _saved(
    answers: Iterator[tuple[Input, Embedding | VisionError]], path: Path, *, quiet: bool
) -> Iterator[tuple[Input, Embedding | VisionError]]:
    """Save all vectors, then pass them on."""
    outcomes = list(answers)
    saved = save_vectors(path, [(each.name, outcome) for each, outcome in outcomes])
    if saved and not quiet:
        tell(f"{saved} {'vector' if saved == 1 else 'vectors'} written to {path}")
    yield from outcomes


def _present(
    answers: Iterator[tuple[Input, A | VisionError]],
    show: Callable[[str, A], None] | None,
    options: AskOptions,
    tally: Tally,
    rows: Rows | None = None,
) -> None:
    """Print every answer or write its row, tell every error, and end with the worst exit code.

    Raises:
        typer.Exit: Not all were answered.
    """
    try:
        for each, outcome in answers:
            tally.count(each.name, outcome)
            if rows is not None:
                if not isinstance(outcome, VisionError):
                    rows.add(each, outcome)
            elif options.as_json:
                print_json(each.name, outcome)
            elif show is not None and not isinstance(outcome, VisionError):
                show(each.name, outcome)
    except (KeyboardInterrupt, SystemExit):
        tally.conclude(interrupted=True)
        raise
    tally.conclude()
    if tally.exit_code:
        raise typer.Exit(tally.exit_code)
