"""Decoding in a process of its own: the same pixels and errors, limits of memory, and an end when it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from io import BytesIO

import pytest
from pictures import FORMATS, encode, make_scene, mean_difference
from PIL import Image as PILImage

from vision_backends.errors import ImageTooLargeError, InvalidImageError, OverloadedError
from vision_backends.images import DEFAULT_LIMITS, open_image
from vision_backends.images.child import decode_apart
from vision_backends.images.decoding import measure
from vision_backends.images.limits import Encoded

SCENE = make_scene()


def measured(data: bytes, **options):
    """Return what is known of a file."""
    return measure(Encoded(name="The file", data=data), limits=DEFAULT_LIMITS, **options)


@pytest.mark.parametrize(("kind", "options"), FORMATS[:1] + FORMATS[2:4] + FORMATS[-1:])
def test_the_pixels_are_the_same(kind: str, options: dict):
    """Whichever process decodes them."""
    data = encode(SCENE, kind, **options)
    found = decode_apart(measured(data))
    assert (found.width, found.height, found.notes) == (64, 48, ())
    assert mean_difference(found.pixels, open_image(data).rgb()) == 0


def test_reduced_scale_and_notes_come_along():
    """What a viewer would want to know."""
    jpeg = encode(SCENE.resize((640, 480)), "JPEG")
    found = decode_apart(measured(jpeg, min_side_px=60))
    assert (found.width, found.height, found.pixels.size) == (640, 480, (80, 60))
    clear = PILImage.new("RGBA", (8, 8))
    assert "wholly transparent" in decode_apart(measured(encode(clear, "PNG"))).notes[0]


def test_errors_are_the_same():
    """With their name and their remedy."""
    with pytest.raises(InvalidImageError, match=r"The file is damaged or cut short.*Fetch or save it again"):
        decode_apart(measured(encode(PILImage.effect_noise((99, 99), 50), "PNG")[:-2_000]))


def test_more_memory_than_was_counted_is_not_given():
    """The system refuses it to that process alone."""
    if sys.platform != "linux":
        pytest.skip("no limit of address space here")
    data = encode(PILImage.new("L", (12_000, 3_000)), "AVIF", speed=10)
    with pytest.raises((ImageTooLargeError, InvalidImageError)):
        decode_apart(replace(measured(data), room_bytes=-150_000_000))


def test_it_ends_when_that_is_asked_for():
    """However long it would have taken."""
    begun = threading.Event()
    ends = []

    def started(end):
        ends.append(end)
        begun.set()

    def end_soon():
        begun.wait(30)
        ends[0]()

    thread = threading.Thread(target=end_soon)
    thread.start()
    with pytest.raises(InvalidImageError, match="its decoder ended with status -9"):
        decode_apart(measured(encode(PILImage.effect_noise((4_000, 4_000), 50), "PNG")), started=started)
    thread.join()


@pytest.mark.parametrize("side_px", [20, 400, 4_000])
def test_it_may_have_ended_before_it_is_told_anything(side_px):
    """What is still in the buffer of the pipe then is nobody's error."""

    def end_at_once(kill):
        kill()
        kill.__self__.wait(30)

    with pytest.raises(InvalidImageError, match="its decoder ended with status -9"):
        decode_apart(measured(encode(PILImage.effect_noise((side_px, side_px), 50), "PNG")), started=end_at_once)


def test_an_avif_that_nobody_can_count_is_decoded_where_memory_ends():
    """An animation need not have a still picture beside it; its first picture is seen all the same."""
    others = [PILImage.new("RGB", SCENE.size, colour) for colour in ("blue", "red")]
    data = encode(SCENE, "AVIF", save_all=True, append_images=others, quality=95)
    without = data.replace(b"pitm", b"free")
    assert not measured(data).needs_limits
    assert measured(without).needs_limits
    assert mean_difference(open_image(without).rgb(), open_image(data).rgb()) == 0


def test_it_sees_nothing_of_the_environment():
    """A decoder of hostile files has no use for keys."""
    program = (
        "import os, subprocess\n"
        "os.environ['OPENAI_API_KEY'] = 'canary'\n"
        "from vision_backends.images import child\n"
        "started = child._start()\n"
        "print(open(f'/proc/{started.pid}/environ').read().count('canary'))\n"
        "started.kill(); started.communicate()\n"
    )
    if sys.platform != "linux":
        pytest.skip("no /proc here")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "0"


def test_it_works_from_a_program_without_a_main_guard(tmp_path):
    """Which multiprocessing would run again in the child."""
    picture = tmp_path / "scene.png"
    picture.write_bytes(encode(SCENE, "PNG"))
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\n"
        "from vision_backends.images import DEFAULT_LIMITS\n"
        "from vision_backends.images.child import decode_apart\n"
        "from vision_backends.images.decoding import measure\n"
        "from vision_backends.images.limits import Encoded\n"
        f"data = Path({str(picture)!r}).read_bytes()\n"
        "print(decode_apart(measure(Encoded(name='it', data=data), limits=DEFAULT_LIMITS)).width)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = [sys.executable, str(program)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert done.stdout.strip() == "64"


def test_a_process_that_cannot_be_started_is_no_fault_of_the_image(monkeypatch):
    """It is said what to do."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OverloadedError, match=r"No process could be started.*ulimit"):
        decode_apart(measured(encode(SCENE, "PNG")))


HEIF_PLUGIN = """
from PIL import Image

def decode(file, name):
    return Image.new("RGB", (30, 20), "red")

def register_heif_opener():
    Image.register_open("HEIF", decode)
"""
"""Stands for pillow-heif, which is not everywhere."""


def test_a_plugin_for_heic_that_is_installed_is_used_where_memory_and_time_end(tmp_path, monkeypatch):
    """Nothing has to be registered, and its decoder is never let into this process."""
    (tmp_path / "pillow_heif.py").write_text(HEIF_PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    image = open_image(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00heicmif1" + bytes(100))
    assert (image.width, image.height, image.rgb().getpixel((0, 0))) == (30, 20, (255, 0, 0))
    assert "pillow_heif" not in sys.modules


def test_a_photo_of_a_phone_is_upright():
    """As pillow-heif itself reads it."""
    plugin = pytest.importorskip("pillow_heif")
    exif = PILImage.Exif()
    exif[0x112] = 6  # to be turned by a quarter
    file = BytesIO()
    scene = PILImage.new("RGB", (120, 80), "red")
    scene.paste("blue", (0, 0, 60, 80))
    plugin.from_pillow(scene).save(file, exif=exif.tobytes())
    image = open_image(file.getvalue())
    assert (image.width, image.height) == (80, 120)
    assert image.rgb().getpixel((5, 5))[2] > 200
