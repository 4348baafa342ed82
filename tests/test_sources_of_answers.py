"""Every answer names the image that its caller asked about."""

import base64
import io
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image as PILImage

from vision_backends import Description, Router, UnavailableError
from vision_backends.testing import FakeBackend


@pytest.fixture
def photo(tmp_path):
    """A picture in a file."""
    path = tmp_path / "photo.png"
    PILImage.new("RGB", (64, 48), "teal").save(path)
    return path


@pytest.fixture
def router():
    """A ladder of one backend that answers everything."""
    with Router([FakeBackend("one")]) as made:
        yield made


class Named(io.BytesIO):
    """What a web framework makes of an upload."""

    name = "upload.png"


def ways_to_pass(photo):
    """Return inputs, each with the name that its answer is to have."""
    data = photo.read_bytes()
    opened = PILImage.open(photo)
    return [
        (str(photo), str(photo)),
        (photo, str(photo)),
        (photo.open("rb"), str(photo)),
        (Named(data), "upload.png"),
        (opened, str(photo)),
        (data, None),
        (bytearray(data), None),
        (io.BytesIO(data), None),
        (np.zeros((48, 64, 3), dtype=np.uint8), None),
        (PILImage.new("RGB", (64, 48)), None),
        (f"data:image/png;base64,{base64.b64encode(data).decode()}", None),
    ]


def test_an_answer_has_the_path_or_name_that_its_caller_gave(router, photo):
    """Never the bytes, by whichever method it was asked for."""
    for ask in (router.describe, router.embed, router.detect):
        for source, name in ways_to_pass(photo):
            assert ask(source).source == name
            if hasattr(source, "close"):
                source.close()


def test_the_answers_of_a_list_have_each_their_own_source(router, photo):
    """In its order, for lists and iterators."""
    for answers in (router.describe_many, router.detect_many, router.embed_many, router.describe_each):
        ways = ways_to_pass(photo)
        assert [answer.source for answer in answers([source for source, _ in ways])] == [name for _, name in ways]
        for source, _ in ways:
            if hasattr(source, "close"):
                source.close()


def test_a_cached_answer_has_the_source_of_who_asked_last(router, photo, tmp_path):
    """The cache knows contents, and one user's folders are nothing to another."""
    copy = tmp_path / "copy of somebody else.png"
    copy.write_bytes(photo.read_bytes())
    for ask in (router.describe, router.embed, router.detect):
        assert ask(photo).source == str(photo)
        for source, name in ((copy, str(copy)), (photo.read_bytes(), None)):
            again = ask(source)
            assert again.trace.cached
            assert again.source == name


def test_two_who_share_one_call_have_each_their_own_source(photo, tmp_path):
    """An identical question that is under way is not asked again."""
    copy = tmp_path / "copy.png"
    copy.write_bytes(photo.read_bytes())
    asked, go_on = threading.Event(), threading.Event()

    class Slow(FakeBackend):
        def describe(self, images, request, *, timeout_s):
            asked.set()
            go_on.wait(30)
            return super().describe(images, request, timeout_s=timeout_s)

    with Router([Slow("one")], deadline_s=60) as router, ThreadPoolExecutor() as pool:
        first = pool.submit(router.describe, photo)
        assert asked.wait(30)
        second = pool.submit(router.describe, copy)
        go_on.set()
        assert (first.result().source, second.result().source) == (str(photo), str(copy))


def test_a_backend_does_not_decide_what_the_source_is(photo):
    """It sees an image, not where it came from."""

    class Liar(FakeBackend):
        def describe(self, images, request, *, timeout_s):
            return [Description(text="A cat.", source="/etc/passwd") for _ in images]

    with Router([Liar("one")]) as router:
        assert router.describe(photo).source == str(photo)
        assert router.describe(photo.read_bytes()).source is None


def test_a_pipe_that_is_embedded_in_another_space_keeps_its_name(photo):
    """Although it can be read only once, and is kept as bytes for the next rung."""

    class Pipe(Named):
        def tell(self):
            raise OSError

    pipes = []
    for colour in ("red", "blue"):
        PILImage.new("RGB", (64, 48), colour).save(photo)
        pipes.append(Pipe(photo.read_bytes()))
    best, spare = FakeBackend("best", space="a"), FakeBackend("spare", space="b")
    best.play(0.0, UnavailableError("It is down."))
    with Router([best, spare]) as router:
        answers = router.embed_many(pipes)
    assert {answer.space for answer in answers} == {"b"}
    assert [answer.source for answer in answers] == ["upload.png", "upload.png"]


def test_an_embedded_text_has_no_source(router):
    """The text itself is not kept in the answer."""
    assert router.embed_text("a red bicycle").source is None
    assert [answer.source for answer in router.embed_text_many(["photo.png", "b"])] == [None, None]


def test_a_streams_description_has_its_source(router, photo):
    """As any other."""
    stream = router.describe_stream(photo)
    list(stream)
    assert stream.description.source == str(photo)


def test_a_reply_names_all_of_its_images(photo):
    """One image is the source as well."""
    with Router([FakeBackend("one")]) as router:
        one, two = router.ask(photo, "What?"), router.ask([photo, photo.read_bytes()], "What has changed?")
    assert (one.source, one.sources) == (str(photo), (str(photo),))
    assert (two.source, two.sources) == (None, (str(photo), None))
    assert json.loads(json.dumps(two.to_dict()))["sources"] == [str(photo), None]


def test_a_name_that_is_no_text_is_a_name_all_the_same(router, photo):
    """Of bytes, as the system has it; a number is none."""
    with open(os.fsencode(photo), "rb") as file:  # noqa: PTH123 — a Path is never bytes
        assert router.describe(file).source == str(photo)
    with os.fdopen(os.open(photo, os.O_RDONLY), "rb") as file:
        assert router.describe(file).source is None
