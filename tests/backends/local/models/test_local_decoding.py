"""Wishes for texts are checked where they are made."""

from __future__ import annotations

import subprocess
import sys

import pytest
from transformers import GenerationConfig

from vision_backends.backends.local.models.decoding import Decoding, decoding_of, wishes_unmet


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0, but has to be at least 1"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"temperature": 0.0}, "temperature is 0.0, but has to be above 0: leave out the seed"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"num_beams": 2, "seed": 1}, "num_beams is 2 and seed is 1: take one of them"),
    ],
)
def test_what_is_out_of_range_is_refused(wishes, message):
    """By name and value."""
    with pytest.raises(ValueError, match=message):
        Decoding(**{"max_new_tokens": 5, **wishes})


def test_equal_wishes_sort_together():
    """Requests can be gathered by them."""
    assert len({Decoding(max_new_tokens=5), Decoding(max_new_tokens=5), Decoding(max_new_tokens=5, seed=1)}) == 2


def test_settings_that_change_nothing_are_no_wishes():
    """Old checkpoints spell out every default."""
    old = {"min_length": 0, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0, "num_beam_groups": 1, "num_beams": 5}
    assert wishes_unmet(GenerationConfig(**old)) == {}
    assert wishes_unmet(GenerationConfig(**old | {"no_repeat_ngram_size": 1})) == {"no_repeat_ngram_size": 1}
    assert wishes_unmet(GenerationConfig(min_length=5, suppress_tokens=[7])) == {
        "min_length": 5,
        "suppress_tokens": [7],
    }


def test_wishes_need_no_torch():
    """They are sorted before any model is there."""
    code = "import sys, vision_backends.backends.local.models.decoding; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {"top_k": 50}),
        ({"top_k": 0, "temperature": 0.7, "top_p": 0.9}, {"top_k": None, "temperature": 0.7, "top_p": 0.9}),
        ({"num_beams": 3, "early_stopping": True, "length_penalty": 2.0}, {"num_beams": 3, "early_stopping": True}),
    ],
)
def test_a_checkpoint_may_want_its_own_way(settings, wanted):
    """What it leaves open is what transformers takes then."""
    found = decoding_of(GenerationConfig(**settings), max_new_tokens=9)
    assert found == Decoding(**{"max_new_tokens": 9, "top_k": 50, "length_penalty": found.length_penalty, **wanted})
    assert found.length_penalty == settings.get("length_penalty", 1.0)
