"""Lean captions are token for token those of ``generate`` on the same weights."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch

from vision_backends.backends.local.models.blip import BlipDecoder
from vision_backends.backends.local.models.decoding import Decoding

END = 3
LIKE_LARGE = {
    "vision_changes": {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6},
    "num_attention_heads": 2,
}


pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("beams", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tokens_equal_those_of_generate(seed, beams):
    """In batches of all sizes, while rows end at different steps."""
    model = make_model(seed)
    decoder, lengths = BlipDecoder(model), set()
    for count in range(1, 10):
        pixels = make_pixels(count, seed=count)
        expected = plain(model, pixels, max_new_tokens=12, num_beams=beams)
        assert decoder.generate(pixels, Decoding(max_new_tokens=12, num_beams=beams)) == expected
        lengths |= {len(row) for row in expected}
    assert len(lengths) >= 3


@pytest.mark.parametrize("length", [1, 2, 12])
def test_beams_are_weighed_as_by_generate(length):
    """By every rule for lengths and for stopping."""
    for seed in (4, 5):
        model, pixels = make_model(seed), make_pixels(4, seed=seed)
        decoder = BlipDecoder(model)
        for beams, penalty, early in itertools.product((2, 3), (-1.0, 0.0, 0.5, 2.0), (True, False, "never")):
            wishes = {
                "max_new_tokens": length,
                "num_beams": beams,
                "length_penalty": penalty,
                "early_stopping": early,
            }
            assert decoder.generate(pixels, Decoding(**wishes)) == plain(model, pixels, **wishes), wishes


@pytest.mark.parametrize("beams", [1, 3])
def test_towers_may_differ_in_size(beams):
    """As they do in BLIP large."""
    model, pixels = make_model(6, **LIKE_LARGE), make_pixels(3)
    expected = plain(model, pixels, max_new_tokens=20, num_beams=beams)
    assert BlipDecoder(model).generate(pixels, Decoding(max_new_tokens=20, num_beams=beams)) == expected


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
        (mine,) = BlipDecoder(model).generate(pixels, Decoding(max_new_tokens=10))
        if mine != theirs:
            different += 1
            step = next(n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b)
            scores = found.scores[step][0]
            assert scores[theirs[step]] - scores[mine[step]] <= 4 * torch.finfo(dtype).eps * scores.abs().max()
    assert different <= 2


def test_chance_is_that_of_generate_and_of_no_neighbour():
    """A row in a batch is drawn as if it were alone."""
    model, pixels = make_model(7), make_pixels(3)
    wishes = {"temperature": 1.7, "top_k": 20, "top_p": 0.9}
    alone = []
    for row in pixels:
        torch.manual_seed(11)
        with torch.inference_mode():
            said = model.generate(pixel_values=row[None], do_sample=True, max_new_tokens=12, **wishes)
        alone.append(said[0, 1:].tolist())
    decoder = BlipDecoder(model)
    assert decoder.generate(pixels, Decoding(max_new_tokens=12, seed=11, **wishes)) == alone
    assert decoder.generate(pixels, Decoding(max_new_tokens=12, seed=12, **wishes)) != alone


@pytest.mark.parametrize("beams", [1, 3])
def test_rows_may_have_lengths_of_their_own(beams):
    """One that is no longer wanted has said what it would have said at that length; others go on."""
    model, pixels = make_model(1), make_pixels(5)
    limits = [3, 12, 1, 7, 5]
    expected = [
        plain(model, row[None], max_new_tokens=limit, num_beams=beams)[0]
        for row, limit in zip(pixels, limits, strict=True)
    ]
    asked = []

    def wanted(step):
        asked.append(step)
        return [step < limit for limit in limits]

    assert BlipDecoder(model).generate(pixels, Decoding(max_new_tokens=12, num_beams=beams), wanted=wanted) == expected
    assert len({len(row) for row in expected}) >= 4
    assert sorted(set(asked)) == list(range(max(map(len, expected))))


def test_an_image_that_is_not_wanted_is_not_looked_at():
    """Nor is one that has become unwanted while others were looked at."""
    model, pixels = make_model(9), make_pixels(4)
    decoding, looks, asked = Decoding(max_new_tokens=6), [], []
    decoder = BlipDecoder(model)
    expected = decoder.generate(pixels, decoding)
    model.vision_model.embeddings.register_forward_hook(lambda *_: looks.append(1))

    def wanted(step):
        asked.append(step)
        return [True, False, len(asked) < 3, True]

    assert decoder.generate(pixels, decoding, wanted=wanted) == [expected[0], [], [], expected[3]]
    assert len(looks) == 2
    assert decoder.generate(pixels, decoding, wanted=lambda _: [False] * 4) == [[]] * 4
    assert len(looks) == 2


def test_what_wanted_raises_ends_everything():
    """It comes out as it is, and the next call is not affected."""
    model, pixels = make_model(9), make_pixels(2)
    decoder, decoding = BlipDecoder(model), Decoding(max_new_tokens=6)

    def wanted(step):
        if step == 1:
            raise TimeoutError
        return [True, True]

    with pytest.raises(TimeoutError):
        decoder.generate(pixels, decoding, wanted=wanted)
    assert decoder.generate(pixels, decoding) == plain(model, pixels, max_new_tokens=6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("beams", [1, 2])
def test_scores_that_are_not_finite_are_no_answer(bad, beams):
    """Though −∞ is, which is how a token is forbidden."""
    model, pixels, decoding = make_model(1), make_pixels(1), Decoding(max_new_tokens=4, num_beams=beams)
    bias = model.text_decoder.cls.predictions.bias
    with torch.no_grad():
        bias[10] = -float("inf")
    assert BlipDecoder(model).generate(pixels, decoding) == plain(model, pixels, max_new_tokens=4, num_beams=beams)
    with torch.no_grad():
        bias[11] = bad
    assert BlipDecoder(model).generate(pixels, decoding) == [None]


@pytest.mark.parametrize("wishes", [{}, {"num_beams": 3}, {"seed": 5}])
def test_a_row_without_finite_scores_disturbs_no_other(wishes):
    """It ends at once, and the others say what they would have said."""
    model, pixels, decoding = make_model(3), make_pixels(5), Decoding(max_new_tokens=12, **wishes)
    decoder = BlipDecoder(model)
    expected = decoder.generate(pixels, decoding)
    pixels[[0, 3]] = float("nan")
    assert decoder.generate(pixels, decoding) == [None, expected[1], expected[2], None, expected[4]]


def test_no_images_have_no_texts():
    """An empty batch is a batch."""
    assert BlipDecoder(make_model(1)).generate(make_pixels(0), Decoding(max_new_tokens=4)) == []


def test_a_text_longer_than_the_model_can_count_is_refused():
    """It would fail in the middle otherwise; up to there it is written."""
    model, pixels = make_model(2, end_bias=-100.0, max_position_embeddings=8), make_pixels(1)
    decoder = BlipDecoder(model)
    assert decoder.generate(pixels, Decoding(max_new_tokens=8)) == plain(model, pixels, max_new_tokens=8)
    with pytest.raises(ValueError, match="max_new_tokens is 9, but the model can only count to 8"):
        decoder.generate(pixels, Decoding(max_new_tokens=9))


def test_a_checkpoint_that_wishes_for_more_is_refused():
    """Rather than decoded in another way than its publisher meant."""
    model = make_model(1)
    model.text_decoder.generation_config.repetition_penalty = 1.5
    with pytest.raises(ValueError, match=r"'repetition_penalty': 1.5"):
        BlipDecoder(model)
