"""The images of one question, together."""

import threading

import pytest
from PIL import Image as PILImage

from vision_backends import InvalidImageError, Router, open_image
from vision_backends.images.image import Opening
from vision_backends.images.limits import DEFAULT_LIMITS
from vision_backends.images.room import MAX_BYTES, ROOM
from vision_backends.images.several import Images, SeveralOpenings
from vision_backends.testing import FakeBackend

BLUE, RED = PILImage.new("RGB", (64, 48), "blue"), PILImage.new("RGB", (30, 20), "red")


def begin(*sources):
    """Read images."""
    return SeveralOpenings.begin(sources, min_side_px=None, wire=None, limits=DEFAULT_LIMITS)


def test_they_are_known_again_by_content_number_and_order():
    """An image alone is another question than the same one twice."""
    one, other = open_image(BLUE), open_image(RED)
    groups = [(one,), (other,), (one, one), (one, other), (other, one)]
    assert len({Images(group).digest for group in groups}) == len(groups)
    assert Images((one, other)).digest == Images((open_image(BLUE.copy()), open_image(RED.copy()))).digest


def test_the_room_of_all_is_divided_between_them():
    """And given back with them."""
    opening = begin(BLUE, RED)
    before = ROOM.used_bytes
    share = ROOM.ask(opening.room_bytes, at_once=True)
    images = opening.images(opening.decode(Opening.decode_here), share=share)
    assert share.is_left
    assert ROOM.used_bytes - before == images.memory_bytes == (64 * 48 + 30 * 20) * 4
    images.leave_room()
    assert ROOM.used_bytes == before


def test_an_error_says_which_image_is_meant(tmp_path):
    """Whether it is found while reading or while decoding."""
    BLUE.save(tmp_path / "half.jpg")
    half = (tmp_path / "half.jpg").read_bytes()[:-300]
    with pytest.raises(InvalidImageError, match=r"^Image 3: "):
        begin(BLUE, RED, b"broken")
    opening = begin(RED, half)
    with pytest.raises(InvalidImageError, match=r"^Image 2: "):
        opening.decode(Opening.decode_here)


def test_notes_say_which_image_they_are_about():
    """One alone needs no number."""
    clear = PILImage.new("RGBA", (8, 8), (0, 0, 0, 0))
    (note,) = Images((open_image(clear),)).notes
    assert Images((open_image(BLUE), open_image(clear))).notes == (f"Image 2: {note}",)


def test_questions_that_fill_the_room_take_turns():
    """None waits for another that has taken half of it: each has room for all of its images, or for none yet."""
    taken = ROOM.ask(MAX_BYTES - ROOM.used_bytes - 5 * 64 * 48 * 8, at_once=True)
    replies = []
    with Router([FakeBackend("seer")], deadline_s=20, caching=False) as router:

        def ask():
            replies.append(router.ask([BLUE] * 4, "What?").text)

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    taken.leave()
    assert len(replies) == 12


def test_the_notes_of_a_question_reach_its_trace():
    """As those of an image do."""
    clear = PILImage.new("RGBA", (8, 8), (0, 0, 0, 0))
    with Router([FakeBackend("seer")]) as router:
        assert router.ask([BLUE, clear], "What?").trace.notes[0].startswith("Image 2: ")
