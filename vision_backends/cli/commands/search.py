"""``vision index``, ``search`` and ``dedupe``: photos found again.

This module decides what these commands print, and where an index is unless a folder is named. It must not know how
photos are compared.
"""

import os
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vision_backends.cli.options import BackendName, JsonOptions, command
from vision_backends.cli.rendering.exits import exit_code_of, tell
from vision_backends.cli.rendering.progress import progress_bar
from vision_backends.cli.rendering.text import bytes_text, dollars, dump_json, print_table
from vision_backends.cli.servers import tell_prices, tell_servers
from vision_backends.config.user_folders import user_folder
from vision_backends.errors import InvalidRequestError
from vision_backends.foreign_text import printable
from vision_backends.images import ImageLimits
from vision_backends.search import DuplicateGroup, Hits, ImageIndex, ImageIndexError, IndexReport
from vision_backends.search.contact_sheet import contact_sheet
from vision_backends.search.index import NEAR

if TYPE_CHECKING:
    from vision_backends.search import IndexInfo

__all__ = ["dedupe", "index", "search"]

Folder = Annotated[Path | None, typer.Option("--in", metavar="DIR", help="Only photos in this folder and below.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions(JsonOptions):
    """The options of every command that uses an index."""

    index: Annotated[
        Path | None,
        typer.Option("--index", metavar="FOLDER", help="Where the index is; by default among your own data."),
    ] = None

    @contextmanager
    def open_index(
        self, *, backend: str | None = None, caching: bool = True
    ) -> Iterator[tuple[ImageIndex, ImageLimits]]:
        """Open the index, and say what its images may cost to read.

        Args:
            backend: Who makes its vectors, where the command says so.
            caching: Whether answers are kept beside the index as well.
        """
        with self.open_router(caching=caching) as (router, settings):
            if backend is not None:
                tell_servers(settings, [backend])
                tell_prices(router.explain("embed", backend=backend))
            limits = ImageLimits(**settings.images.model_dump())
            yield ImageIndex(self.index or _usual_place(), router=router, backend=backend, limits=limits), limits


@command
def index(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DIRS", help="Folders of photos; by default those that were named earlier."),
    ] = None,
    *,
    backend: BackendName = None,
    prune: Annotated[bool, typer.Option("--prune", help="Forget photos whose files are gone.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try files again that could not be used earlier.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make all vectors anew.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show what is in the index, and what could not be used.")
    ] = False,
    options: IndexOptions,
) -> None:
    """Make photos searchable: those in folders and all folders below them."""
    with options.open_index(backend=backend, caching=False) as (photos, _):
        if show:
            _print_info(photos, options)
            return
        try:
            with _bar() as progress:
                report = photos.update(
                    *(folders or photos.folders()), prune=prune, retry=retry, rebuild=rebuild, progress=progress
                )
        except KeyboardInterrupt:
            tell("interrupted; the same command goes on where it was")
            raise
        if options.as_json:
            typer.echo(dump_json(report.to_dict()))
        else:
            typer.echo(_summary(report))
        _conclude(report, pruned=prune)


@command
def search(
    words: Annotated[list[str] | None, typer.Argument(metavar="WORDS", help="What is to be seen.")] = None,
    *,
    like: Annotated[
        str | None, typer.Option("--like", metavar="PHOTO", help="Search for photos like this one instead.")
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", metavar="N", help="How many photos at most.")] = 10,
    folder: Folder = None,
    null: Annotated[bool, typer.Option("-0", "--null", help="Print paths only, for xargs -0.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write FILE.html, which shows the photos.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Show the photos in the browser.")] = False,
    options: IndexOptions,
) -> None:
    """Search the indexed photos by words, or by a photo."""
    if bool(words) == bool(like):
        raise InvalidRequestError(
            "Words and --like were both given." if like else "There is nothing to search for.",
            remedy='Write for example: vision search "two dogs on a beach"',
        )
    if null and options.as_json:
        raise InvalidRequestError("-0 and --json are two ways to print.", remedy="Pass one of them.")
    _check_sheet(out)
    with options.open_index() as (photos, limits):
        asked = like or " ".join(words or ())
        find = photos.search_like if like else photos.search
        hits = find(asked, n=number, folder=folder)
    _print_hits(hits, options, null=null)
    if out is not None or show:
        _save_sheet(contact_sheet(hits, title=asked, limits=limits), out, show=show)


@command
def dedupe(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A folder of photos; by default all that are indexed.")
    ] = None,
    *,
    backend: BackendName = None,
    similarity: Annotated[
        float,
        typer.Option(
            "--similarity", metavar="S", help="From which similarity two pictures count as the same, up to 1."
        ),
    ] = NEAR,
    exact: Annotated[bool, typer.Option("--exact", help="Only files with identical content.")] = False,
    options: IndexOptions,
) -> None:
    """List photos that exist more than once; nothing is removed."""
    if not -1.0 <= similarity <= 1.0:
        raise InvalidRequestError(f"--similarity {similarity:g} is not a correlation.", remedy="Pass 0.8 to 1.")
    with options.open_index(backend=backend, caching=False) as (photos, _):
        report = None
        if folder is not None:
            with _bar() as progress:
                report = photos.update(folder, purposes=("like",), progress=progress)
        groups = photos.duplicates(folder, min_similarity=None if exact else similarity)
        for group in groups if options.as_json else ():
            typer.echo(dump_json(group.to_dict()))
        if not options.as_json:
            _print_groups(groups)
        if report is not None:
            _conclude(report, pruned=True)


def _usual_place() -> Path:
    """Return where the index of a user is.

    Raises:
        ImageIndexError: The user has no home.
    """
    data = user_folder("data")
    if data is None:
        raise ImageIndexError("There is no home folder for an index.", remedy="Name a folder: --index FOLDER")
    return data / "index"


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Yield what is told how many images are done, and shows a bar once it knows how many there are."""
    with ExitStack() as ends:
        counters: list[Callable[[int, int], None]] = []

        def count(done: int, total: int) -> None:
            if not counters:
                counters.append(ends.enter_context(progress_bar(total)).counter(before=0))
            counters[0](done, total)

        yield count


def _summary(report: IndexReport) -> str:
    """Return what has come of an update, on one line."""
    failed = len(report.unreadable)
    counts = {
        "new": report.new,
        "changed": report.changed,
        "moved": report.moved,
        "known": report.unchanged,
        "forgotten": report.pruned,
        "not usable": failed,
    }
    parts = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f"{_photos(report.found)}{f': {parts}' if parts else ''}{_cost(report)}"


def _cost(report: IndexReport) -> str:
    if report.cost_usd is None:
        return "; what the vectors cost is unknown"
    return f"; the vectors cost {dollars(report.cost_usd)}" if report.cost_usd else ""


def _conclude(report: IndexReport, *, pruned: bool) -> None:
    """Tell what is not in the index, and end with the exit code of the worst.

    Raises:
        typer.Exit: Files could not be used that had not been tried before.
    """
    fresh = [each for each in report.unreadable if not each.is_known]
    for each in fresh:
        name = os.fspath(each.path)
        told = str(each.error)
        tell(told if name in told else f"{name}: {told}")
    old = len(report.unreadable) - len(fresh)
    if old:
        tell(f"{_photos(old)} could not be used earlier; vision index --show lists them, --retry tries again")
    for folder, why in report.unreadable_folders.items():
        tell(f"{folder} cannot be listed: {why}")
    if report.gone and not pruned:
        tell(f"{_photos(report.gone)} of the index {'is' if report.gone == 1 else 'are'} gone; --prune forgets them")
    if fresh:
        raise typer.Exit(max(exit_code_of(each.error) for each in fresh))


def _print_info(photos: ImageIndex, options: IndexOptions) -> None:
    info, failed = photos.info(), photos.unreadable()
    if options.as_json:
        typer.echo(dump_json(info.to_dict() | {"unreadable_files": [each.to_dict() for each in failed]}))
        return
    for line in _info_lines(info):
        typer.echo(printable(line))
    for each in failed:
        name, told = os.fspath(each.path), str(each.error)
        typer.echo(printable(f"not usable: {told if name in told else f'{name}: {told}'}"))


def _info_lines(info: "IndexInfo") -> Iterator[str]:
    yield f"{_photos(info.files)}, {info.contents:,} of them different, in {bytes_text(info.size_bytes)}"
    yield f"index: {info.place}"
    yield from (f"folder: {folder}" for folder in info.folders)
    yield f"backend: {info.backend or 'none yet'}"
    yield from (f"{purpose}: {info.vectors[name]:,} vectors of {name}" for purpose, name in info.spaces.items())


def _print_hits(hits: Hits, options: IndexOptions, *, null: bool) -> None:
    if null:
        sys.stdout.buffer.write(b"".join(os.fsencode(_shown(hit.path)) + b"\0" for hit in hits))
        sys.stdout.buffer.flush()
    elif options.as_json:
        for hit in hits:
            typer.echo(dump_json(hit.to_dict() | {"space": hits.space}))
    elif hits:
        print_table(("score", "photo"), [(f"{hit.score:.3f}", _with_copies(hit.path, len(hit.copies))) for hit in hits])
    if not hits:
        tell("nothing was found")
    if hits.missing:
        tell(f"{_photos(hits.missing)} would be among them, but the files are not there any more")


def _with_copies(path: Path, copies: int) -> str:
    return f"{_shown(path)}{f' (+{copies} the same)' if copies else ''}"


def _print_groups(groups: list[DuplicateGroup]) -> None:
    """Print each group: what every file takes, how similar it is to the first, and where it is."""
    for group in groups:
        print_table(
            ("size", "similar", "the same content" if group.is_exact else "the same picture"),
            [(bytes_text(file.size_bytes), f"{file.similarity:.3f}", _shown(file.path)) for file in group.files],
        )
        typer.echo()
    spare = sum(group.spare_bytes for group in groups)
    files = sum(len(group.files) - 1 for group in groups)
    typer.echo(
        f"{len(groups):,} {'group' if len(groups) == 1 else 'groups'}; all but the first of each: "
        f"{files:,} {'file' if files == 1 else 'files'}, {bytes_text(spare)}"
        if groups
        else "No photo exists more than once."
    )


def _check_sheet(out: Path | None) -> None:
    if out is not None and out.suffix.lower() not in {".html", ".htm"}:
        raise InvalidRequestError(f"--out {out} is not an HTML page.", remedy="End it in .html.")


def _save_sheet(page: str, out: Path | None, *, show: bool) -> None:
    """Write a page and show it.

    Raises:
        InvalidRequestError: It cannot be written.
    """
    try:
        if out is None:
            descriptor, name = tempfile.mkstemp(prefix="vision-search-", suffix=".html")
            os.close(descriptor)
            out = Path(name)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"{out} cannot be written: {error.strerror or error}.") from error
    tell(f"the photos are shown in {out}")
    if show and not webbrowser.open(out.absolute().as_uri()):
        tell("there is no browser to open it with")


def _shown(path: Path) -> str:
    """Return a path as short as it can be written: relative to the working directory if it is below it."""
    try:
        return os.fspath(path.relative_to(Path.cwd().resolve()))
    except (OSError, ValueError):
        return os.fspath(path)


def _photos(count: int) -> str:
    return f"{count:,} {'photo' if count == 1 else 'photos'}"
