"""Memory for images is shared out to whoever asks first, and comes back whatever happens."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest
from pictures import encode, make_scene
from PIL import Image as PILImage

from vision_backends.errors import InvalidImageError
from vision_backends.images import open_image
from vision_backends.images.room import ROOM, Room


def test_whoever_asks_for_more_than_there_is_waits_until_others_leave():
    """In the order in which they asked, so that large ones are not passed by small ones for ever."""
    room, told = Room(100), []
    first = room.ask(70)
    large = room.ask(60, told=lambda: told.append("large"))
    small = room.ask(10, told=lambda: told.append("small"))
    assert (first.is_in, large.is_in, small.is_in, room.used_bytes) == (True, False, False, 70)
    first.leave()
    first.leave()
    assert told == ["large", "small"]
    assert (large.is_in, small.is_in, room.used_bytes) == (True, True, 70)


def test_one_that_needs_more_than_there_is_has_all_of_it():
    """Alone."""
    room = Room(100)
    small = room.ask(1)
    huge = room.ask(10_000, told=lambda: None)
    assert not huge.is_in
    small.leave()
    assert huge.is_in
    assert not room.ask(1).is_in


def test_one_that_does_not_wait_any_more_is_passed():
    """Nobody waits behind it."""
    room, told = Room(100), []
    first = room.ask(100)
    impatient = room.ask(100, told=lambda: told.append("impatient"))
    patient = room.ask(50, told=lambda: told.append("patient"))
    impatient.leave()
    first.leave()
    assert told == ["patient"]
    assert room.used_bytes == patient.size_bytes


def test_a_share_that_shrinks_makes_room():
    """What decoding took is given back when the pixels are there."""
    room, told = Room(100), []
    first = room.ask(100)
    second = room.ask(80, told=lambda: told.append("second"))
    first.resize(20)
    assert told == ["second"]
    assert room.used_bytes == 100
    assert second.is_in


def test_who_holds_a_share_already_does_not_wait():
    """Two that wait for each other would wait for ever."""
    room = Room(100)
    held = room.ask(100)
    assert room.ask(50, at_once=True).is_in
    assert held.is_in


def test_a_forgotten_share_comes_back():
    """Also one in a circle of references, which garbage collection ends in the middle of anything."""
    room = Room(100)
    share = room.ask(100)
    circle = [share]
    circle.append(circle)
    del share, circle
    gc.collect()
    assert room.ask(100).is_in


def test_nothing_is_lost_between_threads():
    """Thousands of shares that come and go leave the room as it was."""
    room = Room(1_000)

    def come_and_go() -> None:
        for size in range(1, 500):
            there = threading.Event()
            share = room.ask(size, told=there.set)
            if not share.is_in:
                assert there.wait(30)
            share.resize(size // 2)
            share.leave()

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    room.ask(0).leave()
    assert room.used_bytes == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_child_has_all_of_it():
    """What its parent's threads hold is no concern of it."""
    room = Room(100)
    held = room.ask(100)
    child = os.fork()
    if not child:
        held.leave()
        whole = room.ask(100)
        os._exit(0 if whole.is_in and room.used_bytes == 100 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not room.ask(1).is_in


@pytest.mark.parametrize("source", [encode(make_scene(), "PNG"), make_scene(), np.zeros((9, 9), "uint8"), b"GIF8"])
def test_opening_leaves_the_room_as_it_was(source: object):
    """Whether an image comes of it or an error; images that a caller keeps are the caller's."""
    before = ROOM.used_bytes
    kept = []
    for _ in range(3):
        try:
            kept.append(open_image(source))
        except InvalidImageError as error:
            kept.append(error)
    assert ROOM.used_bytes == before


def test_an_image_waits_for_room():
    """Its caller's thread does; it is there as soon as somebody leaves."""
    held = ROOM.ask(ROOM._max_bytes, at_once=True)
    opened = []
    thread = threading.Thread(target=lambda: opened.append(open_image(PILImage.new("RGB", (8, 8)))))
    thread.start()
    thread.join(0.2)
    assert not opened
    held.leave()
    thread.join(30)
    assert opened[0].width == 8
