"""Everything that can be an image → one checked, upright `Image`, and from its pixels to the wire.

The modules of this package decide what is accepted, the limits of size, and how pixels are decoded and encoded.
They must not know what the image is for, nor any backend. Importing them imports neither Pillow nor numpy.
"""

from vision_backends.images.image import Image, ImageSource, KeptImage, open_image
from vision_backends.images.limits import DEFAULT_LIMITS, ImageLimits
from vision_backends.images.sources import name_of
from vision_backends.images.wire import WireImage, WireRule, encode_for_wire

__all__ = [
    "DEFAULT_LIMITS",
    "Image",
    "ImageLimits",
    "ImageSource",
    "KeptImage",
    "WireImage",
    "WireRule",
    "encode_for_wire",
    "name_of",
    "open_image",
]
