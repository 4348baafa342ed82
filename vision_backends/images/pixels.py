"""Everything that Pillow does: encoded bytes, PIL images and arrays → upright RGB pixels → the bytes that may leave.

This module decides whether an image is complete, small enough and of a format that is open; what becomes of
transparency, depth and colour profiles; and in which format pixels are sent. It translates every exception of Pillow.
It must not know where an image comes from, nor who receives it.
"""

from __future__ import annotations

import base64
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any

from vision_backends.errors import ImageTooLargeError, InvalidImageError, VisionError
from vision_backends.images.containers import ACCEPTED, exif_orientation, identify, strip, with_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.images.containers import Container
    from vision_backends.images.image import Encoded, ImageLimits

__all__ = ["Decoded", "WireImage", "decode", "encode_for_wire", "pixels_of_array", "pixels_of_pil", "translated_errors"]

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

_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_PROFILED_MODES = frozenset({"L", "RGB", "CMYK", "LAB"})

_RANGES = ((0, 1), (0, 255), (0, 65_535))
"""What 0 to 1, 8-bit and 16-bit values look like in a mode that does not state its range."""

_ARRAYS = (
    "Accepted are uint8 arrays, or float arrays from 0 to 1, of shape (height, width) for grey, "
    "(height, width, 3) for RGB and (height, width, 4) for RGBA."
)

_OPAQUE_KINDS = frozenset({"BMP", "DIB", "ICO", "CUR"})
"""Formats whose alpha is not used where it is zero throughout."""

_FILLS = (b"\x00", b"\x01")
_MOST_MISSING = 1 / 32
"""More than this share of an image is not cut off without an error."""

_BLOCK_ROWS = 2
"""Rows of a JPEG's largest usual blocks, at an eighth of its scale."""

_JPEG_QUALITY = 88
_JPEG_MAX_SIDE_PX = 65_500  # libjpeg's JPEG_MAX_DIMENSION
_FLAT_SHARE = 0.5
"""Share of pixels equal to their right neighbour above which an image is taken for graphics: in photos it is a few
hundredths, in screenshots more than nine tenths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Pixels, and the size of the whole image that they show.

    Attributes:
        pixels: Upright, mode RGB, without metadata; smaller than the image after a reduced decode.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        notes: What a viewer of the image would want to know, in a sentence each.
    """

    pixels: PILImage.Image
    width: int
    height: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WireImage:
    """An encoded image without metadata.

    Attributes:
        data: The bytes of the file.
        mime_type: ``image/jpeg`` or ``image/png``.
    """

    data: bytes = field(repr=False)
    mime_type: str

    @property
    def data_url(self) -> str:
        """The image as a ``data:`` URL."""
        return f"data:{self.mime_type};base64,{base64.b64encode(self.data).decode('ascii')}"


def decode(encoded: Encoded, *, limits: ImageLimits, min_side_px: int | None = None) -> Decoded:
    """Decode an image file; of an animation, the first picture.

    Args:
        encoded: The bytes of the file.
        limits: How large it may be.
        min_side_px: Least length of the shorter side; a JPEG is then decoded at the smallest of the scales 1, 1/2,
            1/4 and 1/8 that reaches it, still reading every byte. None decodes all pixels.

    Raises:
        InvalidImageError: It is not an image, damaged, or of a format that is not open.
        ImageTooLargeError: It has more pixels than the limits allow.
    """
    name = encoded.name
    kind = identify(encoded.data, name=name)
    with translated_errors(name):
        try:
            container = strip(encoded.data, kind=kind)
            found = _decode(container, kind=kind, name=name, limits=limits, min_side_px=min_side_px)
        except (VisionError, MemoryError):
            raise
        except Exception:
            if kind == "JPEG":
                raise
            found, missing = _mend(encoded.data, kind=kind, name=name, limits=limits)
        else:
            is_whole = kind != "JPEG" or (container.ended and not _has_flat_end(found.pixels))
            missing = 0.0 if is_whole else _mend(encoded.data, kind=kind, name=name, limits=limits)[1]
    return found if not missing else replace(found, notes=(*found.notes, _cut_note(name, missing)))


def _decode(
    container: Container, *, kind: str, name: str, limits: ImageLimits, min_side_px: int | None = None
) -> Decoded:
    """Decode an image; arguments and errors as in `decode`, and whatever Pillow raises."""
    from PIL import Image as PILImage

    # Image.open would warn of large sizes before they can be checked; all threads share the warning filters.
    if kind in _PLUGINS:
        import_module(_PLUGINS[kind])  # registers itself
    plugin, accepts = PILImage.OPEN.get(kind, (None, None))
    if plugin is None or (accepts is not None and accepts(container.data[:16]) is not True):
        raise InvalidImageError(
            f"{name} is {kind} of a variant that the installed Pillow cannot open.", remedy=ACCEPTED
        )
    limits.check_pixels(container.size or (0, 0), name=name)
    image: Any = plugin(BytesIO(container.data), "")
    limits.check_pixels(image.size, name=name)
    whole_size = image.size
    is_reduced = min_side_px is not None and image.draft(None, (min_side_px, min_side_px)) is not None
    image.load()
    width, height = whole_size if is_reduced else image.size
    orientation = container.orientation or exif_orientation(image.info.get("exif"))
    icc_profile = container.icc_profile or image.info.get("icc_profile")
    visible, notes = _visible(image, kind=kind, name=name)
    # The decoders of other formats live, with their buffers, as long as their image.
    pixels = _upright_rgb(visible, orientation=orientation, icc_profile=icc_profile, copy=kind != "JPEG")
    if orientation in _SIDEWAYS:
        width, height = height, width
    return Decoded(pixels=pixels, width=width, height=height, notes=notes)


def _mend(data: bytes, *, kind: str, name: str, limits: ImageLimits) -> tuple[Decoded, float]:
    """Return an image whose file has no end, as browsers show it, and how large a share of it is missing.

    Raises:
        InvalidImageError: More is missing than nobody would notice. Whatever Pillow raises: it is damaged otherwise.
    """
    ends = []
    for fill in _FILLS:
        whole = with_end(data, fill, kind=kind, max_pixels=limits.max_pixels)
        if whole is None:
            raise ValueError("a file without an end")
        container = strip(whole, kind=kind)
        if kind == "JPEG":  # only the share that is missing counts, which is seen best as it lies in the file
            container = replace(container, orientation=1)
        ends.append(_decode(container, kind=kind, name=name, limits=limits, min_side_px=1))
    missing = _missing_share(*(end.pixels for end in ends), is_in_rows=kind == "JPEG")
    if missing > _MOST_MISSING:
        raise InvalidImageError(
            f"{name} is damaged or cut short: {_percent(missing)} of it is missing.",
            remedy=f"Fetch or save it again. {ACCEPTED}",
        )
    return ends[0], missing


def pixels_of_pil(image: PILImage.Image, *, limits: ImageLimits) -> Decoded:
    """Return upright RGB pixels of a PIL image, which is loaded but not changed.

    Raises:
        InvalidImageError: It is closed, empty or damaged.
        ImageTooLargeError: It has more pixels than the limits allow.
    """
    name = "The PIL image"
    if 0 in image.size:
        raise InvalidImageError(f"{name} is empty: it has {image.width}×{image.height} pixels.")
    limits.check_pixels(image.size, name=name)
    with translated_errors(name):
        try:
            image.load()
        except OSError:
            data = _file_of(image)
            if data is None:
                raise
            from vision_backends.images.image import Encoded  # which imports this module

            return decode(Encoded(name=name, data=data), limits=limits)
        orientation = exif_orientation(image.info.get("exif"))
        visible, notes = _visible(image, kind=image.format, name=name)
        profile = image.info.get("icc_profile")
        pixels = _upright_rgb(visible, orientation=orientation, icc_profile=profile, copy=True)
    return Decoded(pixels=pixels, width=pixels.width, height=pixels.height, notes=notes)


def _file_of(image: PILImage.Image) -> bytes | None:
    """Return the file behind a PIL image whose pixels could not be loaded; None where it is not to be had."""
    file = getattr(image, "fp", None)
    if file is None or getattr(image, "n_frames", 1) > 1:
        return None
    at = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(at)
    return data


def pixels_of_array(array: npt.NDArray[Any], *, limits: ImageLimits) -> Decoded:
    """Return RGB pixels of a numpy array.

    Args:
        array: uint8 or float in [0, 1]; grey [H, W], RGB [H, W, 3] or RGBA [H, W, 4].
        limits: How many pixels it may have.

    Raises:
        InvalidImageError: It has another type, shape or range.
        ImageTooLargeError: It has more pixels than the limits allow.
    """
    from PIL import Image as PILImage

    shape, dtype = array.shape, array.dtype
    is_float = dtype.kind == "f"
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in {3, 4})) or array.size == 0:
        raise InvalidImageError(f"An array of shape {shape} is not an image.", remedy=_ARRAYS)
    if not is_float and dtype != "uint8":
        raise InvalidImageError(f"An array of type {dtype} is not an image.", remedy=_ARRAYS)
    limits.check_pixels((shape[1], shape[0]), name="The array")
    if is_float:
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):  # refuses NaN as well
            raise InvalidImageError(f"The array has values from {low:g} to {high:g}.", remedy=_ARRAYS)
        array = (array * 255.0).round().astype("uint8")
    visible, notes = _visible(PILImage.fromarray(array), kind=None, name="The array")
    return Decoded(pixels=_upright_rgb(visible), width=shape[1], height=shape[0], notes=notes)


def encode_for_wire(image: PILImage.Image) -> WireImage:
    """Encode pixels alone: no EXIF, GPS, comment, text or colour profile of the image is included.

    A photo becomes a JPEG. A drawing or screenshot becomes a PNG, or a JPEG in full colour resolution where that
    is smaller.

    Args:
        image: An image in mode RGB.
    """
    pixels = image.copy()
    pixels.info = {}
    fits_jpeg = max(pixels.size) <= _JPEG_MAX_SIDE_PX
    if fits_jpeg and not _is_flat(pixels):
        return _encode(pixels, "JPEG", quality=_JPEG_QUALITY, subsampling="4:2:0")
    candidates = [_encode(pixels, "PNG")]
    if fits_jpeg:
        candidates.append(_encode(pixels, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4"))
    return min(candidates, key=lambda candidate: len(candidate.data))


@contextmanager
def translated_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises about a damaged image into an error of the caller.

    Raises:
        InvalidImageError: The image is damaged.
        ImageTooLargeError: There is not enough memory for it.
    """
    try:
        yield
    except VisionError:
        raise
    except MemoryError as error:
        raise ImageTooLargeError(f"{name} does not fit into memory.", remedy="Pass a smaller image.") from error
    except Exception as error:  # Pillow's plugins raise almost anything
        raise InvalidImageError(
            f"{name} is damaged or cut short: its pixels cannot be decoded.",
            remedy=f"Fetch or save it again. {ACCEPTED}",
        ) from error


def _upright_rgb(
    image: PILImage.Image, *, orientation: int = 1, icc_profile: bytes | None = None, copy: bool = False
) -> PILImage.Image:
    """Return a loaded image as a viewer on a white page would show it: 8-bit RGB in sRGB, upright, without metadata.

    Transparency is laid over white: what is hidden stays hidden. A profile that is broken, or not one for this
    kind of image, is ignored.

    Args:
        image: A loaded image of any mode.
        orientation: How it was held, 1 to 8 as in EXIF.
        icc_profile: The profile of its colours; None takes them for sRGB.
        copy: Whether ``image`` must not become part of the result.

    Raises:
        InvalidImageError: It holds values that are infinite or not numbers.
    """
    from PIL import Image as PILImage

    pixels = _to_8_bit(image) if image.mode in _DEEP_MODES else image
    if pixels.has_transparency_data:
        pixels = _on_white(pixels)
    if icc_profile:
        pixels = _to_srgb(pixels, icc_profile)
    if pixels.mode != "RGB":
        pixels = pixels.convert("RGB")
    turns = {
        2: PILImage.Transpose.FLIP_LEFT_RIGHT,
        3: PILImage.Transpose.ROTATE_180,
        4: PILImage.Transpose.FLIP_TOP_BOTTOM,
        5: PILImage.Transpose.TRANSPOSE,
        6: PILImage.Transpose.ROTATE_270,
        7: PILImage.Transpose.TRANSVERSE,
        8: PILImage.Transpose.ROTATE_90,
    }
    if orientation in turns:
        pixels = pixels.transpose(turns[orientation])
    elif copy and pixels is image:
        pixels = image.copy()
    pixels.info = {}
    return pixels


def _visible(image: PILImage.Image, *, kind: str | None, name: str) -> tuple[PILImage.Image, tuple[str, ...]]:
    """Return an image without an alpha channel that is not used, and a note where nothing of it can be seen.

    A BMP whose alpha is zero throughout has none: that is how programs write 32-bit pixels, and how browsers read them.
    """
    if "A" not in image.getbands() or image.getchannel("A").getextrema()[1]:
        return image, ()
    if kind in _OPAQUE_KINDS:
        return image.convert("RGB"), ()
    note = f"{name} is wholly transparent: a white page. If its alpha is not used, pass its colours alone."
    return image, (note,)


def _has_flat_end(pixels: PILImage.Image) -> bool:
    """Return whether one edge of an image has one colour, as all that a JPEG lacks is grey, however it is turned."""
    width, height = pixels.size
    across, down = max(1, width // 8), max(1, height // 8)
    edges = (
        (0, 0, width, down),
        (0, height - down, width, height),
        (0, 0, across, height),
        (width - across, 0, width, height),
    )
    return any(pixels.crop(edge).getcolors(maxcolors=1) for edge in edges)


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


def _cut_note(name: str, missing: float) -> str:
    return f"{name} is cut short: {_percent(missing)} of it is missing."


def _to_8_bit(image: PILImage.Image) -> PILImage.Image:
    """Scale deep grey values to 8 bits; Pillow would clip them at 255.

    16-bit modes have the range that their name states. The 32-bit modes I and F have none: their values are taken to
    span the narrowest common range that holds them, or else are stretched from the lowest to the highest.
    """
    import numpy as np
    from PIL import Image as PILImage

    values = np.asarray(image)
    is_16_bit = image.mode.startswith("I;16")
    with np.errstate(all="ignore"):
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise InvalidImageError("The image has values that are infinite or not numbers.")
        ranges = _RANGES[2:] if is_16_bit else _RANGES[image.mode == "I" :]
        start, end = next((r for r in ranges if r[0] <= low and high <= r[1]), (low, high))
        scale = 255 / ((end - start) or 1)
        scaled = np.multiply(values, scale, dtype=np.float32 if is_16_bit else np.float64)
        return PILImage.fromarray(np.rint(scaled - start * scale).astype(np.uint8))


def _on_white(image: PILImage.Image) -> PILImage.Image:
    from PIL import Image as PILImage

    if image.mode == "La":
        image = image.convert("LA")
    white = PILImage.new("RGBA", image.size, "white")
    return PILImage.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _to_srgb(image: PILImage.Image, icc_profile: bytes) -> PILImage.Image:
    from PIL import ImageCms

    if image.mode not in _PROFILED_MODES:
        image = image.convert("L" if image.mode == "1" else "RGB")
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc_profile))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return image
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    except Exception:  # noqa: BLE001 — a broken profile may fail anywhere; slightly wrong colours are better than no image
        return image
    return image if converted is None else converted


def _is_flat(image: PILImage.Image) -> bool:
    from PIL import ImageChops

    width, height = image.size
    grey = image.convert("L")
    left, right = grey.crop((0, 0, max(width - 1, 1), height)), grey.crop((min(1, width - 1), 0, width, height))
    equal = ImageChops.difference(left, right).histogram()[0]
    return equal >= _FLAT_SHARE * width * height


def _encode(image: PILImage.Image, kind: str, **options: Any) -> WireImage:  # noqa: ANN401 — Pillow's own options
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return WireImage(data=buffer.getvalue(), mime_type=f"image/{kind.lower()}")
