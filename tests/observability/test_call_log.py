"""The log of what was asked and said: off unless switched on, for the user's eyes only, and never without an end."""

from __future__ import annotations

import base64
import io
import json
import stat

import pytest
from PIL import Image as PILImage

from vision_backends import Router, UnavailableError, VisionError
from vision_backends.config.loading import load_settings
from vision_backends.observability.call_log import CallLog

IMAGE = PILImage.new("RGB", (64, 48), "teal")
FAKE = "vision_backends.testing.fake:FakeBackend"


@pytest.fixture
def log(fresh_user) -> CallLog:
    """Where the log of a router with plain settings is."""
    return CallLog(load_settings(overrides={"logs": {"enabled": True}}).log_file)


def records(log):
    """What is in a log."""
    return [json.loads(line) for line in log.lines()]


def png() -> bytes:
    """The bytes of a picture."""
    file = io.BytesIO()
    IMAGE.save(file, "PNG")
    return file.getvalue()


def test_nothing_is_kept_unless_it_is_switched_on(log):
    """By default there is no file."""
    with Router.from_config(ladder=[FAKE]) as router:
        router.describe(IMAGE)
    assert not log.path.exists()


def test_prompt_answer_and_trace_are_kept_once_for_each_input(log):
    """Of single calls, of lists, of streams and of what comes out of the cache."""
    with Router.from_config(ladder=[FAKE], logs={"enabled": True}) as router:
        router.describe("data:image/png;base64," + base64.b64encode(png()).decode(), prompt="What is it?")
        router.describe_many([png(), IMAGE])
        list(router.describe_stream(IMAGE, max_words=3))
        router.embed_text("a cat")
    said = records(log)
    assert [(each["task"], each["input"]) for each in said] == [
        ("describe", "(data: URL)"),
        ("describe", "(bytes)"),
        ("describe", "(Image)"),
        ("describe", "(Image)"),
        ("embed_text", "a cat"),
    ]
    assert said[0]["asked"]["prompt"] == "What is it?"
    assert said[0]["answer"]["text"] == "fake says to 'What is it?': 64×48 px"
    assert said[0]["answer"]["trace"]["backend"] == "fake"
    assert len({each["call_id"] for each in said}) == 4
    assert said[4]["answer"]["dimension"] == 8
    assert "vector" not in said[4]["answer"]
    written = log.path.read_text()
    assert "iVBORw0KGgo" not in written
    assert "PNG" not in written


def test_what_nobody_could_answer_is_kept_with_what_was_tried(log):
    """An answer is not there, and the attempts say why."""
    from vision_backends.testing import FakeBackend

    best = FakeBackend("best")
    best.play(UnavailableError("No."))
    with Router([best]) as router:
        router._recorder.log = log
        with pytest.raises(VisionError):
            router.describe(IMAGE)
    (said,) = records(log)
    assert (said["answer"], said["attempts"][0]["message"]) == (None, "No.")


def test_no_bytes_of_an_image_and_no_secret_of_an_address_are_kept(log, fresh_user):
    """What a signed address or a name with a password would let others do."""
    from vision_backends.backends.requests import DescribeRequest
    from vision_backends.routing.call import Item
    from vision_backends.routing.logged import logged

    address = "https://me:secret@photos.test/cat.jpg?signature=abc"
    line = logged(Item(source=(address, fresh_user / "b.png")), DescribeRequest(), call_id="1", at=1.0)
    assert json.loads(line)["input"] == ["https://photos.test/cat.jpg", str(fresh_user / "b.png")]


def test_only_the_user_can_read_the_file(log):
    """Nor look into its folder."""
    log.append(["{}"])
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700


def test_a_full_file_takes_the_place_of_the_one_before_it(tmp_path):
    """The two together never take much more than twice what is allowed, and are read in order."""
    log = CallLog(tmp_path / "calls.jsonl", max_bytes=100)
    for number in range(30):
        log.append([f'"{number:020}"'])
    kept = records(log)
    assert kept == [f"{number:020}" for number in range(30 - len(kept), 30)]
    assert 5 < len(kept) < 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calls.jsonl", "calls.jsonl.1"]


def test_what_is_added_while_it_is_followed_is_yielded_once_and_in_order(tmp_path):
    """Across any number of new files, and what somebody still writes into the one before."""
    log = CallLog(tmp_path / "calls.jsonl", max_bytes=50)
    log.append(["first"])
    numbers, seen = iter(range(40)), []

    def write_some():
        for number in (next(numbers, None), next(numbers, None)):
            if number is None:
                raise StopAsyncIteration
            late = log.path.open("a") if number % 7 == 0 else None
            log.append([f"number {number:04}"])
            if late is not None:
                late.write(f"late {number:04}\n")
                late.close()

    with pytest.raises(StopAsyncIteration):
        seen.extend(log.follow(wait=write_some))
    whole = [line for lines in seen for line in lines]
    assert seen[0] == ["first"]
    assert [line for line in whole if line.startswith("number")] == [f"number {number:04}" for number in range(40)]
    assert [line for line in whole if line.startswith("late")] == [f"late {number:04}" for number in range(0, 40, 7)]


def test_a_line_is_yielded_when_it_is_whole(tmp_path):
    """One that is being written waits for its end; after the file is emptied it is read from its beginning."""
    log = CallLog(tmp_path / "calls.jsonl")
    steps = iter(("", "half a ", "line\nand", None, "new\n"))

    def write_some():
        text = next(steps)
        with log.path.open("w" if text is None else "a") as file:
            file.write(text or "")

    growing = log.follow(wait=write_some)
    assert [next(growing) for _ in range(6)] == [[], [], [], ["half a line"], [], ["new"]]
    growing.close()


def test_a_link_in_its_place_is_not_followed(tmp_path):
    """What is said must not end up in a file of somebody else's choice."""
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "calls.jsonl").symlink_to(target)
    with pytest.raises(OSError, match="calls"):
        CallLog(tmp_path / "calls.jsonl").append(["{}"])
    assert target.read_text() == ""
