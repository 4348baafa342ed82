"""Colours get the names that people give them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vision_backends.backends.embedded.colours import Palette, to_oklab

PALETTE = Palette()


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"),
        ((24, 24, 26), "black"),
        ((70, 70, 74), "grey"),
        ((128, 128, 128), "grey"),
        ((128, 126, 122), "grey"),
        ((200, 198, 196), "grey"),
        ((255, 255, 255), "white"),
        ((250, 245, 238), "white"),
        ((255, 0, 0), "red"),
        ((128, 0, 0), "red"),
        ((255, 140, 0), "orange"),
        ((255, 255, 0), "yellow"),
        ((0, 255, 0), "green"),
        ((34, 139, 34), "green"),
        ((128, 128, 0), "green"),
        ((0, 128, 128), "turquoise"),
        ((64, 224, 208), "turquoise"),
        ((0, 0, 255), "blue"),
        ((0, 0, 128), "dark blue"),
        ((135, 206, 235), "light blue"),
        ((75, 0, 130), "purple"),
        ((255, 192, 203), "pink"),
        ((255, 0, 255), "pink"),
        ((139, 69, 19), "brown"),
        ((210, 180, 140), "beige"),
        ((245, 245, 220), "beige"),
    ],
)
def test_plain_colours_have_their_plain_names(rgb, name):
    """Named colours of the web and near-greys are called what they are."""
    assert PALETTE.tones(Image.new("RGB", (8, 8), rgb)).main == (name,)


@pytest.mark.parametrize("skin", ["ffdbac", "f1c9a5", "e0ac8a", "c68d6a", "8d5a3c", "5a3825"])
def test_skin_is_beige_or_brown(skin):
    """Skin is neither pink nor orange, whoever's it is."""
    (name,) = PALETTE.tones(Image.new("RGB", (8, 8), f"#{skin}")).main
    assert name in {"beige", "brown"}


def test_oklab_of_known_colours():
    """White has lightness 1 and no colour; red is the value published with the formula."""
    white, red = to_oklab(np.array([[255, 255, 255], [255, 0, 0]], dtype=np.uint8))
    assert white == pytest.approx([1, 0, 0], abs=1e-3)
    assert red == pytest.approx([0.628, 0.225, 0.126], abs=1e-3)


def halves(left, right):
    """An image of two colours."""
    image = Image.new("RGB", (100, 80), left)
    image.paste(right, (60, 0, 100, 80))
    return image


def test_the_most_frequent_colour_comes_first():
    """Sixty per cent of blue beat forty of green."""
    assert PALETTE.tones(halves("#1f5fc8", "#2e8b2e")).main == ("blue", "green")


def test_a_vivid_colour_counts_for_more_than_grey():
    """Forty per cent of orange beat sixty of grey, as they do to the eye."""
    assert PALETTE.tones(halves("grey", "#f07818")).main == ("orange", "grey")


@pytest.mark.parametrize(
    ("image", "uniform", "greyscale", "brightness"),
    [
        (Image.new("RGB", (1, 1), "black"), True, True, "dark"),
        (Image.new("RGB", (900, 3), "white"), True, True, "bright"),
        (Image.new("RGB", (30, 30), "red"), True, False, "normal"),
        (halves("black", "white"), False, True, "dark"),
        (halves("#777777", "#7f7c78"), True, True, "normal"),
        (halves("white", "red"), False, False, "bright"),
    ],
)
def test_uniform_greyscale_and_brightness(image, uniform, greyscale, brightness):
    """Each is judged by itself, for images of any shape."""
    tones = PALETTE.tones(image)
    assert (tones.uniform, tones.greyscale, tones.brightness) == (uniform, greyscale, brightness)
    assert tones.to_dict()["main"] == list(tones.main)


def test_a_photo_in_grey_is_greyscale_and_its_colour_print_is_not(photos):
    """The photographer is black and white; the astronaut is not."""
    grey, coloured = (PALETTE.tones(Image.open(photos[name]).convert("RGB")) for name in ("photographer", "astronaut"))
    assert grey.greyscale
    assert not coloured.greyscale
