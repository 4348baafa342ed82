"""Making models ready before they are needed, and what trouble with one does to the others: nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from answering import answer

from vision_backends import AllBackendsFailedError, Router
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.errors import NotReadyError, NotSupportedError


@pytest.fixture
def backend(make_backend, model):
    """One with a tiny model for each role."""
    return make_backend(
        caption_model=model("blip"),
        embedding_model=model("clip"),
        detection_model=model("d_fine"),
        open_vocabulary_model=model("owlv2"),
        min_score=0.1,
    )


@pytest.mark.parametrize(
    ("request_", "role"),
    [
        (DescribeRequest(), "caption"),
        (EmbedRequest(), "embedding"),
        (EmbedTextRequest(), "embedding"),
        (DetectRequest(), "detection"),
        (DetectRequest(labels=("a dog",)), "open_vocabulary"),
    ],
)
def test_the_model_that_would_answer_is_loaded_and_run_once(backend, request_, role):
    """That one and no other; the second time there is nothing left to do."""
    backend.warm_up(request_)
    loaded = [role for role, facts in backend.status().items() if facts["state"] == "loaded"]
    assert loaded == [role]
    model = backend._models[role]
    assert not model.needs_rehearsal(request_.task)
    engine = model._slot.value
    backend.warm_up(request_)
    assert model._slot.value is engine


def test_each_task_of_a_model_is_rehearsed(backend):
    """The image tower says nothing about the text tower."""
    backend.warm_up(EmbedRequest())
    assert backend._models["embedding"].needs_rehearsal("embed_text")
    backend.warm_up(EmbedTextRequest())
    assert not backend._models["embedding"].needs_rehearsal("embed_text")


def test_a_rehearsal_never_stands_in_the_way_of_a_call(backend, make_image):
    """Whoever is about to use the model pays for what is put off anyway."""
    with backend._models["caption"].in_use("describe"):
        backend.warm_up(DescribeRequest())
        assert not backend._models["caption"].needs_rehearsal("describe")
    assert answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)


def test_a_model_that_follows_instructions_is_rehearsed(make_backend, model):
    """With its chat template."""
    backend = make_backend(caption_model=model("llava"))
    backend.warm_up(DescribeRequest(prompt="two cats"))
    assert not backend._models["caption"].needs_rehearsal("describe")


def test_what_it_cannot_do_is_said(backend, make_backend):
    """As by the check."""
    with pytest.raises(NotSupportedError, match="cannot follow a prompt"):
        backend.warm_up(DescribeRequest(prompt="What?"))
    with pytest.raises(NotSupportedError):
        make_backend().warm_up(DescribeRequest())
    with pytest.raises(NotReadyError, match="does not exist"):
        make_backend(caption_model="/nowhere/model").warm_up(DescribeRequest())


def test_nothing_is_fetched_where_that_is_not_allowed(make_backend, folder_hub):
    """It is said how to."""
    hub = folder_hub()
    with pytest.raises(NotReadyError, match="acme/x is not on this machine"):
        make_backend(caption_model="acme/x", download="never", hub=hub).warm_up(DescribeRequest())
    assert hub.fetches == []


@pytest.mark.parametrize("download", ["background", "wait"])
def test_missing_weights_are_fetched_where_that_is_allowed(make_backend, folder_hub, model, make_image, download):
    """It returns when the model is in memory."""
    hub = folder_hub({"acme/tiny": model("blip")})
    hub.allowed.set()
    backend = make_backend(caption_model="acme/tiny", download=download, hub=hub)
    backend.warm_up(DescribeRequest())
    assert backend.status()["caption"]["state"] == "loaded"
    assert hub.fetches == ["acme/tiny"]
    assert answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)


def test_calls_wait_for_a_load_that_a_warm_up_has_begun(make_backend, folder_hub, model, make_image):
    """They are not sent away from what is about to be there; both share one load."""
    hub = folder_hub({"acme/tiny": model("blip")})
    backend = make_backend(caption_model="acme/tiny", download="wait", hub=hub)
    with ThreadPoolExecutor(2) as pool:
        warming = pool.submit(backend.warm_up, DescribeRequest())
        while not hub.fetches:
            threading.Event().wait(0.01)
        backend.check(DescribeRequest())
        call = pool.submit(answer, backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
        hub.allowed.set()
        assert warming.result() is None
        assert call.result()
    assert hub.fetches == ["acme/tiny"]


def test_a_warm_up_that_ends_after_closing_loads_nothing(make_backend, folder_hub, model):
    """Closing gives the memory back for good."""
    hub = folder_hub({"acme/tiny": model("blip")})
    backend = make_backend(caption_model="acme/tiny", hub=hub)
    with ThreadPoolExecutor(1) as pool:
        warming = pool.submit(backend.warm_up, DescribeRequest())
        while not hub.fetches:
            threading.Event().wait(0.01)
        backend.close()
        hub.allowed.set()
        assert warming.result() is None
    assert not backend._models["caption"].touched


def test_corrupt_weights_of_one_model_leave_the_others_alone(make_backend, model, model_copy, make_image):
    """The report and the call say what is wrong with the one; every other task is answered."""
    broken = model_copy("blip")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    backend = make_backend(
        caption_model=broken, embedding_model=model("clip"), detection_model=model("d_fine"), min_score=0.1
    )
    with Router([backend]) as router:
        states = {each.task: (each.state, each.reason) for each in router.warm_up(wait_s=120)}
        assert states["describe"][0] == "not_ready"
        assert str(broken) in states["describe"][1]
        assert {states[task] for task in ("embed", "embed_text", "detect")} == {("ready", None)}
        picture = make_image().rgb()
        with pytest.raises(AllBackendsFailedError):
            router.describe(picture)
        assert router.embed(picture).similarity(router.embed_text("red bicycle")) <= 1
        assert router.detect(picture).trace.backend == "local"


def test_weights_that_break_while_they_are_read_leave_the_others_alone(make_backend, model, model_copy, make_image):
    """A file that looks right until the last byte: whoever waits for it at the same time gets an answer."""
    broken = model_copy("blip")
    weights = broken / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    header = int.from_bytes(raw[:8], "little")
    raw[8 : 8 + header] = raw[8 : 8 + header].replace(b'"F32"', b'"F64"')
    weights.write_bytes(raw)
    backend = make_backend(caption_model=broken, embedding_model=model("clip"))
    with ThreadPoolExecutor(2) as pool:
        caption = pool.submit(answer, backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
        vector = pool.submit(answer, backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        with pytest.raises(NotReadyError):
            caption.result()
        assert vector.result()
    backend.warm_up(EmbedTextRequest())
    assert backend.status()["caption"]["state"].startswith(("failed", "not loaded"))
