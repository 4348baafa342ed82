"""Whose file a store may be kept in: what is not ours stays as it is."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sqlite3
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from blocked_store import until

from vision_backends import ConfigError, Router
from vision_backends.storage import open_store
from vision_backends.storage.base import LedgerRow
from vision_backends.storage.sqlite import SQLiteStore
from vision_backends.storage.sqlite_ownership import APPLICATION_ID
from vision_backends.testing import FakeBackend

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX owners and permissions")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")

PICTURE = Path(__file__).parents[2] / "benchmarks" / "photos" / "cat.jpg"
SOURCE = Path(__file__).parents[2] / "vision_backends" / "storage" / "sqlite_schema.py"


@pytest.fixture
def path(tmp_path):
    """Where the state is to be."""
    return tmp_path / "state"


def database(*statements):
    """A maker of a SQLite file of another program."""

    def make(path):
        db = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            db.execute(statement)
        db.close()

    return make


def listening(path):
    """A socket of another program; it stays when it is closed."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


FOREIGN = {
    "text": lambda path: path.write_text("Dear diary, " * 1000),
    "one byte": lambda path: path.write_bytes(b"x"),
    "zeros": lambda path: path.write_bytes(bytes(8192)),
    "picture": lambda path: shutil.copyfile(PICTURE, path),
    "our source": lambda path: shutil.copyfile(SOURCE, path),
    "beginning of a database": lambda path: path.write_bytes(b"SQLite format 3\x00"),
    "database": database("CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('mine')"),
    "database with a log": database("PRAGMA journal_mode=WAL", "CREATE TABLE state (key, value)"),
    "marked database": database("PRAGMA application_id=77", "PRAGMA user_version=1", "CREATE TABLE cache (key)"),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo if hasattr(os, "mkfifo") else None,
    "socket": listening,
}


def seen(folder):
    """Everything that lies in a folder, to the last byte."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else file.lstat().st_mode
        for file in folder.iterdir()
    }


@posix
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_ours_is_an_error_of_the_configuration_and_stays_as_it_is(path, kind):
    """Byte for byte, with nothing laid beside it, however often it is tried."""
    FOREIGN[kind](path)
    before = seen(path.parent)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"state.*is (a|not a) .*Set state to another path"):
            open_store(path)
    assert seen(path.parent) == before


@posix
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_state(device):
    """Nothing is read of one that never ends."""
    with pytest.raises(ConfigError, match="is a device, not a file"):
        open_store(device)


def test_what_lies_where_only_we_keep_files_is_damaged(path):
    """A power failure may leave anything; nobody has named that file, so it is no mistake of the configuration."""
    path.write_bytes(bytes(8192))
    store = open_store(path, is_ours=True)
    store.put("k", b"v")
    assert store.get("k") == b"v"
    store.close()
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.read_bytes() == bytes(8192)


def application_id(path):
    """How a file is marked."""
    db = sqlite3.connect(path)
    (found,) = db.execute("PRAGMA application_id").fetchone()
    db.close()
    return found


@pytest.mark.parametrize("in_log", [False, True])
def test_a_file_of_an_earlier_version_is_recognised_and_marked(path, in_log):
    """It has our tables and no mark; they may stand in its log alone, if its process was killed at once."""
    store = SQLiteStore(path)
    store.update("k", lambda _: ("kept", None))
    if in_log:
        for end in ("", "-wal"):
            shutil.copyfile(f"{path}{end}", path.with_name(f"killed{end}"))
        path = path.with_name("killed")
    store.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA application_id=0")
    if in_log:  # the mark as well
        (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
    db.close()
    assert application_id(path) == 0
    store = SQLiteStore(path)
    assert store.read("k") == "kept"
    store.close()
    assert application_id(path) == APPLICATION_ID


def test_a_file_whose_tables_are_overwritten_is_recognised_by_its_mark(path):
    """It is damaged, and no other program's."""
    used_file(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3996)
    store = SQLiteStore(path)
    store.put("k", b"v")
    assert store.get("k") == b"v"
    store.close()
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def test_a_file_that_a_killed_process_has_just_begun_is_taken_over(path):
    """It is a database without a table."""
    database("PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA journal_mode=WAL")(path)
    assert path.stat().st_size > 0
    store = SQLiteStore(path)
    store.put("k", b"v")
    assert store.get("k") == b"v"
    store.close()


@posix
def test_permissions_of_our_own_file_are_mended(path):
    """Of its companions too; what its owner may do stays as it was set."""
    store = SQLiteStore(path)
    store.put("k", b"v")
    for file in path.parent.iterdir():
        file.chmod(0o666)
    other = SQLiteStore(path)
    other.put("k", b"v")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {0o600}
    other.close()
    store.close()
    path.chmod(0o640)
    SQLiteStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix
@as_root
def test_another_users_file_is_refused(path):
    """Whoever owns it could read what we keep there, or make us believe anything."""
    SQLiteStore(path).close()
    os.chown(path, 12345, 12345)
    before = seen(path.parent)
    with pytest.raises(ConfigError, match=r"belongs to another user \(uid 12345\)"):
        open_store(path)
    assert seen(path.parent) == before


@posix
@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_a_companion_that_is_no_file_is_refused(path, end):
    """SQLite would wait for a pipe for ever, and write through a link."""
    SQLiteStore(path).close()
    companion = path.with_name(path.name + end)
    os.mkfifo(companion)
    with pytest.raises(ConfigError, match=f"{end}.*is not a file of yours"):
        open_store(path)
    companion.unlink()
    target = path.with_name("target")
    target.write_bytes(b"mine")
    companion.symlink_to(target)
    with pytest.raises(ConfigError, match=f"{end}.*is not a file of yours"):
        open_store(path)
    assert target.read_bytes() == b"mine"


@posix
def test_a_link_of_ones_own_is_followed(path):
    """The companions lie beside the file itself, and what is damaged is moved aside there."""
    target = path.parent / "elsewhere" / "real.sqlite"
    target.parent.mkdir()
    path.symlink_to(target)
    store = SQLiteStore(path)
    store.put("k", b"v")
    assert {file.name for file in target.parent.iterdir()} == {"real.sqlite", "real.sqlite-wal", "real.sqlite-shm"}
    store.close()
    with target.open("r+b") as file:
        file.write(b"rubbish")
    SQLiteStore(path).close()
    assert path.is_symlink()
    assert [file.name for file in path.parent.iterdir() if "damaged" in file.name] == []
    assert len(list(target.parent.glob("real.sqlite.damaged-*"))) == 1


@posix
@as_root
def test_a_link_of_another_user_is_refused(path):
    """He would choose which of our files we write to."""
    target = path.with_name("target")
    SQLiteStore(target).close()
    path.symlink_to(target)
    os.chown(path, 12345, 12345, follow_symlinks=False)
    with pytest.raises(ConfigError, match="a link that another user has made"):
        open_store(path)


@posix
@as_root
def test_a_link_of_the_administrator_is_followed():
    """He may do what he likes anyway."""
    with TemporaryDirectory() as folder:
        target, link = Path(folder, "target"), Path(folder, "store.sqlite")
        target.touch()
        link.symlink_to(target)
        for file in (folder, target):
            os.chown(file, 12345, 12345)
        os.seteuid(12345)
        try:
            store = SQLiteStore(link)
            store.put("k", b"v")
            store.close()
        finally:
            os.seteuid(0)
        assert target.stat().st_size > 0


def used_file(path):
    """A file that holds something of everything, in the file itself."""
    store = SQLiteStore(path)
    store.put("k", b"v" * 100)
    store.update("book/openai", lambda _: ('{"version":1,"spent":{"2026-11-23":[10,20]}}', None))
    store.record([LedgerRow(at=1.8e9, call_id="c", task="embed", backend="b", outcome="answered")] * 50)
    store.close()


PLACES = [*range(0, 100, 3), 60, 61, 62, 63, 68, 69, 70, 71, *range(100, 4096, 250), *range(4096, 40_000, 3_000)]


@pytest.mark.parametrize("flip", [0xFF, 0x01])
def test_one_wrong_byte_never_stops_a_router(tmp_path, flip):
    """Wherever it stands, the mark and the version included: the file is used, or moved aside and begun anew."""
    used = tmp_path / "used.sqlite"
    used_file(used)
    data = used.read_bytes()
    for place in PLACES:
        if place >= len(data):
            continue
        path = tmp_path / f"{place}.sqlite"
        path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        with Router([FakeBackend()], store=open_store(path)) as router:
            assert str(router.describe(PICTURE)).startswith("fake says"), place
        assert path.is_file()


@pytest.mark.parametrize("bit", range(8))
def test_a_version_with_one_wrong_bit_is_no_newer_version(path, bit):
    """It is damage; a newer version is an error of the configuration, see `test_a_newer_file_is_left_alone`."""
    used_file(path)
    with path.open("r+b") as file:
        file.seek(63)
        (version,) = file.read(1)
        file.seek(63)
        file.write(bytes([version ^ (1 << bit)]))
    SQLiteStore(path).close()
    assert list(path.parent.glob("*.damaged-*"))


def test_what_is_spent_stays_spent_when_a_file_is_damaged(path):
    """States that can still be read move to the new file."""
    used_file(path)
    size = path.stat().st_size
    db = sqlite3.connect(path)
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ledger'").fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xde\xad" * 2048)
    assert path.stat().st_size == size
    store = SQLiteStore(path)
    assert store.read("book/openai") == '{"version":1,"spent":{"2026-11-23":[10,20]}}'
    assert list(store.rows()) == []
    store.close()


def test_a_file_that_is_replaced_by_another_programs_is_left_alone(path):
    """The store says that it cannot be used; what took its place stays as it is."""
    store = SQLiteStore(path)
    store.put("k", b"v")
    store.close()
    store = SQLiteStore(path)
    path.unlink()
    database("CREATE TABLE notes (text)")(path)
    before = seen(path.parent)[path.name]
    with pytest.raises(OSError, match="database of another program"):
        store.get("k")
    assert seen(path.parent)[path.name] == before
    store.close()


@pytest.mark.parametrize("size", [0, 50, 4096, 10_000])
def test_a_file_that_is_cut_off_while_it_is_open_is_begun_anew(path, size):
    """It is known to be ours, whatever its bytes say now."""
    store = SQLiteStore(path)
    store.put("k", b"v" * 50_000)
    store.clear_cache()
    store.close()
    store = SQLiteStore(path)
    store.read("k")
    os.truncate(path, size)

    def works():
        try:
            store.put("k", b"new")
        except OSError:
            return False
        return store.get("k") == b"new"

    until(works)
    store.close()


def test_closing_a_file_that_was_replaced_leaves_the_log_of_the_new_one(path):
    """SQLite deletes a log by its name, whoever owns that by now."""
    old = SQLiteStore(path)
    old.put("k", b"old")
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).rename(path.with_name(f"aside{end}"))
    new = SQLiteStore(path)
    new.put("k", b"new")
    old.close()
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
    third = SQLiteStore(path)
    assert third.get("k") == b"new"
    third.close()
    new.close()
