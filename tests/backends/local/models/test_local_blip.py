"""Lean captions are token for token those of ``generate`` on the same weights."""

from __future__ import annotations

import pytest
import tiny
import torch

from vision_backends.backends.local.models.blip import BlipDecoder

END = 3
LIKE_LARGE = {
    "vision_changes": {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6},
    "num_attention_heads": 2,
}


def make_model(seed, *, end_bias=3.0, **more):
    """A model whose texts end at different lengths."""
    model = tiny.blip_model(seed=seed, std=0.3, **more)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[END] += end_bias
    return model


def make_pixels(count, *, seed=0):
    """Images [count, 3, 32, 32] that differ as much as real ones do."""
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2


def plain(model, pixels, **wishes):
    """What ``generate`` says, without the token that it begins with and those that fill up rows."""
    with torch.inference_mode():
        rows = model.generate(pixel_values=pixels, do_sample=False, **wishes)[:, 1:].tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tokens_equal_those_of_generate(seed):
    """In batches of all sizes, while rows end at different steps."""
    model = make_model(seed)
    decoder, lengths = BlipDecoder(model), set()
    for count in range(1, 10):
        pixels = make_pixels(count, seed=count)
        expected = plain(model, pixels, max_new_tokens=12)
        assert decoder.generate(pixels, max_new_tokens=12) == expected
        lengths |= {len(row) for row in expected}
    assert len(lengths) >= 3


def test_towers_may_differ_in_size():
    """As they do in BLIP large."""
    model, pixels = make_model(6, **LIKE_LARGE), make_pixels(3)
    expected = plain(model, pixels, max_new_tokens=20)
    assert BlipDecoder(model).generate(pixels, max_new_tokens=20) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tokens_equal_in_16_bits_unless_two_are_as_good(dtype):
    """A token may only differ where the model's own scores of both are alike to rounding."""
    different = 0
    for seed in range(10):
        model = make_model(seed).to(dtype)
        pixels = make_pixels(1, seed=seed)
        with torch.inference_mode():
            found = model.generate(
                pixel_values=pixels,
                do_sample=False,
                max_new_tokens=10,
                output_scores=True,
                return_dict_in_generate=True,
            )
        theirs = found.sequences[0, 1:].tolist()
        (mine,) = BlipDecoder(model).generate(pixels, max_new_tokens=10)
        if mine != theirs:
            different += 1
            step = next(n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b)
            scores = found.scores[step][0]
            assert scores[theirs[step]] - scores[mine[step]] <= 4 * torch.finfo(dtype).eps * scores.abs().max()
    assert different <= 2


def test_rows_may_have_lengths_of_their_own():
    """One that is no longer wanted has said what it would have said at that length; others go on."""
    model, pixels = make_model(1), make_pixels(5)
    limits, asked = [3, 12, 1, 7, 5], []
    expected = [plain(model, row[None], max_new_tokens=limit)[0] for row, limit in zip(pixels, limits, strict=True)]

    def wanted():
        asked.append(1)
        return [len(asked) - len(limits) < limit for limit in limits]  # it was asked before each image was looked at

    assert BlipDecoder(model).generate(pixels, max_new_tokens=12, wanted=wanted) == expected
    assert len({len(row) for row in expected}) >= 4
    assert len(asked) == len(limits) + max(map(len, expected))


def test_an_image_that_is_not_wanted_is_not_looked_at():
    """Nor is one that has become unwanted while others were looked at."""
    model, pixels = make_model(9), make_pixels(4)
    looks, asked = [], []
    decoder = BlipDecoder(model)
    expected = decoder.generate(pixels, max_new_tokens=6)
    model.vision_model.embeddings.register_forward_hook(lambda *_: looks.append(1))

    def wanted():
        asked.append(1)
        return [True, False, len(asked) < 3, True]

    assert decoder.generate(pixels, max_new_tokens=6, wanted=wanted) == [expected[0], [], [], expected[3]]
    assert len(looks) == 2
    assert decoder.generate(pixels, max_new_tokens=6, wanted=lambda: [False] * 4) == [[]] * 4
    assert len(looks) == 2


def test_what_wanted_raises_ends_everything():
    """It comes out as it is, and the next call is not affected."""
    model, pixels, asked = make_model(9), make_pixels(2), []
    decoder = BlipDecoder(model)

    def wanted():
        asked.append(1)
        if len(asked) == 4:
            raise TimeoutError
        return [True, True]

    with pytest.raises(TimeoutError):
        decoder.generate(pixels, max_new_tokens=6, wanted=wanted)
    assert decoder.generate(pixels, max_new_tokens=6) == plain(model, pixels, max_new_tokens=6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_no_answer(bad):
    """Though −∞ is, which is how a token is forbidden."""
    model, pixels = make_model(1), make_pixels(1)
    bias = model.text_decoder.cls.predictions.bias
    with torch.no_grad():
        bias[10] = -float("inf")
    assert BlipDecoder(model).generate(pixels, max_new_tokens=4) == plain(model, pixels, max_new_tokens=4)
    with torch.no_grad():
        bias[11] = bad
    assert BlipDecoder(model).generate(pixels, max_new_tokens=4) == [None]


def test_a_row_without_finite_scores_disturbs_no_other():
    """It ends at once, and the others say what they would have said."""
    model, pixels = make_model(3), make_pixels(5)
    decoder = BlipDecoder(model)
    expected = decoder.generate(pixels, max_new_tokens=12)
    pixels[[0, 3]] = float("nan")
    assert decoder.generate(pixels, max_new_tokens=12) == [None, expected[1], expected[2], None, expected[4]]


def test_no_images_have_no_texts():
    """An empty batch is a batch."""
    assert BlipDecoder(make_model(1)).generate(make_pixels(0), max_new_tokens=4) == []


def test_a_text_is_no_longer_than_the_model_can_count():
    """Whatever was asked for."""
    model, pixels = make_model(2, end_bias=-100.0, max_position_embeddings=8), make_pixels(1)
    assert BlipDecoder(model).generate(pixels, max_new_tokens=9) == plain(model, pixels, max_new_tokens=8)


@pytest.mark.parametrize("wish", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}, {"min_length": 5}])
def test_a_checkpoint_that_wishes_for_more_is_refused(wish):
    """Rather than decoded in another way than its publisher meant."""
    model = make_model(1)
    model.text_decoder.generation_config.update(**wish)
    with pytest.raises(ValueError, match=str(wish)):
        BlipDecoder(model)


def test_settings_that_change_nothing_are_no_wishes():
    """Old checkpoints spell out every default."""
    model, pixels = make_model(1), make_pixels(1)
    expected = plain(model, pixels, max_new_tokens=6)
    old = {"min_length": 0, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0, "num_beam_groups": 1}
    model.text_decoder.generation_config.update(**old)
    assert BlipDecoder(model).generate(pixels, max_new_tokens=6) == expected
