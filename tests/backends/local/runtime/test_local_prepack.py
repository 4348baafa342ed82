"""Packed layers give the same results, and only where they are faster."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch
from torch import nn

from vision_backends.backends.local.models.blip import BlipDecoder
from vision_backends.backends.local.models.decoding import Decoding
from vision_backends.backends.local.runtime.prepack import prepack

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"),
]


def make_clock(*, plain_s, packed_s):
    """A clock by which plain and packed layers, measured in turns, take so long."""
    steps = itertools.cycle([0.0, plain_s, 0.0, packed_s])
    return itertools.accumulate(steps).__next__


class Derived(nn.Linear):
    """A layer whose weights may be read by others."""


def make_module():
    """A module with layers of all kinds."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Sequential(nn.Linear(40, 16, bias=False)), Derived(16, 8))


def kinds(module):
    """What a module is made of."""
    return [type(part).__name__ for part in module.modules() if not isinstance(part, nn.Sequential)]


def test_layers_are_packed_where_that_is_faster():
    """At any depth, with and without bias, but nothing that is more than a linear layer."""
    module, states = make_module(), torch.randn(2, 5, 24)
    expected = module(states).detach()
    assert prepack(module, rows=(1, 8), clock=make_clock(plain_s=2.0, packed_s=1.0))
    assert kinds(module) == ["_Packed", "GELU", "_Packed", "Derived"]
    for batch, wanted in ((states, expected), (states[:1, :1], expected[:1, :1])):
        torch.testing.assert_close(module(batch).detach(), wanted)


@pytest.mark.parametrize("packed_s", [2.0, 0.99])
def test_layers_stay_where_packing_gains_nothing(packed_s):
    """A gain within the noise is none."""
    module = make_module()
    assert not prepack(module, rows=(8,), clock=make_clock(plain_s=1.0, packed_s=packed_s))
    assert kinds(module) == ["Linear", "GELU", "Linear", "Derived"]


def test_a_module_without_linear_layers_stays():
    """There is nothing to measure."""
    assert not prepack(nn.Sequential(nn.GELU(), Derived(4, 4)), rows=(8,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_real_clock_decides(dtype):
    """In whatever dtype, with instructions for it or without."""
    module = make_module().to(dtype)
    states = torch.randn(3, 24).to(dtype)
    expected = module(states).detach()
    packed = prepack(module, rows=(3,))
    assert ("_Packed" in kinds(module)) == packed
    torch.testing.assert_close(module(states).detach(), expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_the_same_from_packed_layers(beams):
    """By either way to them."""
    model = tiny.blip_model(std=0.3)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    decoding = Decoding(max_new_tokens=10, num_beams=beams)
    expected = BlipDecoder(model).generate(pixels, decoding)
    assert prepack(model, rows=(1, 17), clock=make_clock(plain_s=2.0, packed_s=1.0))
    assert BlipDecoder(model).generate(pixels, decoding) == expected
    with torch.inference_mode():
        said = model.generate(pixel_values=pixels, max_new_tokens=10, num_beams=beams, do_sample=False)
    assert said[:, 1:].tolist() == [row + [0] * (said.shape[1] - 1 - len(row)) for row in expected]
