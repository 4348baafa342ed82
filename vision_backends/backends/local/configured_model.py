"""One configured model: where it is, whether it may be used, and how it is loaded.

This module decides what a caller is told about a model that is not loaded. It must not know any request.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vision_backends.backends.local.hub.checkpoint import MOST_FILES, PARTS_OF_REVISION, read_checkpoint
from vision_backends.backends.local.hub.flaws import FETCHED_AGAIN
from vision_backends.backends.local.hub.hub import HuggingFaceHub
from vision_backends.backends.local.hub.source import Source
from vision_backends.backends.local.hub.verify import is_as_published
from vision_backends.backends.local.models.families import captioning
from vision_backends.backends.local.runtime.lazy_load import NOT_LOADED, Slot, again
from vision_backends.backends.local.runtime.loader import LoaderSettings, load, placement_for
from vision_backends.backends.local.runtime.memory import check_room_for_torch, memory_for
from vision_backends.backends.local.runtime.parallel_map import compute
from vision_backends.backends.local.runtime.sharing import Shared, Turns
from vision_backends.backends.local.runtime.timed_lookup import TimedLookup
from vision_backends.engine.threads import awaited_at_exit, finished_before_fork
from vision_backends.errors import BackendError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping
    from pathlib import Path

    from vision_backends.backends.local.hub.checkpoint import Checkpoint
    from vision_backends.backends.local.hub.hub import Hub
    from vision_backends.backends.local.hub.progress import Progress
    from vision_backends.backends.local.models.roles import Engine
    from vision_backends.backends.local.runtime.loader import Placement
    from vision_backends.clock import Clock, Deadline
    from vision_backends.types import Task

__all__ = ["LocalModel", "Role"]

_log = logging.getLogger(__name__)

Role = Literal["caption", "embedding", "detection", "open_vocabulary"]
"""What a model is configured for."""

LONGEST_END_S = 10.0
"""How long the interpreter's exit waits for a load; a fetch is aborted immediately."""

AGAIN_S = 1.0
"""When a model whose files have a flaw is looked at again: it is not loaded again before they change."""


MOST_READS = 3
"""How often a model is read whose files are changed meanwhile."""

COUNTING = (".safetensors", *PARTS_OF_REVISION)
"""How the names of files end that change answers."""


class _State(NamedTuple):
    """What tells whether the files of a checkpoint were changed.

    Attributes:
        root: Their folder.
        commit: Their commit, for a model of the hub.
        marks: The marks of each, by its path within the folder.
    """

    root: Path
    commit: str | None
    marks: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, root: Path, commit: str | None) -> _State:
        """Return that of now."""
        paths = islice(root.rglob("*"), MOST_FILES + 1)
        return cls(root, commit, {str(path.relative_to(root)): _marks(path) for path in paths})

    @property
    def key(self) -> Hashable:
        """What is the same for the same files in the same state."""
        counting = ((name, marks) for name, marks in self.marks.items() if name.endswith(COUNTING))
        return self.root, self.commit, frozenset(counting)

    @property
    def is_current(self) -> bool:
        """Whether the files that count still look so; others may be somebody's log."""
        return not self.changes_since(_State.of(self.root, self.commit))

    def changes_since(self, other: _State) -> list[str]:
        """Return the files that count and looked different in another state of the same folder."""
        names = [name for name in {*self.marks, *other.marks} if name.endswith(COUNTING)]
        return [name for name in names if self.marks.get(name) != other.marks.get(name)]


class _Copy(NamedTuple):
    """A checkpoint on this machine.

    Attributes:
        state: What its files looked like before they were read.
        checkpoint: What they say.
    """

    state: _State
    checkpoint: Checkpoint


class _Flaw(NamedTuple):
    """What is wrong with a model's files.

    Attributes:
        state: What the files looked like.
        error: The flaw, without the traceback, which would keep alive whatever was there.
        fetched: Whether they had been fetched just then, so that fetching them once more would not help.
    """

    state: _State
    error: BackendError
    fetched: bool


_fetches = Turns()
_in_memory: Shared[Engine] = Shared()
"""One for the whole process, as are its memory and its folder of models."""


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
        self._trusted: _State | None = None
        self._flaw: _Flaw | None = None
        folder = self._source.folder
        self._find = TimedLookup(self._look, clock=clock, mark=lambda: None if folder is None else _marks(folder))
        self._missing = TimedLookup(self._why_missing, clock=clock, mark=lambda: self._flaw)

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
        self._slot.check()
        if self._find() is None and self._download != "wait":
            raise again(self._missing())

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
            self._begin_fetch()
            if self._download == "never" and self._find() is None:
                raise again(self._missing())
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
        if engine is None and state == NOT_LOADED and self.checkpoint is None:
            flaw, latest = self._flaw, self._latest
            if flaw is not None and latest is not None and flaw.state == latest.state:
                state = f"failed: {flaw.error.message}"  # it looked sound before it was loaded
            elif self._source.folder is None:
                state = "not fetched"
        facts: dict[str, Any] = {"model": self.name, "revision": self.revision, "state": state}
        if engine is not None:
            loaded = engine.loaded
            facts |= {"device": loaded.device, "dtype": loaded.numbers, "memory_bytes": loaded.memory_bytes}
            facts |= {"queue": loaded.batcher.waiting, "batch": loaded.batcher.max_batch}
            facts["engine"] = {name: part.engine for name, part in loaded.parts.items()} or "torch"
            holders = _in_memory.holders(engine)
            facts |= {"shared_by": holders} if holders > 1 else {}
            facts["idle_s"] = 0.0 if self._users else self._clock.monotonic() - self._used_at
        return facts

    def close(self) -> None:
        """Drop it from memory, as soon as nothing waits for it."""
        engine = self._slot.value
        self._slot.close()
        if engine is not None and _in_memory.leave(engine, self):
            engine.loaded.batcher.close()
        self._rehearsed.clear()

    def after_fork(self) -> None:
        """Make it usable in a forked child."""
        self._lock = threading.Lock()
        self._slot.after_fork()

    def _load(self, progress: Progress) -> Engine:
        """Read it as a whole in one state of its files, even if they are changed meanwhile.

        Raises:
            NotReadyError: It cannot be loaded.
        """
        for _ in range(MOST_READS):
            copy, fetched = self._present(progress)
            progress.stage, progress.total_bytes = "being loaded", 0
            try:
                made = self._made(copy)
            except BackendError as error:
                if copy.state.is_current:
                    self._remember(error, copy.state, fetched=fetched)
                    raise
            else:
                if made is not None:
                    self._used_at = self._clock.monotonic()
                    return made
        message = f"The files of {self.name} are being changed while they are read."
        raise NotReadyError(message, remedy="Ask again.", code="files_changing", retry_after_s=AGAIN_S)

    def _present(self, progress: Progress) -> tuple[_Copy, bool]:
        """Return it as it is on this machine, and whether it was fetched just now because it was missing."""
        copy = self._find.fresh()
        fetched = copy is None
        if copy is None:
            copy, fetched = self._fetched(progress)
        elif self._is_altered(copy.state):
            message = f"Files of {self.name} in the cache are not those of {copy.state.commit} any more."
            altered = NotReadyError(message, remedy="Fetch it again.", code="incomplete")
            self._remember(altered, copy.state, fetched=False)
        if self._source.hint:
            _log.warning("%s is the model of the hub%s.", self.name, self._source.hint)
        self._trusted = copy.state
        return copy, fetched

    def _fetched(self, progress: Progress) -> tuple[_Copy, bool]:
        """Fetch it, unless another rung does so just now; return whether it was this one."""
        progress.stage = "waiting for another rung, which fetches it"
        hub = self._hub
        where = str(hub.cache) if isinstance(hub, HuggingFaceHub) else id(hub)
        with _fetches.alone((where, self._source.repository, self._source.revision)):
            copy = self._find.fresh()
            if copy is not None:
                return copy, False
            progress.stage = "being fetched"
            root, commit = hub.fetch(self._source, progress)
            self._find.forget()
            return self._read_anew(root, commit), True

    def _read_anew(self, root: Path, commit: str | None) -> _Copy:
        """Read what was fetched just now, whatever was wrong with what was there before; errors as `_read`."""
        self._flaw = None
        state = _State.of(root, commit)
        try:
            return self._read(root, commit)
        except NotReadyError as error:
            self._remember(error, state, fetched=True)
            raise

    def _is_altered(self, state: _State) -> bool:
        """Tell whether files of a commit are neither those that were read before nor the hub's.

        A folder has no commit: its revision follows from its files.
        """
        trusted = self._trusted
        if trusted is None or state.commit is None or (trusted.root, trusted.commit) != (state.root, state.commit):
            return False
        return not all(is_as_published(state.root / name) for name in state.changes_since(trusted))

    def _remember(self, error: BackendError, state: _State, *, fetched: bool) -> None:
        """Let a flaw that shows while a model is loaded hold until its files change, or are fetched again.

        Raises:
            BackendError: The flaw, to be looked for again soon; nothing where the files are not to blame.
        """
        if error.code in FETCHED_AGAIN:
            self._flaw = _Flaw(state, again(error), fetched)
            self._find.forget()
            raise again(error, AGAIN_S) from error

    def _made(self, copy: _Copy) -> Engine | None:
        """Return the loaded model, which rungs that run it alike share, or None where files were changed meanwhile."""
        checkpoint, settings = copy.checkpoint, self._settings
        check_room_for_torch(checkpoint)
        with awaited_at_exit(LONGEST_END_S), finished_before_fork():  # it imports torch, and numpy with it
            placement = placement_for(checkpoint, settings, has_parts=_has_parts(self._role, checkpoint.kind))
        key = (self._role, copy.state.key, placement, settings.shared_by)
        return _in_memory.take(key, partial(self._loaded, copy, placement), holder=self)

    def _loaded(self, copy: _Copy, placement: Placement) -> Engine | None:
        """Return the model that no other rung has in memory, or None where files were changed while they were read."""
        from vision_backends.backends.local.models.roles import ENGINES

        checkpoint, settings = copy.checkpoint, self._settings
        engine, auto_class = ENGINES[self._role]
        style = captioning(checkpoint.kind)
        chat = self._role == "caption" and (style is None or style.task is not None)
        room = memory_for(
            checkpoint,
            device=placement.device,
            max_bytes=settings.max_memory_bytes,
            bytes_per_parameter=placement.loaded_as.itemsize,
            converted=placement.converted,
        )
        with room, awaited_at_exit(LONGEST_END_S):
            loaded = load(checkpoint, placement, auto_class=auto_class, settings=settings, chat=chat)
            if not copy.state.is_current:  # asked before anything is converted and kept under its revision
                return None
            made = engine(loaded)
            made.loaded.settle()
        return made

    def _begin(self) -> None:
        """Start fetching it where that is allowed; return if it can be waited for."""
        self._begin_fetch()
        self.check()

    def _begin_fetch(self) -> None:
        """Start fetching it in the background if it is missing and that is allowed."""
        if self._download == "background" and self._find() is None:
            self._slot.start()

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
            return self._read(*cached)
        except NotReadyError as error:
            if error.code in FETCHED_AGAIN and not (self._flaw is not None and self._flaw.fetched):
                return None
            raise

    def _read(self, root: Path, commit: str | None) -> _Copy:
        """Read a folder again only when a file in it has changed.

        Raises:
            NotReadyError: The checkpoint is refused, or was found to have a flaw when it was loaded.
        """
        state, latest = _State.of(root, commit), self._latest
        if self._flaw is not None:
            if self._flaw.state == state:
                raise again(self._flaw.error) from self._flaw.error
            self._flaw = None
        if latest is None or latest.state != state:
            try:
                has_classes = self._role == "detection"
                checkpoint = read_checkpoint(root, name=self.name, revision=commit, has_classes=has_classes)
            except NotReadyError as error:
                self._flaw = _Flaw(state, again(error), fetched=False)
                raise
            self._latest = latest = _Copy(state, checkpoint)
        return latest

    def _why_missing(self) -> NotReadyError:
        later = "; the first request that reaches this rung fetches it" if self._download == "background" else ""
        pull = f"Run: vision models pull {self.name}{self._source.hint}"
        flaw = self._flaw
        if flaw is not None:
            message = f"{self.name} is not on this machine as it should be{later}. {flaw.error.message}"
            return NotReadyError(message, remedy=pull, code="not_fetched")
        message = f"{self.name} is not on this machine yet{later}."
        return NotReadyError(message, remedy=pull, code="not_fetched")


def _has_parts(role: Role, kind: str) -> bool:
    """Tell whether a model has parts that an engine other than torch can compute."""
    return role in {"embedding", "detection"} or (role == "caption" and kind == "blip")


def _marks(path: Path) -> tuple[int, ...]:
    """Return values that change when a file or the listing of a folder does; none for a dangling link."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns  # only the last cannot be set
