"""One configured model: where it is, whether it may be used, and how it is loaded.

This module decides what a caller is told about a model that is not loaded. It must not know any request.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.backends.local.hub.checkpoint import MOST_FILES, PARTS_OF_REVISION, read_checkpoint
from vision_backends.backends.local.hub.source import Source
from vision_backends.backends.local.hub.verify import is_as_published
from vision_backends.backends.local.models.captioner import Captioner
from vision_backends.backends.local.models.detector import ClosedDetector, OpenDetector
from vision_backends.backends.local.models.embedder import Embedder
from vision_backends.backends.local.models.families import captioning
from vision_backends.backends.local.runtime.lazy_load import NOT_LOADED, Slot
from vision_backends.backends.local.runtime.loader import LoaderSettings, load, placement_for
from vision_backends.backends.local.runtime.memory import memory_for
from vision_backends.backends.local.runtime.parallel_map import compute
from vision_backends.backends.local.runtime.timed_lookup import TimedLookup
from vision_backends.engine.threads import awaited_at_exit
from vision_backends.errors import BackendError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vision_backends.backends.local.hub.checkpoint import Checkpoint
    from vision_backends.backends.local.hub.hub import Hub
    from vision_backends.backends.local.hub.progress import Progress
    from vision_backends.clock import Clock, Deadline
    from vision_backends.types import Task

__all__ = ["Engine", "LocalModel", "Role"]

Role = Literal["caption", "embedding", "detection", "open_vocabulary"]
"""What a model is configured for."""

Engine = Captioner | Embedder | ClosedDetector | OpenDetector

ENGINES: dict[Role, tuple[type[Engine], str]] = {
    "caption": (Captioner, "AutoModelForImageTextToText"),
    "embedding": (Embedder, "AutoModel"),
    "detection": (ClosedDetector, "AutoModelForObjectDetection"),
    "open_vocabulary": (OpenDetector, "AutoModelForZeroShotObjectDetection"),
}
"""What runs a model of each role, and the transformers class that loads it."""

LONGEST_END_S = 10.0
"""How long the interpreter's exit waits for a load; a fetch is aborted immediately."""

FETCHED_AGAIN = frozenset({"incomplete", "no_safetensors"})
"""Error codes of a cached model that fetching it again may fix."""

MOST_READS = 3
"""How often a model is read whose files are changed meanwhile."""

AGAIN_S = 1.0
"""When a model is tried again whose files were changed."""

COUNTING = (".safetensors", *PARTS_OF_REVISION)
"""How the names of files end that change answers."""

Stamp = Mapping[str, tuple[int, ...]]
"""What tells whether the files of a checkpoint were changed, by their path within its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """A checkpoint on this machine.

    Attributes:
        root: Its folder.
        commit: Its commit, for a model of the hub.
        stamp: What its files looked like before they were read.
        checkpoint: What they say.
    """

    root: Path
    commit: str | None
    stamp: Stamp
    checkpoint: Checkpoint

    @property
    def is_unchanged(self) -> bool:
        """Whether the files that count still look as they did; others may be somebody's log."""
        return _counting(_stamp(self.root)) == _counting(self.stamp)


class LocalModel:
    """A model by name or folder, in memory or not yet.

    Args:
        name: As configured.
        role: What it is for.
        download: When it may be fetched.
        settings: Where and how it runs.
        hub: Where models are fetched from by name.
        clock: Where time comes from.
    """

    def __init__(
        self,
        name: str,
        *,
        role: Role,
        download: Literal["never", "background", "wait"],
        settings: LoaderSettings,
        hub: Hub,
        clock: Clock,
    ) -> None:
        self.name = name
        self._role = role
        self._download = download
        self._settings = settings
        self._hub = hub
        self._source = Source.parse(name)
        self._clock = clock
        self._lock = threading.Lock()
        self._users = 0
        self._used_at = clock.monotonic()
        self._rehearsed: set[Task] = set()
        self._slot: Slot[Engine] = Slot(name, self._load, clock=clock)
        self._latest: _Copy | None = None
        self._trusted: _Copy | None = None
        self._altered: _Copy | None = None
        self._failed: _Copy | None = None
        folder = self._source.folder
        self._find = TimedLookup(self._look, clock=clock, mark=lambda: None if folder is None else _marks(folder))

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        return self._slot.value is not None

    @property
    def touched(self) -> bool:
        """Whether torch may have started threads for it: it is loaded or being loaded."""
        return self._slot.touched

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint in memory, or else a usable one on this machine; None if there is neither."""
        engine = self._slot.value
        if engine is not None:
            return engine.loaded.checkpoint
        try:
            copy = self._find()
        except NotReadyError:
            return None
        return copy.checkpoint if copy else None

    @property
    def revision(self) -> str | None:
        """Its exact revision: the one in memory, or on this machine, or pinned; None while it is not known."""
        checkpoint = self.checkpoint
        return checkpoint.revision if checkpoint else self._source.commit

    @property
    def space(self) -> str:
        """The space of its vectors."""
        return self.space_at(self.revision)

    def space_at(self, revision: str | None) -> str:
        """Return the space of the vectors of one of its revisions."""
        return f"local/{self._source.short_name}@{revision}" if revision else f"local/{self._source.short_name}"

    def check(self) -> None:
        """Return if it is loaded, can be loaded, or may be waited for; quick, and without using the network.

        Raises:
            NotReadyError: It is missing, still loading or refused, or loading it failed recently.
        """
        if self.loaded:
            return
        copy = self._look_again()
        self._slot.check()
        if copy is None and self._download != "wait":
            raise self._missing()

    async def get(self, deadline: Deadline) -> Engine:
        """Return it, loaded once however many callers ask.

        Raises:
            NotReadyError: It cannot be loaded, or not in time.
        """
        engine = self._slot.value
        if engine is not None:
            return engine
        await compute(self._begin, deadline=deadline)
        return await self._slot.get(deadline)

    def load(self) -> None:
        """Load it, after fetching it where that is allowed; return when it is in memory.

        Raises:
            NotReadyError: It cannot be loaded.
        """
        if self._slot.value is None:
            if self._begin_fetch() is None and self._download == "never":
                raise self._missing()
            self._slot.wait()
        with self._lock:
            self._used_at = self._clock.monotonic()  # the caller is about to use it

    @contextmanager
    def in_use(self, task: Task) -> Iterator[None]:
        """Keep it from being dropped as idle while a task runs."""
        with self._lock:
            self._users += 1
        try:
            yield
            self._rehearsed.add(task)
        finally:
            with self._lock:
                self._users -= 1
                self._used_at = self._clock.monotonic()

    def needs_rehearsal(self, task: Task) -> bool:
        """Whether it is loaded and not in use, and has not yet run for a task."""
        with self._lock:
            return self.loaded and not self._users and task not in self._rehearsed

    def drop_if_idle(self, idle_s: float) -> float | None:
        """Drop it from memory if it has not been used for that long.

        Returns:
            The seconds until then, 0 if it was dropped just now; None if it is neither loaded nor being loaded.
        """
        with self._lock:
            if not self.touched:
                return None
            left_s = idle_s if self._users or not self.loaded else self._used_at + idle_s - self._clock.monotonic()
            if left_s > 0:
                return left_s
            self.close()
            return 0.0

    def status(self) -> dict[str, Any]:
        """Return JSON-able facts about it."""
        engine = self._slot.value
        state = self._slot.state
        if engine is None and state == NOT_LOADED and self._source.folder is None and self.checkpoint is None:
            state = "not fetched"
        facts: dict[str, Any] = {"model": self.name, "revision": self.revision, "state": state}
        if engine is not None:
            loaded = engine.loaded
            facts |= {"device": loaded.device, "dtype": loaded.numbers, "memory_bytes": loaded.memory_bytes}
            facts |= {"queue": loaded.batcher.waiting, "batch": loaded.batcher.max_batch}
            facts["engine"] = {name: part.engine for name, part in loaded.parts.items()} or "torch"
            facts["idle_s"] = 0.0 if self._users else self._clock.monotonic() - self._used_at
        return facts

    def close(self) -> None:
        """Drop it from memory, as soon as nothing waits for it."""
        engine = self._slot.value
        self._slot.close()
        if engine is not None:
            engine.loaded.batcher.close()
        self._rehearsed.clear()

    def after_fork(self) -> None:
        """Make it usable in a forked child."""
        self._lock = threading.Lock()
        self._slot.after_fork()

    def _load(self, progress: Progress) -> Engine:
        """Read it as a whole in one state of its files, however often they are changed meanwhile.

        Raises:
            NotReadyError: It cannot be loaded.
        """
        for _ in range(MOST_READS):
            copy = self._present(progress)
            progress.stage, progress.total_bytes = "being loaded", 0
            try:
                made = self._read_into_memory(copy)
            except BackendError:
                if copy.is_unchanged:
                    self._failed = copy
                    raise
            else:
                if made is not None:
                    self._used_at = self._clock.monotonic()
                    return made
        message = f"The files of {self.name} are being changed while they are read."
        raise NotReadyError(message, remedy="Ask again.", code="files_changing", retry_after_s=AGAIN_S)

    def _present(self, progress: Progress) -> _Copy:
        """Return it as it is on this machine, after fetching it if it is missing."""
        copy, trusted = self._find.fresh(), self._trusted
        if copy is None:
            progress.stage = "being fetched"
            folder, commit = self._hub.fetch(self._source, progress)
            self._find.forget()
            copy = self._read(folder, commit)
        elif trusted is not None and _is_altered(copy, trusted):
            self._altered = copy
            self._find.forget()
            raise self._missing()
        self._trusted, self._altered = copy, None
        return copy

    def _read_into_memory(self, copy: _Copy) -> Engine | None:
        """Return the loaded model, or None where files were changed while they were read."""
        checkpoint, settings = copy.checkpoint, self._settings
        engine, auto_class = ENGINES[self._role]
        style = captioning(checkpoint.kind)
        chat = self._role == "caption" and (style is None or style.task is not None)
        with awaited_at_exit(LONGEST_END_S):  # it imports torch
            placement = placement_for(checkpoint, settings, has_parts=_has_parts(self._role, checkpoint.kind))
        room = memory_for(
            checkpoint,
            device=placement.device,
            max_bytes=settings.max_memory_bytes,
            bytes_per_parameter=placement.loaded_as.itemsize,
            converted=placement.converted,
        )
        with room, awaited_at_exit(LONGEST_END_S):
            loaded = load(checkpoint, placement, auto_class=auto_class, settings=settings, chat=chat)
            if not copy.is_unchanged:  # asked before anything is converted and kept under its revision
                return None
            made = engine(loaded)
            made.loaded.settle()
        return made

    def _begin(self) -> None:
        """Start fetching it where that is allowed; return if it can be waited for."""
        self._begin_fetch()
        self.check()

    def _begin_fetch(self) -> _Copy | None:
        """Return it as it is on this machine; start fetching it if it is missing and that is allowed."""
        copy = self._look_again()
        if copy is None and self._download == "background":
            self._slot.start()
        return copy

    def _look_again(self) -> _Copy | None:
        """Return it as it is on this machine, and forget that it could not be loaded from other files."""
        copy = self._find()
        if self._failed is not None and copy is not self._failed:
            self._failed = None
            self._slot.forgive()
        return copy

    def _look(self) -> _Copy | None:
        """Return it as it is on this machine; None for a model of the hub that has to be fetched.

        Raises:
            NotReadyError: A folder does not exist, or the checkpoint is refused.
        """
        if self._source.folder is not None:
            if not self._source.folder_exists:
                message = f"The folder {self._source.name} in [local] does not exist."
                raise NotReadyError(message, remedy="Put a checkpoint there, or correct the configuration.")
            return self._read(self._source.folder, None)
        cached = self._hub.cached(self._source)
        if cached is None:
            return None
        try:
            copy = self._read(*cached)
        except NotReadyError as flaw:
            if flaw.code in FETCHED_AGAIN:
                return None
            raise
        return copy if copy is not self._altered else None

    def _read(self, root: Path, commit: str | None) -> _Copy:
        """Read a folder again only when a file in it has changed."""
        stamp, latest = _stamp(root), self._latest
        if latest is None or (latest.root, latest.commit, latest.stamp) != (root, commit, stamp):
            self._latest = None
            checkpoint = read_checkpoint(root, name=self.name, revision=commit)
            self._latest = latest = _Copy(root=root, commit=commit, stamp=stamp, checkpoint=checkpoint)
        return latest

    def _missing(self) -> NotReadyError:
        later = "; the first request that reaches this rung fetches it" if self._download == "background" else ""
        pull = f"Run: vision models pull {self.name}"
        if self._altered is not None:
            message = f"Files of {self.name} in the cache are not those of {self._altered.commit} any more{later}."
            return NotReadyError(message, remedy=pull, code="damaged", retry_after_s=AGAIN_S)
        message = f"{self.name} is not on this machine yet{later}."
        here = f"; for the folder here, write ./{self.name} in [local]" if Path(self.name).is_dir() else ""
        return NotReadyError(message, remedy=f"{pull}{here}", code="not_fetched")


def _has_parts(role: Role, kind: str) -> bool:
    """Tell whether a model has parts that an engine other than torch can compute."""
    return role in {"embedding", "detection"} or (role == "caption" and kind == "blip")


def _is_altered(copy: _Copy, trusted: _Copy) -> bool:
    """Tell whether files of a commit are neither those that were trusted before nor the hub's.

    A folder has no commit: its revision follows from its files.
    """
    if copy.commit is None or (copy.root, copy.commit) != (trusted.root, trusted.commit):
        return False
    before = _counting(trusted.stamp)
    changed = [name for name, marks in _counting(copy.stamp).items() if before.get(name) != marks]
    return not all(is_as_published(copy.root / name) for name in changed)


def _counting(stamp: Stamp) -> Stamp:
    return {name: marks for name, marks in stamp.items() if name.endswith(COUNTING)}


def _stamp(root: Path) -> Stamp:
    paths = islice(root.rglob("*"), MOST_FILES + 1)
    return {str(path.relative_to(root)): _marks(path) for path in paths}


def _marks(path: Path) -> tuple[int, ...]:
    """Return values that change when a file or the listing of a folder does; none for a dangling link."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns  # only the last cannot be set
