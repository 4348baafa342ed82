"""OpenVINO computes what it computes as well as torch; in all other cases nobody notices it."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch
import transformers
from answering import answer

from vision_backends import open_image
from vision_backends.backends.local.hub.checkpoint import read_checkpoint
from vision_backends.backends.local.runtime.engines import Engines, PartRunner
from vision_backends.backends.local.runtime.parts import Part
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.backends.requests import DetectRequest, EmbedRequest

SHAPE = (3, 8, 8)


class Doubling(torch.nn.Module):
    """A part that is easy to check.

    Args:
        factor: What it multiplies by.
    """

    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor), requires_grad=False)

    def forward(self, pixel_values):
        """Return the product."""
        return pixel_values * self.factor


def close(expected, found):
    """Tell whether results are the same."""
    return torch.allclose(expected[0], found[0], atol=1e-4)


@pytest.fixture
def runner(tmp_path, model):
    """A maker of runners of a part, all with the same memory."""

    def make(part=None, *, wanted="auto", agrees=close, device="cpu", full=True):
        engines = Engines(wanted, device=device, threads=1, full=full, tuning_cache=TuningCache(tmp_path))
        module = (part or Doubling()).eval()
        wish = Part(name="double", module=module, example=torch.randn(1, *SHAPE), agrees=agrees)
        return engines.runner(wish, read_checkpoint(model("clip"), name="acme/tiny"))

    return make


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("wanted", ["auto", "openvino"])
def test_it_computes_what_torch_computes(runner, count, wanted):
    """For any number of rows."""
    pixels = torch.randn(count, *SHAPE)
    double = runner(wanted=wanted)
    assert double.engine == "openvino"
    assert torch.allclose(double({"pixel_values": pixels})[0], 2 * pixels)


@pytest.mark.parametrize(
    "batch",
    [
        {"pixel_values": torch.randn(1, 3, 8, 16)},
        {"pixel_values": torch.randn(1, *SHAPE), "pixel_mask": torch.ones(1, 8, 8)},
    ],
)
def test_what_it_was_not_tried_on_is_left_to_torch(runner, batch):
    """Other shapes, other inputs."""
    assert runner()(batch) is None


def test_a_part_is_converted_once(runner, tmp_path):
    """Later loads read the files, and what came of the comparison."""
    runner()
    (weights,) = tmp_path.rglob("model.xml")
    written = weights.stat().st_mtime_ns
    assert runner().engine == "openvino"
    assert weights.stat().st_mtime_ns == written
    (outcome,) = tmp_path.glob("*.json")
    assert json.loads(outcome.read_text())["fact"] == {"flaw": None}


def test_other_results_than_torchs_are_not_used(runner, tmp_path):
    """It is remembered, and nothing is kept of the conversion."""
    asked = []
    for _ in range(2):
        double = runner(agrees=lambda *both: bool(asked.append(both)))
        assert double({"pixel_values": torch.randn(1, *SHAPE)}) is None
        assert "results differ from torch" in double.engine
    assert len(asked) == 1
    assert list(tmp_path.rglob("model.xml")) == []


@pytest.mark.parametrize("options", [{"wanted": "torch"}, {"device": "cuda"}])
def test_nothing_is_tried_where_it_cannot_be_used(runner, tmp_path, options):
    """With torch configured, or on a GPU."""
    double = runner(**options)
    assert (double({"pixel_values": torch.randn(1, *SHAPE)}), double.engine) == (None, "torch")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_converted_stays_with_torch(runner):
    """The reason is in the status, not in the user's way."""

    class Odd(torch.nn.Module):
        def forward(self, pixel_values):
            if not torch.jit.is_tracing():
                return pixel_values
            raise RuntimeError("not to be traced")

    odd = runner(Odd())
    assert odd({"pixel_values": torch.randn(1, *SHAPE)}) is None
    assert odd.engine.startswith("torch (openvino failed")


def damage(folder, how):
    """Do to a conversion what a power cut, a full disk or a person may do."""
    model, weights = folder / "model.xml", folder / "model.bin"
    if how == "half of the weights is zeros":
        whole = weights.read_bytes()
        weights.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    elif how == "the model is cut":
        model.write_text("<net")
    elif how == "the model is another":
        model.write_text(model.read_text().replace('type="Multiply"', 'type="Add"'))
    elif how == "the weights are a folder":
        weights.unlink()
        weights.mkdir()
    elif how.endswith("gone"):
        (folder / how.split()[0]).unlink()
    else:
        (folder / "sha256.json").write_text(how)


@pytest.mark.parametrize(
    "how",
    [
        "half of the weights is zeros",
        "the model is cut",
        "the model is another",
        "the weights are a folder",
        "model.xml gone",
        "model.bin gone",
        "sha256.json gone",
        "{",
        "[]",
        "{}",
        '{"model.xml": 7, "model.bin": null}',
        "[" * 5_000,
    ],
)
def test_a_conversion_that_is_not_as_it_was_made_is_made_again(runner, tmp_path, how):
    """At once, and compared again: what it computes is what torch computes."""
    compared = []

    def agrees(*both):
        compared.append(both)
        return close(*both)

    runner(agrees=agrees)
    (model,) = tmp_path.rglob("model.xml")
    damage(model.parent, how)
    pixels = torch.randn(1, *SHAPE)
    for _ in range(2):
        double = runner(agrees=agrees)
        assert double.engine == "openvino"
        assert torch.allclose(double({"pixel_values": pixels})[0], 2 * pixels)
    assert len(compared) == 2


@pytest.mark.parametrize("fact", [{}, {"flaw": 7}, {"flaw": None, "more": 1}, {"flaw": ["x"]}])
def test_an_outcome_of_an_odd_form_is_not_believed(runner, tmp_path, fact):
    """The part is compared again, and that is kept."""
    runner()
    (outcome,) = tmp_path.glob("*.json")
    outcome.write_text(json.dumps({**json.loads(outcome.read_text()), "fact": fact}))
    assert runner().engine == "openvino"
    assert json.loads(outcome.read_text())["fact"] == {"flaw": None}


def test_a_full_disk_is_not_remembered(runner, tmp_path, monkeypatch):
    """Tomorrow there may be room."""
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _path: full)
        assert "MB free" in runner().engine
    assert runner().engine == "openvino"


def test_what_other_versions_have_made_goes(runner, tmp_path, monkeypatch):
    """Each is as large as the part; what serves other settings stays."""
    runner()
    runner(full=False)
    assert len(list(tmp_path.rglob("model.xml"))) == 2
    monkeypatch.setattr("vision_backends.backends.local.runtime.openvino.version", lambda _package: "9")
    runner()
    states = [json.loads(file.read_text())["state"] for file in tmp_path.glob("*.json")]
    assert sorted((state["full"], state["torch"] == "9") for state in states) == [(False, False), (True, True)]
    assert len(list(tmp_path.rglob("model.xml"))) == 2


@pytest.mark.parametrize("result", [RuntimeError("out of luck"), (torch.full((1, 4), torch.nan),)])
def test_torch_takes_over_from_an_engine_that_fails_while_running(result, caplog):
    """For good, with one warning."""

    def compute(_pixels):
        if isinstance(result, Exception):
            raise result
        return result

    part = PartRunner(compute, engine="openvino", shape=SHAPE)
    with caplog.at_level(logging.WARNING, logger="vision_backends"):
        for _ in range(3):
            assert part({"pixel_values": torch.randn(1, *SHAPE)}) is None
    assert len(caplog.records) == 1
    assert part.engine.startswith("torch (openvino failed")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_vectors_of_both_engines_stand_beside_each_other(make_backend, model, photos, tmp_path, kind):
    """They are of one space."""
    images = [open_image(path) for path in sorted(photos.glob("*.jpg"))]
    found = {}
    for engine in ("torch", "openvino"):
        backend = make_backend(embedding_model=model(kind), engine=engine, tuning_cache=TuningCache(tmp_path))
        found[engine] = answer(backend.embed, images, EmbedRequest(), timeout_s=100)
        shown = backend.status()["embedding"]["engine"]
    assert shown == {"image": "openvino"}
    pairs = zip(found["torch"], found["openvino"], strict=True)
    assert min(a.similarity(b) for a, b in pairs) > 0.9999


def test_a_detector_finds_the_same_by_both_engines(make_backend, model, photos, tmp_path):
    """Boxes within a pixel, scores within 0.02, or else it is not used."""
    image = open_image(photos / "cat.jpg")
    found = {}
    for engine in ("torch", "openvino"):
        backend = make_backend(detection_model=model("rt_detr_v2"), engine=engine, tuning_cache=TuningCache(tmp_path))
        (found[engine],) = answer(backend.detect, [image], DetectRequest(min_score=0.01), timeout_s=100)
        shown = backend.status()["detection"]["engine"]
    assert shown["boxes"] == "openvino" or "results differ" in shown["boxes"]
    assert len(found["torch"]) == len(found["openvino"]) > 0
    for one in found["torch"]:
        assert any(
            abs(one.score - other.score) <= 0.02 and np.abs(np.subtract(one.xyxy, other.xyxy)).max() <= 1
            for other in found["openvino"]
        )


def test_a_conversion_is_quiet(make_backend, model, make_image, tmp_path, capfd):
    """Transformers has remarks on a model that is traced, which are not for users."""
    transformers.utils.logging.enable_propagation()
    verbosity = transformers.utils.logging.get_verbosity()
    backend = make_backend(embedding_model=model("clip"), engine="openvino", tuning_cache=TuningCache(tmp_path))
    capfd.readouterr()
    answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=100)
    assert backend.status()["embedding"]["engine"] == {"image": "openvino"}
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == verbosity
