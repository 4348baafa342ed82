"""A model whose files have a flaw is named with it, remembered, passed by, and fetched again where that may help."""

from __future__ import annotations

import json
import shutil

import pytest
from answering import answer

from vision_backends import Router
from vision_backends.backends.requests import DetectRequest, EmbedRequest
from vision_backends.errors import NotReadyError
from vision_backends.testing import FakeBackend, FakeClock


def edit(folder, **changes):
    """Change a model's configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def halve(folder):
    """Let the configuration have one layer less than the weights."""
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] -= 1
    edit(folder, **config)


class CountingHub:
    """A hub that has a model in its cache, and puts another in its place when it is fetched.

    Args:
        here: The folder of the cache.
        published: What arrives.
    """

    def __init__(self, here, published):
        self.here, self.published, self.fetches = here, published, 0

    def cached(self, source):
        """Return what is in the cache."""
        return self.here, "c" * 40

    def fetch(self, source, progress):
        """Replace it."""
        self.fetches += 1
        shutil.rmtree(self.here)
        shutil.copytree(self.published, self.here)
        return self.here, "c" * 40


def ask(backend, image, *, calls=1):
    """Return the errors of some calls, each a while after the other."""
    errors = []
    for _ in range(calls):
        with pytest.raises(NotReadyError) as caught:
            answer(backend.embed, [image], EmbedRequest(), timeout_s=60)
        errors.append(caught.value)
        backend._clock.advance(3)
    return errors


def test_a_folder_is_not_loaded_again_before_it_changes(make_backend, model, model_copy, make_image, monkeypatch):
    """The flaw holds for the files as they are; when they are mended, they are used without a wait."""
    loads = []
    folder = model_copy("clip")
    halve(folder)
    backend = make_backend(embedding_model=folder, clock=FakeClock())
    made = backend._models["embedding"]._made
    monkeypatch.setattr(backend._models["embedding"], "_made", lambda *args: loads.append(args) or made(*args))
    messages = {error.message for error in ask(backend, make_image(), calls=4)}
    assert len(messages) == 1
    assert "config.json asks for 1" in messages.pop()
    assert len(loads) == 1
    assert "config.json asks for 1" in backend.status()["embedding"]["state"]
    backend._clock.advance(3)
    shutil.copy(model("clip") / "config.json", folder / "config.json")
    assert answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
    assert len(loads) == 2


def test_what_came_from_the_hub_is_fetched_again(make_backend, model, model_copy, make_image):
    """Its configuration was damaged here."""
    here = model_copy("clip")
    halve(here)
    hub = CountingHub(here, model("clip"))
    backend = make_backend(embedding_model="acme/tiny", hub=hub, download="wait", clock=FakeClock())
    (error,) = ask(backend, make_image())
    assert error.code == "inconsistent"
    (error,) = ask(backend, make_image())
    assert error.code == "space_became_known"
    assert answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
    assert hub.fetches == 1


@pytest.mark.parametrize("flaw", [halve, lambda folder: (folder / "tokenizer.json").unlink()])
def test_it_is_fetched_again_once(make_backend, model_copy, make_image, tmp_path, flaw):
    """What is published like that stays like that, and is said, not that it is missing."""
    here = model_copy("clip")
    flaw(here)
    published = shutil.copytree(here, tmp_path / "published")
    hub = CountingHub(here, published)
    backend = make_backend(embedding_model="acme/tiny", hub=hub, download="wait", clock=FakeClock())
    errors = ask(backend, make_image(), calls=6)
    assert {error.code for error in errors} <= {"inconsistent", "incomplete"}
    assert hub.fetches == 1


def test_what_may_not_be_fetched_says_its_flaw(make_backend, model_copy, make_image):
    """And the command that mends it."""
    here = model_copy("clip")
    halve(here)
    backend = make_backend(
        embedding_model="acme/tiny", hub=CountingHub(here, here), download="never", clock=FakeClock()
    )
    *_, error = ask(backend, make_image(), calls=3)
    assert "config.json asks for 1" in error.message
    assert error.remedy == "Run: vision models pull acme/tiny"


def test_the_next_rung_answers(make_backend, model_copy, make_image):
    """Degraded, with the flaw among the attempts."""
    folder = model_copy("clip")
    halve(folder)
    with Router([make_backend(embedding_model=folder), FakeBackend("spare")], caching=False, deadline_s=60) as router:
        for _ in range(2):
            trace = router.embed(make_image().rgb()).trace
            assert (trace.backend, trace.degraded) == ("spare", True)
            assert "config.json asks for 1" in trace.reason


@pytest.mark.parametrize(
    "names", [{"0": "person", "2": "dog"}, {"0": "person", "dog": 1}, {str(n): f"LABEL_{n}" for n in range(5)}, None, 7]
)
def test_a_detector_without_names_is_passed_by(make_backend, model_copy, make_image, names):
    """Before it is loaded; neither is it a bare error, nor are its objects lost or called LABEL_0."""
    folder = model_copy("d_fine")
    edit(folder, id2label=names, label2id=None)
    backend = make_backend(detection_model=folder)
    with pytest.raises(NotReadyError, match=r"id2label.* of config\.json|config\.json has no .*id2label") as caught:
        backend.check(DetectRequest())
    assert caught.value.code == "no_labels"
    with Router([backend, FakeBackend("spare")], caching=False, deadline_s=60) as router:
        for labels in (None, ["dog"]):
            trace = router.detect(make_image().rgb(), labels=labels).trace
            assert (trace.backend, trace.degraded) == ("spare", True)


@pytest.mark.parametrize("kind", ["d_fine", "detr", "yolos", "rf_detr"])
@pytest.mark.parametrize("form", ["list", "way round", "elsewhere"])
def test_names_in_another_form_are_used(make_backend, model, model_copy, make_image, kind, form):
    """The same objects are found as with the table that transformers writes."""
    folder = model_copy(kind)
    names = ["person", "motorbike", "sofa", "dog", "tvmonitor"]
    numbers = {name: number for number, name in enumerate(names)}
    changes = {
        "list": {"id2label": names, "label2id": None},
        "way round": {"id2label": numbers, "label2id": names},
        "elsewhere": {"id2label": {str(number): f"LABEL_{number}" for number in range(5)}, "label2id": numbers},
    }
    edit(folder, **changes[form])
    found = [
        answer(make_backend(detection_model=each).detect, [make_image()], DetectRequest(min_score=0.0), timeout_s=60)[0]
        for each in (folder, model(kind))
    ]
    assert [(each.label, each.category_id, each.xyxy) for each in found[0]] == [
        (each.label, each.category_id, each.xyxy) for each in found[1]
    ]
    assert len(found[0])


def test_too_few_names_for_the_weights_are_a_flaw(make_backend, model_copy, make_image):
    """Each of the classes that the weights know would need one."""
    folder = model_copy("d_fine")
    edit(folder, id2label={"0": "person", "1": "dog"}, label2id={"person": 0, "dog": 1})
    backend = make_backend(detection_model=folder)
    with pytest.raises(NotReadyError, match=r"has the shape \[5.*and \[2.* by config\.json"):
        answer(backend.detect, [make_image()], DetectRequest(), timeout_s=60)
