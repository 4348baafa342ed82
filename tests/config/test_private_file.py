"""Whose file is believed, and what is read of one that is odd."""

from __future__ import annotations

import grp
import os
import traceback
from typing import TYPE_CHECKING

import pytest

from vision_backends import ConfigError
from vision_backends.config.loading import load_settings
from vision_backends.config.private_file import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

OTHER = 12_345
"""The number of a user and a group that nobody has."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def file(tmp_path) -> Path:
    """A configuration in a folder of its own."""
    path = tmp_path / "folder" / "named.toml"
    path.parent.mkdir()
    path.write_text("deadline_s = 5", encoding="utf-8")
    return path


def refusal(path=None) -> ConfigError:
    """Return the error that reading the configuration ends with."""
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return caught.value


@pytest.mark.parametrize("bits", [0o002, 0o022])
def test_a_file_that_others_may_write_is_refused(file, bits):
    """Also when it is named; the message says how to close it."""
    file.chmod(0o644 | bits)
    error = refusal(file)
    assert f"others can write to {str(file)!r}" in error.message
    assert f"chmod go-w {file}" in error.remedy


def test_a_file_in_a_folder_that_others_may_write_is_refused(file):
    """They could put another one in its place."""
    file.parent.chmod(0o777)
    assert f"others can write to {str(file.parent)!r}" in refusal(file).message


def test_in_a_sticky_folder_everybody_has_their_own_files(file):
    """Such as /tmp."""
    file.parent.chmod(0o1777)
    assert load_settings(file).deadline_s == 5


@as_root
def test_a_file_of_another_user_is_refused(file):
    """In a sticky folder too, and where only its owner may write it."""
    file.parent.chmod(0o1777)
    os.chown(file, OTHER, -1)
    error = refusal(file)
    assert "belongs to another user" in error.message
    assert "VISION_CONFIG=/dev/null" in error.remedy


@as_root
def test_a_folder_of_another_user_is_refused(file):
    """Its owner may write it."""
    os.chown(file.parent, OTHER, -1)
    assert f"{str(file.parent)!r} belongs to another user" in refusal(file).message


@as_root
def test_a_group_that_others_are_in_may_not_write(file):
    """One without other members may, as Linux gives it to each user."""
    file.chmod(0o664)
    assert load_settings(file).deadline_s == 5
    for group in (OTHER, grp.getgrnam("daemon").gr_gid):
        os.chown(file, -1, group)
        assert "others can write to" in refusal(file).message


@as_root
def test_the_found_file_of_another_user_is_an_error_and_there_is_a_way_around(fresh_user, monkeypatch):
    """It is not ignored."""
    path = fresh_user / "vision.toml"
    path.write_text('ladder = ["embedded"]', encoding="utf-8")
    os.chown(path, OTHER, -1)
    assert "belongs to another user" in refusal().message
    monkeypatch.setenv("VISION_CONFIG", os.devnull)
    assert load_settings().deadline_s == 60


def test_a_link_is_as_good_as_each_folder_on_its_way(file, tmp_path):
    """The last one counts as much as the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    (first / "a.toml").symlink_to(second / "b.toml")
    (second / "b.toml").symlink_to(file)
    assert load_settings(first / "a.toml").deadline_s == 5
    for folder in (first, second, file.parent):
        folder.chmod(0o777)
        assert str(folder) in refusal(first / "a.toml").message
        folder.chmod(0o755)
    file.chmod(0o666)
    assert "others can write to" in refusal(first / "a.toml").message


@as_root
def test_a_link_that_another_user_has_made_is_refused(file, tmp_path):
    """It may lead elsewhere in a moment."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "a.toml").symlink_to(file)
    os.lchown(shared / "a.toml", OTHER, -1)
    assert "belongs to another user" in refusal(shared / "a.toml").message


@pytest.mark.parametrize("name", ["pipe", "folder", "/dev/zero"])
def test_what_is_no_regular_file_is_refused_at_once(name, tmp_path):
    """Nobody writes to the pipe, and /dev/zero never ends."""
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    elif name == "folder":
        path.mkdir()
    assert "not a regular file" in refusal(path).message


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless", "dangling", "circle"])
def test_what_is_no_regular_file_is_not_found(kind, fresh_user):
    """There is nothing in it to be believed."""
    path = fresh_user / "vision.toml"
    targets = {"endless": "/dev/zero", "dangling": "nowhere", "circle": "vision.toml"}
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(targets[kind])
    assert load_settings().deadline_s == 60
    if kind == "circle":
        assert "cannot be read" in refusal(path).message


def test_the_null_device_is_an_empty_file():
    """For whoever wants none."""
    assert load_settings(os.devnull).deadline_s == 60


def test_a_file_is_read_up_to_a_limit(file):
    """And none of it is shown."""
    text = 'openai.api_key = "sk-canary"\n'
    file.write_text(text + "#" * (MAX_BYTES - len(text)), encoding="utf-8")
    assert load_settings(file).openai == {"api_key": "sk-canary"}
    file.write_text(text + "#" * (MAX_BYTES - len(text) + 1), encoding="utf-8")
    error = refusal(file)
    assert "longer than 65,536 bytes" in error.message
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "sk-canary" not in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 60_000, "tables within tables"),
        ("a = " + "{a = " * 10_000, "tables within tables"),
        ("openai.headers." + "a." * 150 + "b = 1", "tables within tables"),
        ("a = " + "[" * 100 + "]" * 100, "tables within tables"),
        (".".join("a" * 30_000) + " = 1", "more than 200 dots"),
        ("deadline_s = " + "9" * 5_000, "too many digits"),
        ("deadline_s = 0x" + "f" * 60_000, "valid number"),
        ("[a]\n[a]", "not valid TOML"),
        ("\x00", "not valid TOML"),
    ],
)
def test_odd_toml_is_an_error_like_any_other(text, words, file):
    """A key of thirty thousand parts would take gigabytes."""
    file.write_text(text, encoding="utf-8")
    assert words in refusal(file).message


def test_a_mark_at_its_beginning_does_not_make_a_found_file_another_one(fresh_user):
    """What editors write is read, and judged."""
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        (fresh_user / "vision.toml").write_bytes('openai.base_url = "https://x.test"'.encode(encoding))
        assert "'openai.base_url'" in refusal().message


def test_a_name_that_no_system_takes_is_an_error():
    """Programs may pass anything."""
    assert "cannot be read" in refusal("a\0b").message
    assert "cannot be read" in refusal("a" * 5_000).message
