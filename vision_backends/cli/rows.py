"""Files with one row for each answer, which a later run of the same command goes on with.

This module decides what a row holds, which inputs are done, and that a file is whole whenever the program ends. It must
not know how answers are made.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from vision_backends.cli.rendering.answers import to_json
from vision_backends.cli.rendering.outputs import refuse_inputs
from vision_backends.errors import ConfigError, InvalidRequestError
from vision_backends.installing import pip_command
from vision_backends.regular_file import chunks_of_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from vision_backends.cli.inputs import Input
    from vision_backends.cli.rendering.progress import Bar
    from vision_backends.types import Description, Detections, Embedding, Reply

__all__ = ["Rows", "open_rows"]

ANSWER_COLUMNS = {
    "describe": ("text", "language", "complete", "informative"),
    "detect": ("width", "height", "items", "image_labels"),
    "embed": ("space", "dimension", "vector"),
}
TRACE_COLUMNS = ("backend", "model", "revision", "degraded", "reason", "cached", "elapsed_s")

Key = tuple[str, str, str]
"""What says that a row answers a question: the input's name, the hash of its content, the command's options."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the row with an answer is in its file, and what decides whether it stays."""

    start: int
    end: int
    degraded: bool
    space: str | None


class Rows:
    """An open file of rows; made by `open_rows`.

    Args:
        path: The file that the user named.
        file: The text file that rows are appended to: the same one, or the journal of a Parquet file.
        command: Which command asks.
        options: What decides its answers, besides the inputs.
        redo_degraded: Whether degraded rows are not done.
        max_bytes: No input has more.

    Raises:
        InvalidRequestError: The file holds something else.
    """

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        *,
        command: str,
        options: Mapping[str, Any],
        redo_degraded: bool,
        max_bytes: int,
    ) -> None:
        self.written = 0
        self._path, self._file, self._command, self._max_bytes = path, file, command, max_bytes
        self._form = path.suffix.lower()
        self._options = _dump({name: value for name, value in options.items() if value not in (None, False, [], ())})
        self._places: dict[Key, _Place] = {}
        self._hashes: dict[object, str | None] = {}
        self._has_superseded = False
        if self._form == ".parquet" and path.exists():
            self._take((number, number, row) for number, row in enumerate(_parquet_heads(path)))
        self._take(self._read())
        self._leave_other_spaces()
        self._done = {key for key, place in self._places.items() if not (redo_degraded and place.degraded)}
        self._names_done = {(name, options) for name, _, options in self._done}

    @property
    def space(self) -> str | None:
        """The vector space of the rows that stay; None where there are none."""
        return next((self._places[key].space for key in self._done), None)

    @property
    def has_degraded(self) -> bool:
        """Whether any of the rows that stay is degraded."""
        return any(self._places[key].degraded for key in self._done)

    def remaining(self, inputs: Sequence[Input], *, bar: Callable[[int], AbstractContextManager[Bar]]) -> list[Input]:
        """Return the inputs that are not done.

        Args:
            inputs: All of them. Those that have a row under their name are read, as their content may be another now.
            bar: Shows how many of so many have been read.
        """
        named = [each for each in inputs if each.error is None and self._is_named(each)]
        done = set()
        with bar(len(named)) as shown:
            count = shown.counter(before=0)
            for number, each in enumerate(named, start=1):
                if (_utf8(each.name), self._hash(each) or "", self._options) in self._done:
                    done.add(id(each))
                count(number, len(named))
        return [each for each in inputs if id(each) not in done]

    def note(self, each: Input) -> Path | bytes | str:
        """Remember what an input holds before it is asked about: if it changes meanwhile, it is asked about again."""
        self._hashes[each.source] = self._hash(each)
        return each.source

    def add(self, each: Input, answer: Description | Detections | Embedding | Reply) -> None:
        """Append a row.

        Raises:
            InvalidRequestError: It cannot be written. What was there before is still whole.
        """
        digest = self._hashes.pop(each.source, None) or ""
        row = {**to_json(each.name, answer), "source": _utf8(each.name), "sha256": digest, "command": self._command}
        row["options"] = self._options
        if self._form == ".jsonl":
            row["options"] = json.loads(self._options)
        else:
            row = _flat(row)
        start = self._file.seek(0, os.SEEK_END)
        header = self._header() if not start else b""
        data = header + (_csv_line(row.values()) if self._form == ".csv" else f"{json.dumps(row)}\n".encode())
        try:
            _write(self._file, data)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(start)
            raise _unwritable(self._path, error) from error
        self.written += 1
        key = (row["source"], digest, self._options)
        self._has_superseded |= key in self._places
        space = getattr(answer, "space", None)
        self._places.pop(key, None)  # the order is that of the file
        self._places[key] = _Place(start + len(header), start + len(data), answer.trace.degraded, space)

    def close(self) -> None:
        """Leave out rows that later ones have replaced, and finish a Parquet file.

        Raises:
            InvalidRequestError: It cannot be written; all rows are kept nevertheless.
        """
        self._leave_other_spaces()
        try:
            if self._form == ".parquet":
                self._finish_parquet()
            elif self._has_superseded:
                self._rewrite()
            elif not self._file.seek(0, os.SEEK_END):
                self._path.unlink(missing_ok=True)  # an empty file would look like success
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _is_named(self, each: Input) -> bool:
        return (_utf8(each.name), self._options) in self._names_done

    def _hash(self, each: Input) -> str | None:
        """Return the SHA-256 of an input's content, of a web address that of itself; None if it cannot be read."""
        if not isinstance(each.source, Path):
            content = each.source if isinstance(each.source, bytes) else each.source.encode("utf-8", "surrogateescape")
            return hashlib.sha256(content).hexdigest()
        digest = hashlib.sha256()
        try:
            for chunk in chunks_of_regular(each.source, max_bytes=self._max_bytes):
                digest.update(chunk)
        except (OSError, ValueError):
            return None  # the router will say why
        return digest.hexdigest()

    def _take(self, rows: Iterable[tuple[int, int, Mapping[str, Any]]]) -> None:
        for start, end, row in rows:
            try:
                options, command = row["options"], row["command"]
                key = (row["source"], row["sha256"], options if isinstance(options, str) else _dump(options))
                degraded = row["degraded"] if "degraded" in row else row["trace"]["degraded"]
                self._has_superseded |= key in self._places
            except (KeyError, TypeError) as error:
                raise self._foreign() from error
            if command != self._command:
                raise InvalidRequestError(
                    f"{self._path} holds answers of vision {command}.", remedy="Name another file for these."
                )
            self._places.pop(key, None)
            self._places[key] = _Place(start, end, degraded in (True, "true"), row.get("space"))

    def _read(self) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """Yield where each row begins and ends, and the row; mend the end of a file whose last row is torn."""
        header, at = self._header(), 0
        for raw in _records(self._file, quoted=self._form == ".csv"):
            is_whole = raw.endswith(b"\n")
            if at == 0 and header:
                if not header.startswith(raw):
                    raise self._foreign()
                if raw != header:
                    self._file.truncate(0)
            elif (row := self._decode(raw)) is not None:
                if not is_whole:
                    self._file.seek(0, os.SEEK_END)
                    _write(self._file, b"\n")
                yield at, at + len(raw) + (not is_whole), row
            elif not is_whole and (at or _is_begun(raw)):
                self._file.truncate(at)
            else:
                raise self._foreign()
            if not is_whole:
                return
            at += len(raw)

    def _decode(self, raw: bytes) -> Mapping[str, Any] | None:
        """Return the row that a line holds; None where it holds none, or may hold a part of one."""
        text = raw.decode("utf-8", "replace")
        if self._form != ".csv":
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                return None
            return row if isinstance(row, dict) else None
        if not raw.endswith(b"\n"):
            return None  # its last number may go on
        names = _columns(self._command)
        cells = next(csv.reader(io.StringIO(text, newline="")), [])
        return dict(zip(names, cells, strict=True)) if len(cells) == len(names) else None

    def _header(self) -> bytes:
        return _csv_line(_columns(self._command)) if self._form == ".csv" else b""

    def _foreign(self) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._path} holds something else than rows that vision {self._command} --out has written.",
            remedy="Name another file.",
        )

    def _leave_other_spaces(self) -> None:
        """Keep vectors of the space of the last row only: a file of vectors is of one space."""
        if self._command != "embed" or not self._places:
            return
        space = self._places[next(reversed(self._places))].space
        kept = {key: place for key, place in self._places.items() if place.space == space}
        self._has_superseded |= len(kept) < len(self._places)
        self._places = kept

    def _rewrite(self) -> None:
        with _replacing(self._path) as new:
            new.write(self._header())
            for place in sorted(self._places.values(), key=lambda place: place.start):
                self._file.seek(place.start)
                new.write(self._file.read(place.end - place.start))

    def _finish_parquet(self) -> None:
        """Make one file of the one that was there and the journal, and remove that."""
        self._file.seek(0)
        rows = [json.loads(line) for line in self._file]
        if rows or (self._has_superseded and self._path.exists()):
            import pyarrow as pa
            import pyarrow.parquet as pq

            added = pa.Table.from_pylist(rows, schema=_schema(self._command))
            table = pa.concat_tables([pq.read_table(self._path), added]) if self._path.exists() else added
            heads = zip(*(table[name].to_pylist() for name in ("source", "sha256", "options")), strict=True)
            last = {key: number for number, key in enumerate(heads)}
            with _replacing(self._path) as new:
                pq.write_table(table.take(sorted(last[key] for key in self._places)), new)
        _journal(self._path).unlink(missing_ok=True)


@contextmanager
def open_rows(
    path: Path,
    inputs: Sequence[Input],
    *,
    command: str,
    options: Mapping[str, Any],
    redo_degraded: bool,
    max_bytes: int,
) -> Iterator[Rows]:
    """Open a file of rows for this process alone, and leave it whole.

    Raises:
        InvalidRequestError: It says no format, is an input, holds something else, is in use or cannot be written.
        ConfigError: What Parquet needs is not installed.
    """
    if path.suffix.lower() == ".parquet":
        _need_pyarrow()
    path = Path(os.path.realpath(path))  # a link stays one
    refuse_inputs([path], inputs)
    try:
        file = _open_alone(_journal(path) if path.suffix.lower() == ".parquet" else path, shown=path)
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        rows = Rows(path, file, command=command, options=options, redo_degraded=redo_degraded, max_bytes=max_bytes)
        try:
            yield rows
        finally:
            rows.close()


def _open_alone(path: Path, *, shown: Path) -> BinaryIO:
    """Open a file for reading and appending that no other process writes to; it is made if it is not there."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o666)
        file = cast("BinaryIO", os.fdopen(descriptor, "r+b", buffering=0))
        try:
            _lock(file, shown)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # another process has replaced it meanwhile


def _lock(file: BinaryIO, shown: Path) -> None:
    """Take a file for this process, until it is closed or the process ends.

    Raises:
        InvalidRequestError: It is no regular file, or another process has it.
    """
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise InvalidRequestError(f"{shown} is not a regular file.", remedy="Name another file.")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidRequestError(
            f"{shown} is being written by another vision command.",
            remedy="Wait until it has ended, or name another file.",
        ) from error
    except (ImportError, OSError):  # Windows, or a file system without locks
        return


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of another when it is complete."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _records(file: BinaryIO, *, quoted: bool) -> Iterator[bytes]:
    """Yield the lines of a file with their ends; between quotes, a line break ends none."""
    file.seek(0)
    begun: list[bytes] = []
    quotes = 0
    with os.fdopen(os.dup(file.fileno()), "rb") as reader:
        for line in reader:
            begun.append(line)
            quotes += line.count(b'"') if quoted else 0
            if quotes % 2 == 0:
                yield b"".join(begun)
                begun.clear()
    if begun:
        yield b"".join(begun)


def _is_begun(raw: bytes) -> bool:
    """Return whether a line without its end may be the beginning of a row of JSON Lines."""
    first = b'{"source": "'
    return raw.startswith(first) or first.startswith(raw)


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _columns(command: str) -> tuple[str, ...]:
    return ("source", "sha256", "command", "options", *ANSWER_COLUMNS[command], *TRACE_COLUMNS, "cost_usd")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without records in it, in the order of the columns."""
    values = {**row["trace"], "cost_usd": row["trace"]["usage"]["cost_usd"], **row}
    return {name: values[name] for name in _columns(row["command"])}


def _csv_line(cells: Iterable[Any]) -> bytes:
    text = io.StringIO(newline="")
    shown = [_dump(cell) if isinstance(cell, bool | list | dict) else cell for cell in cells]
    csv.writer(text, lineterminator="\n").writerow(shown)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _dump(value: Any) -> str:  # noqa: ANN401 — anything JSON-able
    return json.dumps(value, sort_keys=True)


def _utf8(name: str) -> str:
    """Return a name that every format can hold."""
    return name.encode("utf-8", "backslashreplace").decode()


def _unwritable(path: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"{path} cannot be written: {error.strerror or error}.")


def _journal(path: Path) -> Path:
    """Return where the rows of a Parquet file are, which cannot be appended to, until the command ends."""
    return path.with_name(f"{path.name}.part")


def _need_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Parquet files need pyarrow.", remedy=f"Run: {pip_command('vision-backends[parquet]')}"
        ) from error


def _parquet_heads(path: Path) -> list[dict[str, Any]]:
    """Return of each row what says whether it is done.

    Raises:
        InvalidRequestError: It is not a Parquet file, or one of something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = ["source", "sha256", "command", "options", "degraded", "space"]
    try:
        names = pq.read_schema(path).names
        heads: list[dict[str, Any]] = pq.read_table(
            path, columns=[name for name in wanted if name in names]
        ).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequestError(f"{path} is not a Parquet file.", remedy="Name another file.") from error
    return heads


def _schema(command: str) -> Any:  # noqa: ANN401 — pyarrow has no types
    import pyarrow as pa

    label = [("label", pa.string()), ("score", pa.float64())]
    box = [*label, ("xyxy", pa.list_(pa.float64())), ("category_id", pa.int64())]
    types = {
        **dict.fromkeys(("complete", "informative", "degraded", "cached"), pa.bool_()),
        **dict.fromkeys(("width", "height", "dimension"), pa.int64()),
        **dict.fromkeys(("elapsed_s", "cost_usd"), pa.float64()),
        "items": pa.list_(pa.struct(box)),
        "image_labels": pa.list_(pa.struct(label)),
        "vector": pa.list_(pa.float32()),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in _columns(command)])
