"""How answers look: in a notebook, in a file, in a viewer, in a log."""

import base64
import dataclasses
import json
import re
import sys
from io import BytesIO
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image as PILImage
from PIL import ImageShow

from vision_backends import (
    Attempt,
    ConfigError,
    Description,
    Detection,
    Detections,
    Embedding,
    ImageLabel,
    InvalidRequestError,
    Reply,
    Trace,
)
from vision_backends.installing import pip_command

EVIL = '<script>alert("1")</script>\'&\x00\u202e'
TRACE = Trace(backend="embedded", model="nanodet", elapsed_s=0.25)
DEGRADED = dataclasses.replace(TRACE, degraded=True, reason="openai: The account has no quota left")


@pytest.fixture
def photo(tmp_path):
    """A grey picture in a file."""
    path = tmp_path / "photo.png"
    PILImage.new("RGB", (900, 600), "grey").save(path)
    return path


def found(source, **fields):
    """Return what was found in a picture of 900×600."""
    items = (Detection(label="cat", score=0.9, xyxy=(90, 60, 450, 300)),)
    return Detections(items=items, width=900, height=600, source=source and str(source), trace=TRACE, **fields)


def pictures(card):
    """Return the pictures that are part of a card."""
    data = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', card)
    return [PILImage.open(BytesIO(base64.b64decode(each))) for each in data]


def test_a_card_shows_the_image_with_its_boxes_and_who_answered(photo):
    """The picture is small, and is read only now: the answer has kept no pixels."""
    card = found(photo)._repr_html_()
    (shown,) = pictures(card)
    assert shown.size == (480, 320)
    assert max(count for count, _ in shown.getcolors(10**6)) < 480 * 320  # something is drawn on the grey
    assert "cat 0.90" in card
    assert "embedded · nanodet · 0.25 s" in card
    assert "degraded" not in card


@pytest.mark.parametrize("kind", [Description, Reply])
def test_a_card_of_a_text_shows_its_image_and_a_badge_when_degraded(photo, kind):
    """With the reason."""
    named = {"source": str(photo)} if kind is Description else {"sources": (str(photo), str(photo))}
    card = kind(text="A cat.", trace=DEGRADED, **named)._repr_html_()
    assert len(pictures(card)) == (1 if kind is Description else 2)
    assert "A cat." in card
    assert ">degraded</span>" in card
    assert "no quota left" in card


@pytest.mark.parametrize("answer", [
    Description(text=EVIL, source=EVIL, trace=Trace(backend=EVIL, model=EVIL, degraded=True, reason=EVIL)),
    Reply(text=EVIL, sources=(EVIL,), trace=Trace(backend=EVIL)),
    Embedding(vector=[1.0], space=EVIL, source=EVIL, trace=Trace(backend=EVIL)),
    dataclasses.replace(found(EVIL), items=(Detection(label=EVIL, score=1, xyxy=(0, 0, 9, 9)),),
                        image_labels=(ImageLabel(label=EVIL, score=1),)),
])  # fmt: skip
def test_nothing_in_a_card_is_markup_but_its_own(answer):
    """Labels, texts, names and reasons come from others, and so might a script."""
    card = answer._repr_html_()
    assert "&lt;script&gt;" in card
    assert not re.search('<script|\x00|\u202e|alert\\("', card)


def test_the_name_of_an_image_is_escaped_in_its_card(tmp_path):
    """A file may be called like an attribute."""
    path = tmp_path / 'x" onerror="alert(1).png'
    PILImage.new("RGB", (900, 600)).save(path)
    card = found(path)._repr_html_()
    assert len(pictures(card)) == 1
    assert 'onerror="' not in card


@pytest.mark.parametrize("state", ["nameless", "gone", "another", "damaged"])
def test_without_its_image_an_answer_has_a_card_all_the_same(photo, state):
    """Nothing is drawn on a file that is another one now, and a notebook never sees an error."""
    answer = found(None if state == "nameless" else photo)
    if state == "gone":
        photo.unlink()
    elif state == "another":
        PILImage.new("RGB", (60, 90)).save(photo)
    elif state == "damaged":
        photo.write_bytes(b"no image")
    assert pictures(answer._repr_html_()) == []
    assert "cat 0.90" in answer._repr_html_()
    with pytest.raises(InvalidRequestError) as caught:
        answer.draw()
    assert "image=" in caught.value.remedy


def test_a_web_address_is_never_fetched_for_a_card():
    """What was allowed for the call is not allowed for looking at its answer."""
    answer = found("https://127.0.0.1:9/photo.jpg")
    assert pictures(answer._repr_html_()) == []
    with pytest.raises(InvalidRequestError, match="URL"):
        answer.draw()


def test_boxes_are_drawn_on_whatever_is_an_image(photo):
    """As far as it can be opened: bytes, arrays, paths."""
    drawn = found(photo).draw()
    assert drawn.size == (900, 600)
    with PILImage.open(photo) as opened:
        for image in (photo, str(photo), photo.read_bytes(), opened):
            assert found(None).draw(image).tobytes() == drawn.tobytes()


def test_boxes_are_drawn_on_a_picture_above_the_limits_of_files():
    """It is in memory, by the leave of whoever has opened it."""
    wide = PILImage.new("L", (41_000_000, 1), "grey")
    answer = Detections(items=(), width=41_000_000, height=1)
    with pytest.raises(InvalidRequestError, match="cannot be opened"):
        answer.draw(wide.tobytes())
    assert answer.draw(wide).size == wide.size


def test_boxes_are_drawn_on_the_upright_image(tmp_path):
    """A phone stores it on its side."""
    path = tmp_path / "phone.jpg"
    exif = PILImage.Exif()
    exif[0x0112] = 6
    PILImage.new("RGB", (600, 900), "grey").save(path, exif=exif)
    assert found(path).draw().size == (900, 600)
    with PILImage.open(path) as opened:
        assert found(None).draw(opened).size == (900, 600)


def test_a_detection_is_saved_as_a_picture_a_page_or_json(photo, tmp_path):
    """By the suffix; JSON is read again as it was."""
    answer = found(photo)
    for name in ("out/boxes.jpg", "boxes.png", "boxes.WEBP"):
        answer.save(tmp_path / name)
        with PILImage.open(tmp_path / name) as saved:
            assert saved.size == (900, 600)
    answer.save(tmp_path / "page.html")
    assert len(pictures((tmp_path / "page.html").read_text(encoding="utf-8"))) == 1
    answer.save(str(tmp_path / "answer.json"))
    assert Detections.from_dict(json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))) == answer


@pytest.mark.parametrize("name", ["answer.txt", "answer", "photo.jpg"])
def test_a_text_is_no_picture(tmp_path, name):
    """The message says what it can be saved as."""
    with pytest.raises(InvalidRequestError, match="no format") as caught:
        Description(text="A cat.").save(tmp_path / name)
    assert caught.value.remedy == "End it in .json, .html."


def test_an_image_is_not_overwritten_with_its_boxes(photo, tmp_path):
    """Whatever the path to it is called, and also where it was passed."""
    before = photo.read_bytes()
    for answer, image in ((found(photo), None), (found(None), photo)):
        with pytest.raises(InvalidRequestError, match="the image itself"):
            answer.save(tmp_path / "." / photo.name, image=image)
    assert photo.read_bytes() == before


def test_a_file_that_cannot_be_written_is_the_callers_error(photo):
    """As every other file."""
    for name in ("boxes.png", "answer.json"):
        with pytest.raises(InvalidRequestError, match="cannot be written"):
            found(photo).save(photo / name)


def test_an_image_that_was_passed_and_cannot_be_opened_is_said(tmp_path):
    """Only what was opened for want of another is left out in silence."""
    with pytest.raises(InvalidRequestError, match="cannot be opened"):
        found(None).save(tmp_path / "page.html", image=b"no image")


def test_outside_a_notebook_the_picture_is_shown_in_a_viewer(photo, monkeypatch):
    """Pillow's."""
    shown = []

    class Viewer(ImageShow.Viewer):
        def show(self, image, **options):
            shown.append(image.size)
            return True

    monkeypatch.setattr(ImageShow, "_viewers", [Viewer()])
    found(photo).show()
    Description(text="A cat.").show(image=photo)
    assert shown == [(900, 600)] * 2


def test_in_a_notebook_the_card_is_shown(photo, monkeypatch):
    """Below the cell."""
    shown = []
    notebook = ModuleType("IPython")
    notebook.get_ipython = lambda: SimpleNamespace(kernel=1)
    notebook.display = SimpleNamespace(display_html=lambda html, raw: shown.append((html, raw)))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    answer = found(photo)
    answer.show()
    assert shown == [(answer._repr_html_(), True)]


def test_a_plot_has_the_picture_on_its_axes(photo):
    """On those of the caller, or on new ones."""
    figure = pytest.importorskip("matplotlib.figure")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    assert found(photo).plot().get_title() == "embedded"
    pyplot.close("all")
    ax = figure.Figure().subplots()
    assert dataclasses.replace(found(photo), trace=DEGRADED).plot(ax=ax) is ax
    assert ax.images[0].get_array().shape == (600, 900, 3)
    assert ax.get_title() == "embedded (degraded)"


def test_without_matplotlib_a_plot_says_what_to_install(photo, monkeypatch):
    """For the interpreter that runs."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ConfigError, match="plot\\(\\) needs matplotlib") as caught:
        found(photo).plot()
    assert caught.value.remedy == f"Run: {pip_command('matplotlib')}"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (Description(text="A cat.\nIt sleeps.", source="a.jpg", trace=DEGRADED),
         "<Description 'A cat. It sleeps.' of 'a.jpg' by embedded, degraded>"),
        (Reply(text='{"cats": 1}', data={"cats": 1}, trace=TRACE), "<Reply \"{'cats': 1}\" by embedded>"),
        (Embedding(vector=[1.0], space="toy"), "<Embedding of 1 components in 'toy'>"),
        (found(None, image_labels=(ImageLabel(label="garden", score=1),)),
         "<Detections: 1 in 900×600 px: cat 0.90; of the whole: garden by embedded>"),
        (Detections(items=(), width=9, height=8), "<Detections: 0 in 9×8 px>"),
        (Trace(), "<Trace>"),
        (DEGRADED, "<Trace: embedded, nanodet, degraded, 0 attempts, 0.25 s>"),
        (dataclasses.replace(TRACE, attempts=(Attempt(backend="embedded", outcome="answered"),)),
         "<Trace: embedded, nanodet, 1 attempt, 0.25 s>"),
    ],
)  # fmt: skip
def test_an_answer_is_one_short_line_in_a_log(answer, shown):
    """However many boxes, components and attempts it has."""
    assert repr(answer) == shown


def test_a_long_answer_is_still_short():
    """The text is cut, and most boxes are left out."""
    boxes = tuple(Detection(label="cat", score=1, xyxy=(0, 0, 9, 9)) for _ in range(300))
    assert len(repr(Detections(items=boxes, width=9, height=9))) < 100
    assert len(repr(Description(text="cat " * 500))) < 100
