"""Files of foreign origin are opened only if they are regular ones, and read within a limit."""

from __future__ import annotations

import os

import pytest

from vision_backends.regular_file import FileTooLargeError, NotRegularFileError, open_regular, read_regular


def test_a_file_is_read_up_to_its_limit(tmp_path):
    """Neither cut nor beyond."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, max_bytes=5) == b"12345"
    with pytest.raises(FileTooLargeError, match="more than 4e-06 MB"):
        read_regular(path, max_bytes=4)


def test_what_grows_after_it_was_measured_is_not_read_beyond_the_limit():
    """Files of /proc have no size."""
    assert os.stat("/proc/self/status").st_size == 0  # noqa: PTH116
    with pytest.raises(FileTooLargeError):
        read_regular("/proc/self/status", max_bytes=10)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "."])
def test_anything_else_is_refused(name: str):
    """Devices and directories."""
    with pytest.raises(NotRegularFileError), open_regular(name):
        pass


def test_a_pipe_is_not_waited_for(tmp_path):
    """Also one that takes the place of a file between two looks; a link to one as well."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(NotRegularFileError):
            read_regular(tmp_path / name, max_bytes=5)
