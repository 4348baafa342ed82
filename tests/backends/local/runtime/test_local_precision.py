"""16-bit numbers where they are real, faster and good enough; 32-bit ones everywhere else."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from answering import answer

from vision_backends import open_image
from vision_backends.backends.local.hub.checkpoint import read_checkpoint
from vision_backends.backends.local.runtime.loader import LoaderSettings, load, placement_for
from vision_backends.backends.local.runtime.precision import choose_dtype, lower, measure_share, stays_whole
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest


def assert_same_numbers(found, expected):
    """Compare all weights and buffers of two models."""
    both = ([*each.named_parameters(), *each.named_buffers()] for each in (found, expected))
    for (name, mine), (other, theirs) in zip(*both, strict=True):
        assert (name, mine.dtype) == (other, theirs.dtype)
        assert torch.equal(mine, theirs), name


def choose(folder, *, wanted="auto", device="cpu", real=True, share=0.5, measured=None):
    """Return what is chosen on a machine of the test's making."""

    def measure(_dtype):
        if measured is not None:
            measured.append(share)
        return share

    return choose_dtype(
        wanted, device=device, tuning_cache=TuningCache(folder), has_bfloat16=lambda _device: real, measure=measure
    )


@pytest.mark.parametrize(
    ("device", "real", "share", "dtype"),
    [
        ("cpu", True, 0.5, torch.bfloat16),
        ("cpu", True, 0.95, torch.float32),
        ("cpu", True, 3.0, torch.float32),
        ("cpu", False, 0.5, torch.float32),
        ("cuda", True, 3.0, torch.bfloat16),
        ("cuda:1", False, 3.0, torch.float16),
        ("mps", False, 3.0, torch.float16),
    ],
)
def test_numbers_follow_what_the_device_can_and_what_pays(tmp_path, device, real, share, dtype):
    """On a CPU only a clear gain counts; a GPU has one without measuring."""
    assert choose(tmp_path, device=device, real=real, share=share) is dtype


@pytest.mark.parametrize("share", ["NaN", "Infinity", "-1.0", "0.0", "true", '"0.5"', "[]", "null"])
def test_a_measurement_of_an_odd_form_is_not_believed(tmp_path, share):
    """Somebody has written it by hand, or a disk has: it is measured again, and that is kept."""
    choose(tmp_path)
    (fact,) = tmp_path.glob("*.json")
    fact.write_text(fact.read_text().replace("0.5", share))
    measured = []
    for _ in range(2):
        assert choose(tmp_path, share=0.95, measured=measured) is torch.float32
    assert measured == [0.95]


def test_each_gpu_is_asked_itself(tmp_path, monkeypatch):
    """An old one beside a new one has no bfloat16 of its own."""
    current = ["cuda:0"]

    @contextmanager
    def device(name):
        current.append(name)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda *, including_emulation: current[-1] == "cuda:0" or including_emulation
    )
    for name, dtype in (("cuda:0", torch.bfloat16), ("cuda:1", torch.float16)):
        assert choose_dtype("auto", device=name, tuning_cache=TuningCache(tmp_path)) is dtype


@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
def test_what_is_configured_is_taken(tmp_path, wanted):
    """Nothing is measured for it."""
    measured = []
    assert choose(tmp_path, wanted=wanted, real=False, measured=measured) is getattr(torch, wanted)
    assert measured == []


def test_the_measurement_is_remembered(tmp_path):
    """Once per machine; a damaged file or one of another machine is measured again."""
    measured = []
    assert [choose(tmp_path, measured=measured) for _ in range(3)] == [torch.bfloat16] * 3
    assert len(measured) == 1
    (file,) = tmp_path.glob("*.json")
    for damage in ("", "[]", '{"fact": {}, "state": {}}', file.read_text().replace(torch.__version__, "0.1")):
        file.write_text(damage)
        choose(tmp_path, measured=measured)
    assert len(measured) == 5


def test_without_a_place_to_remember_it_is_measured_every_time(tmp_path):
    """A folder that cannot be written is no error."""
    (tmp_path / "file").touch()
    measured = []
    assert choose(tmp_path / "file" / "folder", measured=measured) is torch.bfloat16
    assert choose(tmp_path / "file" / "folder", measured=measured) is torch.bfloat16
    assert len(measured) == 2


def test_the_measurement_compares_the_fastest_rounds():
    """Of turns that meet the same busy moments; the first one only warms up."""
    times = iter(itertools.accumulate([0, 9, 0, 9] + [0, 4, 0, 1] * 2 + [0, 2, 0, 3] * 3))
    assert measure_share(torch.bfloat16, now=lambda: float(next(times))) == pytest.approx(1 / 2)


def test_the_measurement_works_here():
    """Whatever it says of this machine."""
    assert 0.01 < measure_share(torch.bfloat16) < 1000


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_embeddings_in_16_bits_are_those_of_the_model_in_16_bits(make_backend, model, photos, kind):
    """Images and texts, beside transformers in the same numbers."""
    import transformers as tf

    folder = model(kind)
    images = [open_image(path) for path in sorted(photos.glob("*.jpg"))]
    backend = make_backend(embedding_model=folder, dtype="bfloat16")
    plain = tf.AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    processor = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    found = answer(backend.embed, images, EmbedRequest(), timeout_s=60)
    for image, vector in zip(images, found, strict=True):
        inputs = processor(images=[image.rgb(min_side_px=backend.image_px(EmbedRequest()))], return_tensors="pt")
        pixels = inputs.pop("pixel_values").to(torch.bfloat16)
        with torch.inference_mode():
            expected = plain.get_image_features(pixel_values=pixels, **inputs).pooler_output[0].float()
        assert float(torch.tensor(vector.vector) @ expected / expected.norm()) > 0.99
    assert answer(backend.embed_text, ["a cat"], EmbedTextRequest(), timeout_s=60)[0].space == found[0].space
    assert backend.status()["embedding"]["dtype"] == "bfloat16"


def test_embeddings_in_16_bits_stand_beside_those_in_32(make_backend, model, photos):
    """Their space is the same, though the weights of this model are scaled up, and rounding with them."""
    images = [open_image(path) for path in sorted(photos.glob("*.jpg"))]
    full, half = (
        answer(make_backend(embedding_model=model("clip"), dtype=dtype).embed, images, EmbedRequest(), timeout_s=60)
        for dtype in ("float32", "bfloat16")
    )
    assert min(a.similarity(b) for a, b in zip(full, half, strict=True)) > 0.99


@pytest.mark.parametrize(
    ("kind", "dtype", "most_px"),
    [
        ("conditional_detr", "bfloat16", 1),
        ("d_fine", "bfloat16", 1),  # random weights of these fade every picture away to what is nothing in float16
        ("deformable_detr", "bfloat16", 4),  # it samples at places that depend on what it sampled
        ("detr", "bfloat16", 1),
        ("detr", "float16", 1),
        ("lw_detr", "bfloat16", 1),
        ("owlv2", "bfloat16", 1),
        ("owlvit", "bfloat16", 1),
        ("owlvit", "float16", 1),
        ("rf_detr", "bfloat16", 1),
        ("rt_detr_v2", "bfloat16", 1),
        ("table_transformer", "bfloat16", 1),
        ("yolos", "bfloat16", 1),
    ],
)
def test_boxes_are_as_good_in_16_bits(make_backend, model, photos, kind, dtype, most_px):
    """Most of the work is done in them, but what makes boxes is not: they are within a pixel of 640."""
    image = open_image(photos / "cat.jpg")
    role = "open_vocabulary" if kind.startswith("owl") else "detection"
    request = DetectRequest(labels=("cat",) if role == "open_vocabulary" else None, min_score=0.0)
    found = {}
    for numbers in ("float32", dtype):
        backend = make_backend(**{f"{role}_model": model(kind), "dtype": numbers})
        (found[numbers],) = answer(backend.detect, [image], request, timeout_s=60)
        shown = backend.status()[role]["dtype"]
    assert shown == f"{dtype}+float32"
    size = np.array([image.width, image.height] * 2)
    full, half = (
        np.array([[*np.array(item.xyxy) / size, item.score] for item in found[numbers]])
        for numbers in ("float32", dtype)
    )
    assert len(half) == len(full) > 0
    distances = np.abs(full[:, None] - half[None])
    nearest = distances[np.arange(len(full)), distances.max(-1).argmin(-1)]  # those nearly equal have no order
    assert np.median(nearest[:, :4].max(-1)) < most_px / 640
    assert np.median(nearest[:, 4]) < 0.03


@pytest.mark.parametrize("kind", ["deimv2", "pp_doclayout_v3", "grounding-dino", "mm-grounding-dino"])
def test_detectors_that_nobody_has_looked_at_stay_in_32_bits(kind):
    """They may sample the image at computed places, which 16 bits do not bear; so do those with interwoven parts."""
    made = torch.nn.Linear(2, 2)
    assert lower(made, kind=kind, dtype=torch.bfloat16) == "float32"
    assert made.weight.dtype == torch.float32
    assert not stays_whole(kind)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("blip2_opt", "bfloat16"),
        ("blip2_t5", "float16"),
        ("florence2", "bfloat16"),
        ("qwen2_5_vl", "bfloat16"),
        ("qwen2_vl", "float16"),
        ("smolvlm", "bfloat16"),
    ],
)
def test_models_in_16_bits_are_those_that_transformers_loads(model, kind, dtype):
    """Number by number: what it keeps in 32 bits, such as the angles that tell where a token stands, stays so."""
    import transformers as tf

    settings, checkpoint = LoaderSettings(device="cpu", dtype=dtype), read_checkpoint(model(kind))
    auto = "AutoModelForImageTextToText"
    made = load(checkpoint, placement_for(checkpoint, settings, has_parts=False), auto_class=auto, settings=settings)
    made.settle()
    assert made.numbers == dtype
    expected = getattr(tf, auto).from_pretrained(model(kind), dtype=getattr(torch, dtype))
    assert_same_numbers(made.model, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lowering_afterwards_is_as_loading_so(model, dtype):
    """For models that have to be there in 32 bits first."""
    import transformers as tf

    for kind in ("clip", "siglip2", "qwen2_vl", "blip2_t5"):
        made, expected = (
            tf.AutoModel.from_pretrained(model(kind), dtype=numbers) for numbers in (torch.float32, dtype)
        )
        assert lower(made, kind=made.config.model_type, dtype=dtype) == str(dtype).removeprefix("torch.")
        assert_same_numbers(made, expected)


def test_captions_in_16_bits_are_those_of_the_model_in_16_bits(make_backend, model, photos):
    """Token for token: bfloat16 is compared with bfloat16."""
    import transformers as tf

    folder = model("blip")
    image = open_image(photos / "cat.jpg")
    backend = make_backend(caption_model=folder, dtype="bfloat16")
    (said,) = answer(backend.describe, [image], DescribeRequest(max_words=8), timeout_s=60)
    plain = tf.BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
    pixels = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")(
        images=[image.rgb(min_side_px=64)], return_tensors="pt"
    )["pixel_values"]
    tokens = plain.generate(pixel_values=pixels.to(torch.bfloat16), max_new_tokens=12, do_sample=False)
    expected = tf.AutoTokenizer.from_pretrained(folder).decode(tokens[0, 1:], skip_special_tokens=True)
    assert said.text == expected.strip()


def test_only_what_comes_before_the_sampling_is_lowered(model):
    """The decoder of D-FINE keeps its numbers."""
    import transformers as tf

    made = tf.DFineForObjectDetection.from_pretrained(model("d_fine")).eval()
    assert lower(made, kind="d_fine", dtype=torch.bfloat16) == "bfloat16+float32"
    assert {p.dtype for p in made.model.backbone.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in made.model.decoder.parameters()} == {torch.float32}
    assert not stays_whole("d_fine")
    assert stays_whole("clip")
