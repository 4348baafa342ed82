"""rapidocr finds and reads text offline, on the upright image; without it nobody pretends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.embedded.rapid_ocr import MODELS, _Engine
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest
from vision_backends.config.validation import parse_table
from vision_backends.errors import UnavailableError
from vision_backends.images import open_image

ROOT = Path(__file__).parents[3]
SIZE = (400, 640)
PLACE = (40, 250, 359, 289)
"""Where the sign's letters are."""

needs_rapidocr = pytest.mark.skipif(
    find_spec("rapidocr") is None, reason="the extra is missing: pip install 'vision-backends[ocr]'"
)


def sign(text="OPEN 24 HOURS", *, size=SIZE, at=(40, 240), height=42):
    """White letters on dark blue."""
    picture = PILImage.new("RGB", size, "navy")
    ImageDraw.Draw(picture).text(at, text, font=ImageFont.load_default(height), fill="white")
    return picture


@pytest.fixture(scope="module")
def reading():
    """A backend that reads; its models stay loaded."""
    made = EmbeddedBackend(threads=1, ocr="rapidocr")
    yield made
    made.close()


def read(backend, source, **options):
    """The description of one image."""
    (described,) = backend.describe([open_image(source)], DescribeRequest(**options), timeout_s=60)
    return described


def near(box, other, *, within):
    """Whether all sides of two boxes are so close."""
    return all(abs(one - two) <= within for one, two in zip(box, other, strict=True))


@needs_rapidocr
def test_text_is_quoted_and_placed(reading):
    """The sentence quotes it; the evidence has the string, how sure it is, and where it is."""
    described = read(reading, sign())
    (line,) = described.evidence["text"]
    assert 'The text reads "OPEN 24 HOURS".' in described.text
    assert line["string"] == "OPEN 24 HOURS"
    assert 0.95 < line["score"] <= 1
    assert near(line["xyxy"], PLACE, within=12)
    assert described.trace.model.endswith("+rapidocr")


@needs_rapidocr
@pytest.mark.parametrize(("orientation", "factor"), [(3, 1), (6, 7), (8, 1)])
def test_boxes_are_in_pixels_of_the_upright_image(reading, tmp_path, orientation, factor):
    """However the camera was held, and however small a large photo was decoded."""
    stored = {3: "ROTATE_180", 6: "ROTATE_90", 8: "ROTATE_270"}[orientation]
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    upright = sign().resize((SIZE[0] * factor, SIZE[1] * factor))
    upright.transpose(PILImage.Transpose[stored]).save(tmp_path / "photo.jpg", exif=exif)
    image = open_image(tmp_path / "photo.jpg", min_side_px=reading.image_px(DescribeRequest()))
    (described,) = reading.describe([image], DescribeRequest(), timeout_s=60)
    (line,) = described.evidence["text"]
    x1, y1, x2, y2 = line["xyxy"]
    assert (image.width, image.height) == upright.size
    assert 0 <= x1 < x2 <= image.width
    assert 0 <= y1 < y2 <= image.height
    assert near(line["xyxy"], [side * factor for side in PLACE], within=12 * factor)
    assert line["string"] == "OPEN 24 HOURS"


@needs_rapidocr
@pytest.mark.parametrize("turned", ["ROTATE_90", "ROTATE_180"])
def test_turned_text_is_read(reading, turned):
    """Along the side of a picture, or upside down."""
    assert read(reading, sign().transpose(PILImage.Transpose[turned])).evidence["text"][0]["string"] == "OPEN 24 HOURS"


@needs_rapidocr
def test_lines_come_from_top_to_bottom(reading):
    """Each is quoted by itself, as many as there is room for."""
    picture = sign("OPEN")
    draw = ImageDraw.Draw(picture)
    for row, text in enumerate(("FRESH BREAD", "NO DOGS")):
        draw.text((40, 340 + 90 * row), text, font=ImageFont.load_default(42), fill="white")
    assert 'The text reads "OPEN", "FRESH BREAD" and "NO DOGS".' in read(reading, picture).text
    assert read(reading, picture, max_words=10).text == 'The image shows text. The text reads "OPEN" and more.'


@needs_rapidocr
def test_photos_without_legible_text_have_none(reading, photos):
    """Stripes of fur and grains of a photo are no letters."""
    for name in ("cat", "photographer"):
        described = read(reading, photos[name])
        assert described.evidence["text"] == [], name
        assert "text reads" not in described.text


@needs_rapidocr
@pytest.mark.parametrize("size", [(1, 1), (10, 2), (3000, 20), (20, 3000)])
def test_every_image_gets_an_answer(reading, size):
    """Be it a pixel wide."""
    assert read(reading, PILImage.new("RGB", size)).evidence["text"] == []


@needs_rapidocr
def test_threads_get_the_same_reading():
    """They share one engine, which is loaded by the first and freed by close."""
    backend = EmbeddedBackend(threads=1, ocr="rapidocr")
    assert backend.status()["models"]["rapidocr"] == "on disk"
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(read, backend, sign(text)) for text in ("ONE", "TWO", "THREE")]
        assert [job.result().evidence["text"][0]["string"] for job in jobs] == ["ONE", "TWO", "THREE"]
    assert backend.status()["models"]["rapidocr"] == "loaded"
    backend.close()
    assert backend.status()["models"]["rapidocr"] == "on disk"


def run_python(script, *, path=""):
    """Run a script in a process of its own, where every warning is an error."""
    command = [sys.executable, "-W", "error", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env=environment)


QUIET = """
import sys
def refuse(event, args):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        raise SystemExit(f"touched the network: {event} {args}")
sys.addaudithook(refuse)

from PIL import Image, ImageDraw, ImageFont
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.requests import DescribeRequest
from vision_backends.images import open_image

backend, request = EmbeddedBackend(threads=1, ocr="rapidocr"), DescribeRequest()
backend.check(request)
backend.model_for(request)
print(sorted({"numpy", "onnxruntime", "PIL.ImageOps", "rapidocr", "cv2"} & set(sys.modules)))
empty = Image.new("RGB", (320, 240), "navy")
full = empty.copy()
ImageDraw.Draw(full).text((20, 90), "PUSH", font=ImageFont.load_default(60), fill="white")
for described in backend.describe([open_image(empty), open_image(full)], request, timeout_s=60):
    print([line["string"] for line in described.evidence["text"]])
"""


@needs_rapidocr
def test_reading_is_silent_offline_and_loads_late():
    """Nothing on stderr, no connection, and rapidocr is imported when the first text is to be read."""
    done = run_python(QUIET)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n[]\n['PUSH']\n", "")


FORK = """
import os, signal
from PIL import Image, ImageDraw, ImageFont
from vision_backends.backends.embedded.rapid_ocr import RapidOcr
from vision_backends.backends.embedded.reading import Reader

picture = Image.new("RGB", (320, 240), "navy")
ImageDraw.Draw(picture).text((20, 90), "PUSH", font=ImageFont.load_default(60), fill="white")
ocr = RapidOcr(threads=1)
def read():
    reading = Reader(ocr).read(picture, window=(0, 0, 320, 240), width=320, height=240, left_s=lambda: 60)
    return [(line.string, line.xyxy) for line in reading.lines]
before = read()
child = os.fork()
if child == 0:
    signal.alarm(30)
    assert not ocr.loaded
    assert read() == before
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(before[0][0])
"""


@needs_rapidocr
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_reads_too():
    """It loads its own engine, and does not wait for the parent's threads."""
    done = run_python(f"import warnings; warnings.simplefilter('ignore')\n{FORK}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "PUSH\n", "")


NOT_READY = """
import sys
{before}
from PIL import Image
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest
from vision_backends.errors import NotReadyError
from vision_backends.images import open_image

backend = EmbeddedBackend(threads=1, ocr="rapidocr")
for request in (DetectRequest(), EmbedRequest()):
    backend.check(request)
image = open_image(Image.new("RGB", (64, 64)))
for ask in (backend.check, lambda request: backend.describe([image], request, timeout_s=60)):
    try:
        ask(DescribeRequest())
    except NotReadyError as error:
        print(error.message, error.remedy)
    else:
        print("ready")
EmbeddedBackend(threads=1).check(DescribeRequest())
"""


def test_without_rapidocr_a_backend_that_should_read_is_not_ready():
    """It was asked for by name, so nobody leaves it out silently; the command that installs it is told."""
    done = run_python(NOT_READY.format(before='sys.modules["rapidocr"] = None'))
    said = (
        '[embedded] ocr = "rapidocr" needs rapidocr, which is not installed. '
        f"Run: {sys.executable} -m pip install 'vision-backends[ocr]', or leave ocr out of [embedded].\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, said * 2, "")


def test_a_rapidocr_without_the_models_is_not_ready(tmp_path):
    """Another version might download its own: so its files are looked for before it is loaded."""
    (tmp_path / "rapidocr").mkdir()
    (tmp_path / "rapidocr" / "__init__.py").touch()
    done = run_python(NOT_READY.format(before=""), path=tmp_path)
    first, second = done.stdout.splitlines()
    assert "does not contain PP-OCRv6_det_small.onnx, " in first
    assert "pip install --force-reinstall 'rapidocr==3.10.*'" in first
    assert second == first


def test_a_rapidocr_that_cannot_be_imported_is_not_ready(tmp_path):
    """A library that it needs may be missing; that shows in the call."""
    models = tmp_path / "rapidocr" / "models"
    models.mkdir(parents=True)
    for name in MODELS.values():
        (models / name).touch()
    (tmp_path / "rapidocr" / "__init__.py").write_text("raise ImportError('libGL.so.1')\n", encoding="utf-8")
    done = run_python(NOT_READY.format(before=""), path=tmp_path)
    first, second = done.stdout.splitlines()
    assert first == "ready"
    assert "cannot be loaded: libGL.so.1" in second


def test_a_failing_rapidocr_is_unavailable():
    """Its own errors are translated, and their texts, which hold whole tracebacks, are left out."""

    def broken(image, **steps):
        raise RuntimeError("Traceback (most recent call last): ...")

    engine = _Engine(ocr=broken, lock=threading.Lock())
    with pytest.raises(UnavailableError, match=r"^rapidocr failed: RuntimeError\.$"):
        engine.find(PILImage.new("RGB", (8, 8)))


def test_reading_changes_what_the_cache_keys_by():
    """A description with text and one without are answers of different models; embeddings and boxes are the same."""
    plain, reading = EmbeddedBackend(ocr="off"), EmbeddedBackend(ocr="rapidocr")
    one, other = (backend.model_for(DescribeRequest()) for backend in (plain, reading))
    assert (one.name, one.revision, one.fingerprint) != (other.name, other.revision, other.fingerprint)
    assert other.name == f"{one.name}+rapidocr"
    for request in (DetectRequest(), EmbedRequest()):
        assert plain.model_for(request) == reading.model_for(request)


def test_the_router_is_told_that_reading_takes_longer_and_more_pixels():
    """Only a description does."""
    plain, reading = (
        EmbeddedBackend(ocr="off"),
        EmbeddedBackend(**parse_table(EmbeddedBackend, {"ocr": "rapidocr"}, section="[e]")),
    )
    assert reading.image_px(DescribeRequest()) > plain.image_px(DescribeRequest())
    assert reading.expected_s(DescribeRequest()) > plain.expected_s(DescribeRequest())
    for request in (DetectRequest(), EmbedRequest()):
        assert reading.image_px(request) == plain.image_px(request)
        assert reading.expected_s(request) == plain.expected_s(request)
