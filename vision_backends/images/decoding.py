"""Encoded bytes and lazily opened PIL images → upright RGB pixels.

This module decides whether an image is complete, small enough, quick enough to decode by its own count, and of a format
that is open; it asks for room before it decodes. It must not know where an image comes from, nor how long its caller
may wait.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from functools import partial, reduce
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

from vision_backends.errors import InvalidImageError, VisionError
from vision_backends.images.container import Container, ExcessError
from vision_backends.images.formats import FORMATS, identify, strip, with_end
from vision_backends.images.pixels import Decoded, translated_errors, upright_rgb, visible
from vision_backends.images.tiff import exif_orientation
from vision_backends.installing import pip_command

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from vision_backends.images.limits import Encoded, ImageLimits
    from vision_backends.images.wire import WireImage, WireRule

__all__ = ["HEIF_PLUGIN", "Measured", "decode", "measure", "pixels_of_pil"]

HEIF_PLUGIN = "pillow_heif"
"""What decodes HEIC: only where memory and time end, because nobody has counted what it takes."""

_PLUGINS = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_KINDS = {"MPO": "JPEG"}
"""Pillow's names of formats that are another one's with more pictures."""

_FREED = frozenset({"WEBP", "AVIF"})
"""Formats whose decoder lives, with its buffers, as long as its image, unless it is taken away."""

_FILLS = (b"\x00", b"\x01")
_MOST_MISSING = 0.032
"""More than this share of an image is not cut off without an error."""

_BLOCK_ROWS = 2
"""Rows of a JPEG's largest usual blocks, at an eighth of its scale."""

_REDUCTIONS = (8, 4, 2)
"""By how much a JPEG can be made smaller while it is decoded."""

_USUAL_PIXELS = 12_000_000
"""Of an image that does not say how large it is."""

_QUICK_STEPS = 8_000_000
"""Pixels that are gone over in a few hundredths of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An encoded image that may be decoded, and what that takes.

    Attributes:
        encoded: The file.
        kind: Pillow's name of its format.
        container: What the decoder gets; None where the file is damaged, and it is still to be seen how badly.
        room_bytes: Memory that decoding takes.
        limits: How large it may be.
        min_side_px: Least length of the shorter side of the pixels; None asks for all of them.
        passed: The file as it is sent by a rule, if its pixels prove to be shown as they are stored.
    """

    encoded: Encoded
    kind: str
    container: Container | None
    room_bytes: int
    limits: ImageLimits
    min_side_px: int | None
    passed: tuple[WireRule, WireImage] | None = None

    @property
    def is_quick(self) -> bool:
        """Whether it is decoded in a few hundredths of a second, whatever is in it."""
        container = self.container
        if container is None or container.size is None or self.needs_limits or self.kind not in _PLUGINS:
            return False
        width, height = container.size
        return max(container.steps or 0, width * height) <= _QUICK_STEPS

    @property
    def needs_limits(self) -> bool:
        """Whether more may be in it than was counted, so that it has to be decoded where memory and time end."""
        return self.container is not None and (
            not self.container.is_certain or (self.kind == "HEIF" and _is_of_plugin())
        )


def _is_of_plugin() -> bool:
    """Return whether a plugin for HEIF is installed that the program has not registered itself."""
    from PIL import Image as PILImage

    return "HEIF" not in PILImage.OPEN and find_spec(HEIF_PLUGIN) is not None


def measure(
    encoded: Encoded, *, limits: ImageLimits, min_side_px: int | None = None, wire: WireRule | None = None
) -> Measured:
    """Find out what an image file is and what it takes to decode it, without decoding anything.

    Args:
        encoded: The file.
        limits: How large it may be.
        min_side_px: Least length of the shorter side of the pixels; None asks for all of them.
        wire: How it is sent, which then says how long that has to be.

    Raises:
        InvalidImageError: It is not an image, of a format that is not open, or has absurdly many parts.
        ImageTooLargeError: It has more pixels than the limits allow, or takes too long or too much memory.
    """
    name = encoded.name
    kind = identify(encoded.data, name=name)
    with translated_errors(name):
        try:
            container = strip(encoded.data, kind=kind)
        except ExcessError as error:
            raise InvalidImageError(
                f"{name} has {error.counted}.", remedy="Save it again with another program, which will leave them out."
            ) from error
        except (ValueError, IndexError, OverflowError, struct.error, zlib.error):
            if kind == "JPEG":
                raise
            return _measured(encoded, kind, None, limits, min_side_px)
    size = container.size
    passed: WireImage | None = None
    if size is not None:
        limits.check_pixels(size, name=name)
        limits.check_steps(size, container.steps or 0, counted=container.counted, name=name)
        limits.check_memory(size, container.bytes_per_pixel, name=name)
        if wire is not None and 0 not in size:
            width, height = size[::-1] if container.orientation in _SIDEWAYS else size
            if kind == "JPEG" and container.orientation == 1:
                passed = wire.passed(encoded.data, kind=kind, size=size, parts=container.parts)
            min_side_px = wire.decoded_side_px(passed, size=(width, height))
    measured = _measured(encoded, kind, container, limits, min_side_px)
    return measured if wire is None or passed is None else replace(measured, passed=(wire, passed))


def _measured(
    encoded: Encoded, kind: str, container: Container | None, limits: ImageLimits, min_side_px: int | None
) -> Measured:
    pixels, per_pixel = min(limits.max_pixels, _USUAL_PIXELS), 16
    if container is not None and container.size is not None:
        per_pixel, (width, height) = container.bytes_per_pixel, container.size
        pixels = width * height
        if kind == "JPEG" and min_side_px is not None and per_pixel <= 8:
            pixels //= next((by * by for by in _REDUCTIONS if min(width, height) // by >= min_side_px), 1)
    return Measured(
        encoded=encoded,
        kind=kind,
        container=container,
        room_bytes=pixels * per_pixel,
        limits=limits,
        min_side_px=min_side_px,
    )


def decode(measured: Measured) -> Decoded:
    """Decode an image file; of an animation, the first picture.

    A JPEG is decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 that reaches the length of its shorter side that
    was asked for, still reading every byte.

    Raises:
        InvalidImageError: It is damaged, or of a variant that is not open.
        ImageTooLargeError: It has more pixels than the limits allow.
    """
    encoded, kind, limits, name = measured.encoded, measured.kind, measured.limits, measured.encoded.name
    container = measured.container
    found: Decoded | None = None
    mend = partial(_mend, encoded.data, kind=kind, name=name, limits=limits)
    with translated_errors(name):
        try:
            found = _decode(container, kind=kind, name=name, limits=limits, min_side_px=measured.min_side_px)
        except (VisionError, MemoryError):
            raise
        except Exception:
            if kind == "JPEG":
                raise
        if found is None or container is None:
            found, missing = mend()
            found = replace(found, as_stored=False)
        elif kind == "JPEG" and (not container.ended or _has_flat_end(found.pixels)):
            _, missing = mend()
        else:
            missing = 0.0
    return found if not missing else replace(found, notes=(*found.notes, _cut_note(name, missing)), as_stored=False)


def _decode(
    container: Container | None, *, kind: str, name: str, limits: ImageLimits, min_side_px: int | None = None
) -> Decoded:
    """Decode what a decoder gets; errors as in `decode`, and whatever Pillow raises."""
    if container is None:
        raise ValueError("a file whose parts cannot be told")
    from PIL import Image as PILImage

    # Image.open would warn of large sizes before they can be checked; all threads share the warning filters.
    if kind in _PLUGINS:
        import_module(_PLUGINS[kind])  # registers itself
    plugin, accepts = PILImage.OPEN.get(kind, (None, None))
    if plugin is None or (accepts is not None and accepts(container.data[:16]) is not True):
        raise InvalidImageError(
            f"{name} is {kind} of a variant that the installed Pillow cannot open.",
            remedy=f"With pillow-heif it can: {pip_command('vision-backends[heic]')}" if kind == "HEIF" else FORMATS,
        )
    limits.check_pixels(container.size or (0, 0), name=name)
    image: Any = plugin(BytesIO(container.data), "")
    limits.check_pixels(image.size, name=name)
    whole_size = image.size
    is_reduced = min_side_px is not None and image.draft(None, (min_side_px, min_side_px)) is not None
    image.load()
    if kind in _FREED:
        vars(image).pop("_decoder", None)
        image.fp = None
    width, height = whole_size if is_reduced else image.size
    orientation = container.orientation or exif_orientation(image.info.get("exif"))
    icc_profile = container.icc_profile or image.info.get("icc_profile")
    shown, notes = visible(image, kind=kind, name=name)
    pixels, as_stored = upright_rgb(
        shown, orientation=orientation, icc_profile=icc_profile, copy=kind not in {"JPEG", *_FREED}
    )
    if orientation in _SIDEWAYS:
        width, height = height, width
    return Decoded(pixels=pixels, width=width, height=height, notes=notes, as_stored=as_stored and not notes)


def _mend(data: bytes, *, kind: str, name: str, limits: ImageLimits) -> tuple[Decoded, float]:
    """Return an image whose file has no end, as browsers show it, and how large a share of it is missing.

    Raises:
        InvalidImageError: More is missing than nobody would notice. Whatever Pillow raises: it is damaged otherwise.
    """
    if kind == "GIF":
        return _mend_gif(data, name=name, limits=limits)
    ends = []
    for fill in _FILLS:
        whole = with_end(data, fill, kind=kind, max_pixels=limits.max_pixels)
        if whole is None:
            raise ValueError("a file without an end")
        if whole.missing is not None and whole.missing > _MOST_MISSING:
            raise _cut_short(name, whole.missing)
        container = strip(whole.data, kind=kind)
        if kind == "JPEG":  # only the share that is missing counts, which is seen best as it lies in the file
            container = replace(container, orientation=1)
        ends.append(_decode(container, kind=kind, name=name, limits=limits, min_side_px=1))
        if whole.missing is not None:
            return ends[0], whole.missing
    missing = _missing_share(*(end.pixels for end in ends), is_in_rows=kind == "JPEG")
    if missing > _MOST_MISSING:
        raise _cut_short(name, missing)
    return ends[0], missing


def _mend_gif(data: bytes, *, name: str, limits: ImageLimits) -> tuple[Decoded, float]:
    """Return a GIF as far as it goes, and how large a share of its first picture is missing; errors as in `_mend`."""
    from PIL import Image as PILImage

    ends = []
    for fill in _FILLS:
        whole = with_end(data, fill, kind="GIF", max_pixels=limits.max_pixels)
        if whole is None:
            raise ValueError("a file without an end")
        image = _as_far_as_it_goes(whole.data)
        ends.append(PILImage.frombytes("L", image.size, image.tobytes()))
    missing = _missing_share(*ends, is_in_rows=False)
    if missing > _MOST_MISSING:
        raise _cut_short(name, missing)
    shown, notes = visible(_as_far_as_it_goes(strip(data, kind="GIF").data), kind="GIF", name=name)
    pixels, _ = upright_rgb(shown, copy=True)
    return Decoded(pixels=pixels, width=pixels.width, height=pixels.height, notes=notes), missing


def _as_far_as_it_goes(data: bytes) -> PILImage.Image:
    """Return what a decoder has made of a GIF when its data ends."""
    from PIL import Image as PILImage
    from PIL import ImageFile

    width, height = strip(data, kind="GIF").size or (0, 0)
    if width * height > (PILImage.MAX_IMAGE_PIXELS or 0):  # Pillow would warn
        raise ValueError("a large GIF that is damaged")
    parser = ImageFile.Parser()
    parser.feed(data)
    parser.feed(b"")  # the first only reads what stands before the pixels
    if parser.image is None:
        raise ValueError("a GIF without a picture")
    return parser.image


def pixels_of_pil(image: PILImage.Image, *, limits: ImageLimits) -> Decoded:
    """Return upright RGB pixels of a PIL image, which is loaded but not changed.

    Raises:
        InvalidImageError: It is closed, empty or damaged.
        ImageTooLargeError: It has more pixels than the limits allow, or would take too long to load.
    """
    from vision_backends.images.limits import Encoded

    name = "The PIL image"
    if 0 in image.size:
        raise InvalidImageError(f"{name} is empty: it has {image.width}×{image.height} pixels.")
    limits.check_pixels(image.size, name=name)
    with translated_errors(name):
        kind = _KINDS.get(image.format or "", image.format or "")
        if getattr(image, "tile", None) and kind in _PLUGINS:
            data = _file_of(image, max_bytes=limits.max_bytes)
            if data is not None and identify(data, name=name) == kind:
                measure(Encoded(name=name, data=data), limits=limits)
        try:
            image.load()
        except OSError:
            data = _file_of(image, max_bytes=limits.max_bytes)
            if data is None:
                raise
            return decode(measure(Encoded(name=name, data=data), limits=limits))
        orientation = exif_orientation(image.info.get("exif"))
        shown, notes = visible(image, kind=image.format, name=name)
        profile = image.info.get("icc_profile")
        pixels, _ = upright_rgb(shown, orientation=orientation, icc_profile=profile, copy=True)
    return Decoded(pixels=pixels, width=pixels.width, height=pixels.height, notes=notes)


def _file_of(image: PILImage.Image, *, max_bytes: int) -> bytes | None:
    """Return the file behind a PIL image whose pixels are not loaded; None where it is not to be had."""
    file = getattr(image, "fp", None)
    if file is None or image.tell():
        return None
    at = file.tell()
    file.seek(0)
    data: bytes = file.read(max_bytes + 1)
    file.seek(at)
    return data if len(data) <= max_bytes else None


def _has_flat_end(pixels: PILImage.Image) -> bool:
    """Return whether one edge of an image has one colour, as all that a JPEG lacks is grey, however it is turned."""
    width, height = pixels.size
    across, down = max(1, width // 8), max(1, height // 8)
    first, second, third, last = map(
        pixels.getpixel, ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1))
    )
    edges = (
        (first == second, (0, 0, width, down)),
        (third == last, (0, height - down, width, height)),
        (first == third, (0, 0, across, height)),
        (second == last, (width - across, 0, width, height)),
    )
    return any(may_be and pixels.crop(edge).getcolors(maxcolors=1) for may_be, edge in edges)


def _missing_share(first: PILImage.Image, second: PILImage.Image, *, is_in_rows: bool) -> float:
    """Return the share of pixels in which two images differ.

    Args:
        first: An image at an eighth of its scale, or whole.
        second: The same with another fill in place of what is missing.
        is_in_rows: Whether everything below the first row of blocks that differs is missing, even where both happen to
            be black there.
    """
    from PIL import ImageChops

    most = reduce(ImageChops.lighter, ImageChops.difference(first, second).split())
    box = most.getbbox()
    if box is None:
        return 0.0
    width, height = most.size
    begun = most.crop((0, box[1], width, min(box[1] + _BLOCK_ROWS, height))) if is_in_rows else most
    different = width * begun.height - begun.histogram()[0]
    below = width * (height - box[1] - begun.height) if is_in_rows else 0
    return (different + below) / (width * height)


def _percent(share: float) -> str:
    return f"about {share:.0%}" if share >= 0.01 else "less than 1%"


def _cut_short(name: str, missing: float) -> InvalidImageError:
    return InvalidImageError(
        f"{name} is damaged or cut short: {_percent(missing)} of it is missing.",
        remedy="Fetch or save it again.",
    )


def _cut_note(name: str, missing: float) -> str:
    return f"{name} is cut short: {_percent(missing)} of it is missing."
