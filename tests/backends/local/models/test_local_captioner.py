"""What a captioner says and refuses; that it says the right things is tested by family."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers as tf
from answering import answer
from safetensors.torch import load_file, save_file

from vision_backends import open_image
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.local.hub.checkpoint import read_checkpoint
from vision_backends.backends.local.models.captioner import PLAIN_PROMPT, Captioner, decode, repeats_itself
from vision_backends.backends.local.runtime.loader import LoaderSettings, load, placement_for
from vision_backends.backends.requests import AskRequest, DescribeRequest
from vision_backends.backends.texts import spoken
from vision_backends.clock import Deadline
from vision_backends.errors import ConfigError, InvalidReplyError, NotReadyError, NotSupportedError, TimedOutError
from vision_backends.testing import FakeClock


def test_blip_writes_english_captions_and_nothing_else(make_backend, model, make_image):
    """That is known before it is loaded."""
    backend = make_backend(caption_model=model("blip"))
    for request in (DescribeRequest(prompt="What is it?"), DescribeRequest(language="de")):
        with pytest.raises(NotSupportedError):
            backend.check(request)
        with pytest.raises(NotSupportedError):
            answer(backend.describe, [make_image()], request, timeout_s=60)
    assert backend.status()["caption"]["state"] == "not loaded"
    backend.check(DescribeRequest(language="en-GB"))


def test_a_model_with_a_chat_template_takes_prompts_and_languages(make_backend, model, make_image):
    """Without a prompt it is asked for a plain description."""
    backend = make_backend(caption_model=model("llava"))
    backend.check(DescribeRequest(prompt="What is it?", language="de"))
    plain, asked = (
        answer(backend.describe, [make_image()], DescribeRequest(prompt=prompt), timeout_s=60)[0].text
        for prompt in (None, PLAIN_PROMPT)
    )
    assert plain == asked
    (german,) = answer(backend.describe, [make_image()], DescribeRequest(language="de", max_words=3), timeout_s=60)
    assert german.language == "de"


def test_a_question_is_an_instruction_about_one_image(make_backend, model, make_image):
    """Its system's words come first; several images are for other rungs, and so is a model that writes captions."""
    backend = make_backend(caption_model=model("llava"))
    image = make_image()
    (reply,) = answer(backend.ask, [[image]], AskRequest(prompt="What is it?", system="Be brief."), timeout_s=60)
    request = DescribeRequest(prompt="Be brief.\n\nWhat is it?")
    (described,) = answer(backend.describe, [image], request, timeout_s=60)
    assert (reply.text, reply.data, reply.complete) == (described.text, None, described.complete)
    assert reply.trace.model == described.trace.model
    assert backend.model_for(AskRequest(prompt="?")) == backend.model_for(DescribeRequest(prompt="?"))
    two = AskRequest(prompt="Which?", images=2)
    for refuse in (backend.check, lambda two: answer(backend.ask, [[image, image]], two, timeout_s=60)):
        with pytest.raises(NotSupportedError, match="about one image, not about 2"):
            refuse(two)
    with pytest.raises(NotSupportedError, match="cannot follow a prompt"):
        make_backend(caption_model=model("blip")).check(AskRequest(prompt="What is it?"))


def test_a_local_answer_has_the_form_that_was_asked_for_or_is_none(make_backend, model, make_image):
    """It is asked for in words, and once more."""
    backend = make_backend(caption_model=model("llava"))
    form = '{"type": "object", "properties": {"a": {"type": "integer"}}}'
    with pytest.raises(InvalidReplyError) as caught:
        answer(backend.ask, [[make_image()]], AskRequest(prompt="What is it?", schema=form), timeout_s=60)
    assert caught.value.code == "schema_violation"


def test_a_prompt_of_a_megabyte_is_not_tokenized(make_backend, model, make_image):
    """It is refused by this rung alone."""
    backend = make_backend(caption_model=model("llava"))
    request = DescribeRequest(prompt="what is it " * 90_000)
    with pytest.raises(NotSupportedError, match=r"The prompt is [\d,]+ characters long; .* at most 200,000"):
        answer(backend.describe, [make_image()], request, timeout_s=60)


@pytest.mark.parametrize("kind", ["blip", "llava"])
def test_max_words_limits_the_length_and_says_so(make_backend, model, make_image, kind):
    """A text that was cut off is not complete."""
    backend = make_backend(caption_model=model(kind))
    (short,) = answer(backend.describe, [make_image(left="red")], DescribeRequest(max_words=2), timeout_s=60)
    assert len(short.text.split()) <= 3
    assert not short.complete


def test_a_text_is_no_longer_than_the_model_can_count(make_backend, model, make_image):
    """Whatever was wished for."""
    (long,) = answer(
        make_backend(caption_model=model("blip")).describe,
        [make_image(left="red")],
        DescribeRequest(max_words=1000),
        timeout_s=60,
    )
    assert 0 < len(long.text.split()) <= 64


@pytest.mark.parametrize("way", [{}, {"num_beams": 2}, {"seed": 5}])
@pytest.mark.parametrize("kind", ["blip", "llava"])
def test_a_text_ends_with_the_time(model, make_image, kind, way):
    """The model writes no further, and what it has written until then is no answer."""
    checkpoint, settings = read_checkpoint(model(kind)), LoaderSettings(device="cpu", engine="torch", dtype="float32")
    placement = placement_for(checkpoint, settings, has_parts=False)
    made = load(
        checkpoint, placement, auto_class="AutoModelForImageTextToText", settings=settings, chat=kind == "llava"
    )
    captioner, clock, steps = Captioner(made), FakeClock(), []

    def count(*_ignored):
        steps.append(1)
        clock.advance(1.0)

    scorer = made.model.text_decoder.cls.predictions.decoder if kind == "blip" else made.model.lm_head
    scorer.register_forward_hook(count)
    with pytest.raises(TimedOutError):
        answer(captioner.caption, [make_image()], deadline=Deadline(clock, 4.5), max_words=30, **way)
    made.batcher.close()
    assert len(steps) == 5


def test_a_text_that_ends_by_itself_is_complete(make_backend, tmp_path, make_image):
    """One that was cut off is not."""
    backend = make_backend(caption_model=tiny.blip_that_says(tmp_path / "blip", ["red", "cat"]))
    (caption,) = answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
    assert (caption.text, caption.complete) == ("red cat", True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["cat", "[UNK]", "dog"], "cat dog"),
        (["two", "-", "cats", ",", "red", "."], "two-cats, red."),
        (["red", "##4", "cat"], "red4 cat"),
    ],
)
def test_words_are_joined_as_they_are_written(make_backend, tmp_path, make_image, words, text):
    """BERT's family takes words and signs apart; marks that mean nothing are no words."""
    backend = make_backend(caption_model=tiny.blip_that_says(tmp_path / "blip", words))
    (caption,) = answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
    assert caption.text == text


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "empty_reply"),
        (["[PAD]", "[PAD]"], "empty_reply"),
        (["red"] * 32, "repetition"),
        (["red"] * 9, "repetition"),
    ],
)
def test_what_says_nothing_is_no_answer(make_backend, tmp_path, make_image, words, code):
    """Nothing at all, or one word for ever: a rung below may do better."""
    backend = make_backend(caption_model=tiny.blip_that_says(tmp_path / "blip", words))
    with pytest.raises(InvalidReplyError) as caught:
        answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "stuck"),
    [
        ("a red red red cat", False),
        ("red red red red red red red red", True),
        ("a dog on a sofa and a dog and a dog and a dog and a dog", True),
        ("the the the the", False),
        ("no no no no no no no no, said the man who stood beside the red car in the rain", False),
        ("猫" * 70, True),
        ("猫" * 20, False),
        ("", False),
    ],
)
def test_a_refrain_is_told_from_words_that_come_twice(text, stuck):
    """Half of the text or more, up to its end."""
    assert repeats_itself(text) is stuck


@pytest.mark.parametrize(
    "piece", ["<unused7>", "<extra_id_3>", "<|extra_2|>", "<|reserved_special_token_5|>", "[unused1]"]
)
def test_tokens_that_stand_for_nothing_are_no_words(model, piece):
    """Whatever a family calls them, and though its tokenizer takes them for words like any other."""
    tokenizer = tf.AutoTokenizer.from_pretrained(model("llava"))
    tokenizer.add_tokens([piece])
    tokens = tokenizer(f"red{piece}cat", add_special_tokens=False)["input_ids"]
    assert len(tokens) == 3
    assert decode(tokenizer, tokens) == "red cat"


@pytest.mark.parametrize("way", [{}, {"caption_beams": 2}, {"caption_seed": 5}])
def test_scores_that_are_not_finite_are_no_answer(make_backend, model_copy, make_image, way):
    """They would come out as some word or other."""
    folder = model_copy("blip")
    tensors = load_file(folder / "model.safetensors")
    tensors[next(name for name in tensors if name.endswith("predictions.bias"))][:] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidReplyError, match="not finite"):
        answer(make_backend(caption_model=folder, **way).describe, [make_image()], DescribeRequest(), timeout_s=60)


def test_thoughts_that_the_prompt_has_opened_are_no_description(make_backend, model_copy, make_image):
    """A model that never closes them has said nothing, and is told how to get further."""
    folder = model_copy("llava")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if add_generation_prompt %}<think>\n{% endif %}")
    backend = make_backend(caption_model=folder)
    with pytest.raises(InvalidReplyError, match="nothing but its thoughts") as caught:
        answer(backend.describe, [make_image()], DescribeRequest(max_words=2), timeout_s=60)
    assert caught.value.code == "limit_used_up"
    assert "max_words" in caught.value.remedy


@pytest.mark.parametrize("are_special", [False, True])
def test_thoughts_of_a_model_are_no_part_of_its_text(model, are_special):
    """Whether or not its tokenizer takes their tags for special tokens, which are left out of every text."""
    tokenizer = tf.AutoTokenizer.from_pretrained(model("llava"))
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=are_special)
    if are_special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokens = tokenizer("<think>a dog</think>a cat", add_special_tokens=False)["input_ids"]
    speech = spoken(decode(tokenizer, [*tokens, tokenizer.eos_token_id]))
    assert speech.text.strip() == "a cat"
    assert speech.has_thoughts


def test_chance_has_no_part_in_it(make_backend, model_copy, make_image):
    """Even where the checkpoint's defaults would sample."""
    folder = model_copy("llava")
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 5.0, "top_k": 40}')
    backend = make_backend(caption_model=folder)
    texts = {answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)[0].text for _ in range(3)}
    assert len(texts) == 1


def test_a_model_without_a_chat_template_is_refused(make_backend, model_copy, make_image):
    """It could not be asked anything."""
    folder = model_copy("llava")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(NotReadyError, match="has no chat template"):
        answer(make_backend(caption_model=folder).describe, [make_image()], DescribeRequest(), timeout_s=60)


@pytest.mark.parametrize("kind", ["blip", "llava"])
def test_beams_find_what_those_of_transformers_find(make_backend, model, photos, kind):
    """And a text at least as probable as the greedy one."""
    folder = model(kind)
    image = open_image(photos / "cat.jpg")
    request = DescribeRequest(prompt=None if kind == "blip" else "a cat", max_words=4)
    (found,) = answer(make_backend(caption_model=folder, caption_beams=3).describe, [image], request, timeout_s=60)
    auto = tf.AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    pixels = image.rgb(min_side_px=64)
    if kind == "blip":
        inputs = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")(images=[pixels], return_tensors="pt")
        begun = 1
    else:
        processor = tf.AutoProcessor.from_pretrained(folder, backend="pil")
        content = [{"type": "image"}, {"type": "text", "text": "a cat Use at most 4 words."}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=[pixels], text=[text], return_tensors="pt")
        begun = inputs["input_ids"].shape[1]
    tokens = auto.generate(**inputs, max_new_tokens=6, num_beams=3, do_sample=False)
    assert found.text == tokenizer.decode(tokens[0, begun:], skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", ["blip", "llava"])
def test_a_seed_draws_words_by_chance_and_always_the_same(make_backend, model, photos, kind):
    """Whatever else is asked in the same batch; the application's random numbers are left alone."""
    images = [open_image(path) for path in sorted(photos.glob("*.jpg"))[:3]]
    before = torch.random.get_rng_state()
    said = {}
    for seed in (None, 1, 2, 3):
        backend = make_backend(caption_model=model(kind), caption_seed=seed)
        request = DescribeRequest(max_words=6)
        together = [each.text for each in answer(backend.describe, images, request, timeout_s=60)]
        alone = [answer(backend.describe, [image], request, timeout_s=60)[0].text for image in images]
        assert together == alone
        said[seed] = tuple(together)
    assert len(set(said.values())) > 1
    assert torch.equal(torch.random.get_rng_state(), before)


def test_beams_and_chance_are_part_of_what_is_remembered(make_backend, model):
    """An answer from the cache is that of the same settings."""
    settings = ({}, {"caption_beams": 3}, {"caption_seed": 3})
    prints = {
        make_backend(caption_model=model("blip"), **each).model_for(DescribeRequest()).fingerprint for each in settings
    }
    assert len(prints) == 3


@pytest.mark.parametrize("settings", [{"caption_beams": 0}, {"caption_beams": 2, "caption_seed": 1}])
def test_wishes_that_exclude_each_other_are_an_error_of_the_configuration(settings):
    """Before anything is loaded."""
    with pytest.raises(ConfigError, match="caption_beams"):
        LocalBackend(**settings)
