"""Every family of describing models says here what it says by transformers alone, on the same weights."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from answering import answer
from PIL import Image as PILImage

from vision_backends.backends.local.models.captioner import PLAIN_PROMPT, decode
from vision_backends.backends.requests import DescribeRequest
from vision_backends.errors import NotSupportedError
from vision_backends.images import open_image

CAPTIONERS = ["blip", "blip_large", "blip2_opt", "blip2_t5"]
QWENS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
INSTRUCTED = ["llava", "llava_onevision", "idefics3", "smolvlm", *QWENS]
QUESTION = "two cats ?"
WORDS = 8
TOKENS = 12


@pytest.fixture
def pictures(photos):
    """Photos of several sizes and shapes, without colour profiles, which `open_image` would apply."""
    sizes = {"cat": (96, 64), "coffee": (64, 96), "raccoon": (130, 40)}
    return [PILImage.open(photos / f"{name}.jpg").convert("RGB").resize(size) for name, size in sizes.items()]


def described(backend, pictures, **wishes):
    """Return the texts of a batch, having seen that one is the same alone."""
    images, request = [open_image(picture) for picture in pictures], DescribeRequest(max_words=WORDS, **wishes)
    together = [each.text for each in answer(backend.describe, images, request, timeout_s=60)]
    (alone,) = answer(backend.describe, images[:1], request, timeout_s=60)
    assert alone.text == together[0]
    return together


def written(folder, inputs, *, begun):
    """Return what transformers writes for each input by itself, without the tokens that it was given."""
    model = tf.AutoModelForImageTextToText.from_pretrained(folder).eval()
    words = tf.AutoTokenizer.from_pretrained(folder)
    texts = []
    for each in inputs:
        with torch.inference_mode():
            (row,) = model.generate(**each, max_new_tokens=TOKENS, do_sample=False)
        texts.append(words.decode(row[begun(each) :], skip_special_tokens=True).strip())
    assert len(set(texts)) == len(texts), "a model that says the same of all pictures shows nothing"
    return texts


def inputs_of(folder, kind, picture, question):
    """Return a picture and what is asked about it as transformers reads them, without processors that want videos."""
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    if kind == "florence2":
        return tf.AutoProcessor.from_pretrained(folder, backend="pil")([picture], [question], return_tensors="pt")
    images = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    if kind in CAPTIONERS:
        return images(images=[picture], return_tensors="pt")
    words = tf.AutoTokenizer.from_pretrained(folder)
    template = (folder / "chat_template.jinja").read_text()
    text = words.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    if kind == "llava":
        return tf.AutoProcessor.from_pretrained(folder, backend="pil")(picture, text, return_tensors="pt")
    if kind in {"idefics3", "smolvlm"}:  # the same words around the tiles
        return tf.Idefics3Processor(images, words, image_seq_len=4)([picture], [text], return_tensors="pt")
    seen = images(images=[picture], return_tensors="pt")
    model = tf.AutoModelForImageTextToText.from_pretrained(folder).eval()
    features = torch.cat(list(model.get_image_features(**seen).pooler_output))
    image = words.convert_ids_to_tokens(model.config.image_token_id)
    read = words([text.replace(image, image * len(features))], return_tensors="pt")
    if kind in QWENS:  # which places are a picture's decides where they stand
        read["mm_token_type_ids"] = (read["input_ids"] == model.config.image_token_id).int()
    return {**read, **seen}


@pytest.mark.parametrize("kind", CAPTIONERS)
def test_captions_equal_those_of_transformers(make_backend, model, pictures, kind):
    """Token for token, alone and in a batch; of pictures alone."""
    inputs = [inputs_of(model(kind), kind, picture, None) for picture in pictures]
    expected = written(model(kind), inputs, begun=lambda _: 5 if kind == "blip2_opt" else 1)
    assert described(make_backend(caption_model=model(kind)), pictures) == expected


@pytest.mark.parametrize(("max_words", "task"), [(WORDS, "<CAPTION>"), (24, "<DETAILED_CAPTION>")])
def test_florence2_is_given_its_task(make_backend, model, pictures, max_words, task):
    """A short one where few words are wanted; beams and repetitions are as the checkpoint wants them."""
    words = tf.AutoTokenizer.from_pretrained(model("florence2"))
    plain = tf.AutoModelForImageTextToText.from_pretrained(model("florence2")).eval()
    backend = make_backend(caption_model=model("florence2"))
    images, request = [open_image(picture) for picture in pictures], DescribeRequest(max_words=max_words)
    found = answer(backend.describe, images, request, timeout_s=60)
    expected = []
    for picture in pictures:
        inputs = inputs_of(model("florence2"), "florence2", picture, task)
        with torch.inference_mode():
            (row,) = plain.generate(**inputs, max_new_tokens=max_words * 3 // 2)
        expected.append(words.decode(row, skip_special_tokens=True).strip())
    assert [each.text for each in found] == expected
    assert len(set(expected)) == 3


@pytest.mark.parametrize("kind", ["blip2_opt", "florence2"])
def test_families_that_only_caption_take_no_prompt(make_backend, model, kind):
    """That is known before they are loaded."""
    backend = make_backend(caption_model=model(kind))
    for request in (DescribeRequest(prompt=QUESTION), DescribeRequest(language="de")):
        with pytest.raises(NotSupportedError):
            backend.check(request)
    backend.check(DescribeRequest(language="en"))
    assert backend.status()["caption"]["state"] == "not loaded"


@pytest.mark.parametrize("kind", INSTRUCTED)
def test_answers_equal_those_of_transformers(make_backend, model, pictures, kind):
    """Token for token, asked by the checkpoint's own chat template."""
    backend = make_backend(caption_model=model(kind))
    asked = f"{QUESTION} Use at most {WORDS} words."
    inputs = [inputs_of(model(kind), kind, picture, asked) for picture in pictures]
    expected = written(model(kind), inputs, begun=lambda each: each["input_ids"].shape[1])
    assert described(backend, pictures, prompt=QUESTION) == expected


@pytest.mark.parametrize("kind", ["blip", "blip2_opt", "florence2", "qwen2_vl"])
@pytest.mark.parametrize("way", [{"caption_beams": 3}, {"caption_beams": 1}, {"caption_seed": 7}, {"caption_seed": 8}])
def test_beams_and_chance_equal_those_of_transformers(make_backend, model, pictures, capfd, kind, way):
    """A seed draws for each picture what it draws for that alone; nobody is warned, and torch's own dice lie still."""
    folder = model(kind)
    backend = make_backend(caption_model=folder, **way)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    capfd.readouterr()
    texts = described(backend, pictures)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), before)
    asked = "<CAPTION>" if kind == "florence2" else f"{PLAIN_PROMPT} Use at most {WORDS} words."
    plain = tf.AutoModelForImageTextToText.from_pretrained(folder).eval()
    words, expected = tf.AutoTokenizer.from_pretrained(folder), []
    for picture in pictures:
        inputs = inputs_of(folder, kind, picture, asked)
        torch.manual_seed(way.get("caption_seed", 0))
        beams = {"num_beams": way.get("caption_beams", 1), "do_sample": "caption_seed" in way}
        with torch.inference_mode():
            (row,) = plain.generate(**inputs, **beams, max_new_tokens=TOKENS)
        begun = inputs["input_ids"].shape[1] if kind == "qwen2_vl" else 5 if kind == "blip2_opt" else 1
        expected.append(decode(words, row[begun:].tolist()).strip())
    assert texts == expected


@pytest.mark.parametrize("kind", ["blip", "florence2", "blip2_opt", "qwen2_vl"])
def test_nobody_can_ask_for_more_words_than_a_model_can_count_to(make_backend, model, pictures, kind):
    """The text ends there; a client may choose the number."""
    backend = make_backend(caption_model=model(kind))
    (found,) = answer(backend.describe, [open_image(pictures[0])], DescribeRequest(max_words=2_000), timeout_s=100)
    assert found.text
