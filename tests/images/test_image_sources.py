"""What may be read, from where, and how much of it; everything with real files."""

from __future__ import annotations

import base64
import io
import os
import random
import socket
import threading
import time
import zipfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from pictures import encode, make_scene, mean_difference
from PIL import Image as PILImage

from vision_backends.errors import ImageTooLargeError, InvalidImageError
from vision_backends.images import ImageLimits, open_image
from vision_backends.images.sources import _unescape

PNG = encode(make_scene(), "PNG")


def assert_is_scene(source: object) -> None:
    """Open a source and compare it with the picture that it was made from."""
    image = open_image(source)
    assert (image.width, image.height) == (64, 48)
    assert mean_difference(image.rgb(), make_scene()) == 0


class TestPaths:
    """Files are named by a string or path object."""

    def test_strings_and_path_objects_name_files(self, tmp_path: Path):
        """All three ways to write a path read the same file."""
        path = tmp_path / "a b ü.png"
        path.write_bytes(PNG)
        assert_is_scene(str(path))
        assert_is_scene(path)

        class BytesPath(os.PathLike):
            def __fspath__(self) -> bytes:
                return os.fsencode(path)

        assert_is_scene(BytesPath())

    def test_the_name_of_a_file_does_not_matter(self, tmp_path: Path):
        """A PNG called .jpg is a PNG."""
        path = tmp_path / "photo.jpg"
        path.write_bytes(PNG)
        assert_is_scene(path)

    def test_a_missing_file_is_named(self, tmp_path: Path):
        """The message has the path, the remedy where it starts."""
        with pytest.raises(InvalidImageError, match=r"nowhere\.jpg.*No such file.*working directory"):
            open_image(tmp_path / "nowhere.jpg")

    def test_a_directory_is_no_image(self, tmp_path: Path):
        """It is no regular file."""
        with pytest.raises(InvalidImageError, match="not a regular file"):
            open_image(tmp_path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_permission_is_named(self, tmp_path: Path):
        """The message says that permission is what lacks."""
        path = tmp_path / "secret.png"
        path.write_bytes(PNG)
        path.chmod(0)
        with pytest.raises(InvalidImageError, match=r"secret\.png.*ermission"):
            open_image(path)

    @pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png", "x" * 5000])
    def test_what_is_no_path_is_refused_in_one_line(self, name: str):
        """Null characters, lone surrogates and far too long names are no crash, and are not repeated in full."""
        with pytest.raises(InvalidImageError) as caught:
            open_image(name)
        assert len(str(caught.value)) < 400

    def test_a_pipe_that_nobody_writes_to_is_refused_at_once(self, tmp_path: Path):
        """It is no regular file, and nobody waits for it."""
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InvalidImageError, match="not a regular file"):
            open_image(tmp_path / "pipe")

    def test_a_device_that_never_ends_is_refused(self):
        """It is no regular file."""
        with pytest.raises(InvalidImageError, match="/dev/zero is not a regular file"):
            open_image("/dev/zero")

    def test_a_socket_is_refused(self, tmp_path: Path):
        """It is no regular file."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "socket"))
            with pytest.raises(InvalidImageError, match="not a regular file"):
                open_image(tmp_path / "socket")

    def test_a_file_over_the_limit_is_refused_before_it_is_read(self, tmp_path: Path):
        """A sparse file of a terabyte costs nothing."""
        path = tmp_path / "large.png"
        with path.open("wb") as file:
            file.truncate(1_000_000_000_000)
        with pytest.raises(ImageTooLargeError, match=r"large\.png has more than 50 MB.*max_bytes"):
            open_image(path)

    @pytest.mark.parametrize("url", ["https://x.org/a.jpg", "HTTP://x.org/a.jpg", "s3://b/a.jpg", "file:///a.jpg"])
    def test_urls_are_off_by_design(self, url: str):
        """The remedy says what to do instead."""
        with pytest.raises(InvalidImageError, match=r"off by design.*Fetch it yourself"):
            open_image(url)


class TestBytes:
    """Encoded bytes of any type."""

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_bytes_of_any_type_are_read(self, kind: type):
        """All three are the same image."""
        assert_is_scene(kind(PNG))

    def test_a_strided_memoryview_is_read(self):
        """Its bytes need not lie side by side."""
        assert_is_scene(memoryview(bytes(byte for value in PNG for byte in (value, 0)))[::2])

    def test_later_changes_of_a_bytearray_do_not_matter(self):
        """The digest is still that of the content that was opened."""
        source = bytearray(PNG)
        image = open_image(source)
        source[:] = bytes(len(source))
        assert image.digest == open_image(PNG).digest

    def test_a_released_memoryview_is_refused(self):
        """It is an error of the caller."""
        view = memoryview(PNG)
        view.release()
        with pytest.raises(InvalidImageError, match="released"):
            open_image(view)

    def test_no_bytes_are_no_image(self):
        """The message says that it is empty."""
        with pytest.raises(InvalidImageError, match=r"empty.*Accepted are JPEG"):
            open_image(b"")

    def test_too_many_bytes_are_refused(self):
        """The limit can be set."""
        with pytest.raises(ImageTooLargeError, match=r"more than 1e-05 MB"):
            open_image(PNG, limits=ImageLimits(max_bytes=10))


class TestFiles:
    """Open binary files, and whatever else has read()."""

    def test_a_file_is_read_to_its_end_and_left_open(self, tmp_path: Path):
        """The caller closes what the caller opened."""
        path = tmp_path / "a.png"
        path.write_bytes(PNG)
        with path.open("rb") as file:
            assert_is_scene(file)
            assert not file.closed

    def test_a_file_is_read_from_where_it_stands(self):
        """Whoever has read a header before means the rest."""
        file = io.BytesIO(b"header" + PNG)
        file.seek(6)
        assert_is_scene(file)

    def test_a_file_that_can_only_be_read_forward_is_fine(self, tmp_path: Path):
        """A member of an archive, and a pipe that gives a few bytes at a time."""
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", PNG)
        with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.png") as file:
            assert_is_scene(file)
        reading, writing = os.pipe()

        def dribble() -> None:
            with os.fdopen(writing, "wb", buffering=0) as pipe:
                for start in range(0, len(PNG), 50):
                    pipe.write(PNG[start : start + 50])

        writer = threading.Thread(target=dribble)
        writer.start()
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            assert_is_scene(pipe)
        writer.join()

    def test_a_stream_that_never_ends_is_cut_off_at_the_limit(self):
        """No more than the limit is read, plus one chunk."""
        limits = ImageLimits(max_bytes=3_000_000)
        with Path("/dev/zero").open("rb", buffering=0) as endless:
            with pytest.raises(ImageTooLargeError, match="more than 3 MB"):
                open_image(endless, limits=limits)
            assert not endless.closed

    def test_a_file_in_text_mode_is_refused_with_the_remedy(self):
        """The remedy is the binary mode."""
        with pytest.raises(InvalidImageError, match=r"returned a str.*binary mode"):
            open_image(io.StringIO("text"))

    def test_an_asynchronous_file_is_refused_without_a_warning(self):
        """An upload of a web framework has to be awaited by its caller."""

        class Upload:
            async def read(self, size: int = -1) -> bytes:
                return PNG[:size]

        with pytest.raises(InvalidImageError, match=r"returned a coroutine.*await"):
            open_image(Upload())

    def test_a_closed_file_is_refused(self):
        """Whatever its read() raises becomes an error of the caller."""
        file = io.BytesIO(PNG)
        file.close()
        with pytest.raises(InvalidImageError, match=r"The file cannot be read.*is open"):
            open_image(file)

    def test_a_file_open_for_writing_is_refused(self, tmp_path: Path):
        """There is nothing to read from it."""
        with (
            (tmp_path / "new.png").open("wb") as file,
            pytest.raises(InvalidImageError, match="cannot be read"),
        ):
            open_image(file)

    def test_a_file_with_a_name_is_called_by_it(self, tmp_path: Path):
        """A long list of files is easier to mend when the message names the one."""
        path = tmp_path / "notes.png"
        path.write_text("this is a text that somebody renamed")
        with (
            path.open("rb") as file,
            pytest.raises(InvalidImageError, match=r"The file .*notes\.png looks like text"),
        ):
            open_image(file)


class TestEndlessFiles:
    """Objects that give very little or very much."""

    def test_one_that_gives_a_byte_at_a_time_is_not_read_for_ever(self):
        """A million reads are no way to hand over an image."""

        class Dripping:
            def read(self, _size: int) -> bytes:
                return b"x"

        with pytest.raises(InvalidImageError, match=r"was read 500,000 times.*pass its bytes"):
            open_image(Dripping())

    def test_more_than_was_asked_for_is_not_copied(self):
        """What it gives is measured first."""

        class Generous:
            def read(self, _size: int) -> memoryview:
                return memoryview(bytearray(60_000_000))

        with pytest.raises(ImageTooLargeError, match="more than 50 MB"):
            open_image(Generous())


class TestDataUrls:
    """data: URLs as browsers and programs write them, and as they really are."""

    PLAIN = base64.b64encode(PNG).decode()

    @pytest.mark.parametrize(
        "header",
        ["data:image/png;base64,", "data:image/.jpg;base64,", "data:;base64,", "DATA:text/html;charset=x;BASE64,"],
    )
    def test_the_media_type_does_not_matter(self, header: str):
        """The bytes say what the image is."""
        assert_is_scene(header + self.PLAIN)

    def test_line_breaks_padding_and_alphabet_do_not_matter(self):
        """What common encoders write differently is read alike."""
        assert_is_scene("data:image/png;base64," + base64.encodebytes(PNG).decode())
        assert_is_scene("data:image/png;base64," + base64.urlsafe_b64encode(PNG).decode().rstrip("="))
        assert_is_scene("data:image/png;base64," + self.PLAIN.replace("+", "%2B").replace("=", "%3D"))

    def test_a_url_without_base64_is_percent_encoded(self):
        """The other way to write one."""
        assert_is_scene("data:image/png," + "".join(f"%{byte:02x}" for byte in PNG))

    @pytest.mark.parametrize("payload", ["abc*def", "a", "ab=cd", "\ud800", "äöü"])
    def test_what_is_not_base64_is_refused(self, payload: str):
        """The remedy shows how one is written."""
        with pytest.raises(InvalidImageError, match=r"not valid base64.*data:image/png;base64"):
            open_image("data:image/png;base64," + payload)

    def test_a_url_without_a_comma_is_refused(self):
        """There are no data in it."""
        with pytest.raises(InvalidImageError, match="no comma"):
            open_image("data:image/png;base64")

    def test_an_empty_url_is_refused(self):
        """There are no data in it either."""
        with pytest.raises(InvalidImageError, match="The data URL is empty"):
            open_image("data:image/png;base64,")

    def test_escapes_mean_what_they_mean_elsewhere(self):
        """Also those that are none, and those at the end of a piece that is worked on in one go."""
        chance = random.Random(5)  # noqa: S311
        for length in (0, 1, 2, 3, 50, (1 << 20) + 7):
            text = bytes(chance.choices(b"%%%%059afAFgz", k=length))
            assert _unescape(text) == unquote_to_bytes(text)

    def test_escapes_that_are_none_take_no_time(self):
        """The usual way takes a microsecond for each."""
        started = time.process_time()
        with pytest.raises(InvalidImageError, match="not valid base64"):
            open_image("data:;base64," + "%" * 20_000_000)
        assert time.process_time() - started < 5

    @pytest.mark.parametrize("header", ["data:image/png;base64,", "data:image/png,"])
    def test_a_url_over_the_limit_is_refused(self, header: str):
        """Before it is decoded, where its length alone is too much, and after."""
        for length in (50, 10_000):
            with pytest.raises(ImageTooLargeError, match="The data URL has more than"):
                open_image(header + "A" * length, limits=ImageLimits(max_bytes=30))

    def test_a_message_never_repeats_the_content(self):
        """Neither a broken data URL nor base64 passed as a path is written into a log in full."""
        for source in ("data:image/png;base64," + self.PLAIN[:-3] + "*", self.PLAIN * 50):
            with pytest.raises(InvalidImageError) as caught:
                open_image(source)
            assert len(str(caught.value)) < 400


@pytest.mark.parametrize("source", [None, 5, 5.0, [PNG], {"a": 1}, object(), PILImage, ["a.png"]])
def test_what_cannot_be_an_image_is_refused_by_its_type(source: object):
    """The message names the type, the remedy what is accepted."""
    with pytest.raises(InvalidImageError, match=f"{type(source).__qualname__} is not an image.*Accepted are"):
        open_image(source)
