"""`open_image`: whatever can be an image, read, decoded and checked once, before anything else works with it.

This module decides what may be read, from where and how much of it, and when pixels are decoded, kept and handed out.
It must not know what an image looks like inside, nor what it is for.
"""

from __future__ import annotations

import hashlib
import math
import sys
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from vision_backends.freed_memory import return_freed_memory
from vision_backends.images.child import decode_apart
from vision_backends.images.decoding import decode, measure, pixels_of_pil
from vision_backends.images.formats import identify
from vision_backends.images.limits import DEFAULT_LIMITS, Encoded, ImageLimits
from vision_backends.images.pixels import Decoded, pixels_of_array
from vision_backends.images.room import ROOM, wait_for
from vision_backends.images.sources import name_of, read_source
from vision_backends.images.wire import encode_for_wire

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import BinaryIO

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.images.decoding import Measured
    from vision_backends.images.room import Share
    from vision_backends.images.wire import WireImage, WireRule

__all__ = ["Image", "ImageSource", "KeptImage", "Opening", "begin_opening", "open_image"]

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PILImage.Image | npt.NDArray[Any] | KeptImage"
)
"""What `open_image` takes: a path or data URL, encoded bytes, a binary file, a PIL image, a numpy array, or one of
these as a `KeptImage`."""


_QUICK_BYTES = 32_000_000
"""Pixels of so much memory are copied in a few hundredths of a second."""

_KEPT_PIXELS = 1_000_000
"""More are decoded again: nobody waits for the room that kept ones take."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False, weakref_slot=True)
class Image:
    """One checked, upright RGB image, made by `open_image`. It cannot be changed; any thread may use it.

    Attributes:
        width: Width of the whole upright image in pixels, however few of them were decoded.
        height: Height of the whole upright image in pixels, however few of them were decoded.
        notes: What a viewer would want to know, in a sentence each: that a little of it is missing, or all transparent.

    Examples:
        >>> from vision_backends import open_image
        >>> image = open_image("cat.jpg")
        >>> image.rgb().size, image.digest == open_image("cat.jpg").digest
        ((451, 300), True)
    """

    width: int
    height: int
    notes: tuple[str, ...] = ()
    _pixels: PILImage.Image | None  # upright, mode RGB, held by nothing else; replaced when more are asked for
    _encoded: Encoded | None = None
    _limits: ImageLimits = DEFAULT_LIMITS
    _share: Share | None = None  # of the room for images, held as long as the image
    _as_stored: bool = False
    _passed: tuple[WireRule, WireImage] | None = None  # until it was asked for, as it takes memory
    _digest: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def digest(self) -> str:
        """SHA-256 of the content in hexadecimal: of the encoded bytes, or of the pixels where there are none."""
        digest = self._digest
        if digest is None:
            if self._encoded is not None:
                content = hashlib.sha256(self._encoded.data)
            else:
                content = hashlib.sha256(f"RGB {self.width}x{self.height}\n".encode())
                content.update((self._pixels or self.rgb()).tobytes())
            digest = content.hexdigest()
            object.__setattr__(self, "_digest", digest)
        return digest

    @property
    def memory_bytes(self) -> int:
        """About how much memory it takes: pixels of four bytes, and the bytes of its file."""
        encoded = 0 if self._encoded is None else len(self._encoded.data)
        passed = 0 if self._passed is None else len(self._passed[1].data)
        return self.decoded_pixels * 4 + encoded + passed

    @property
    def decoded_pixels(self) -> int:
        """How many pixels are decoded, and kept."""
        return 0 if self._pixels is None else self._pixels.width * self._pixels.height

    def bytes_at_hand(self, rule: WireRule) -> int | None:
        """Return how many bytes `wire` has to do nothing for but hand them out, once; None where it would have to."""
        passed = self._passed
        return len(passed[1].data) if passed is not None and passed[0] is rule else None

    def as_decoded(self) -> Decoded:
        """Return what decoding it has given."""
        return Decoded(
            pixels=self._pixels or self.rgb(),
            width=self.width,
            height=self.height,
            notes=self.notes,
            as_stored=self._as_stored,
        )

    def leave_room(self) -> None:
        """Give back the room for images that it takes, before it is gone itself."""
        if self._share is not None:
            self._share.leave()

    def rgb(
        self,
        *,
        min_side_px: int | None = None,
        reshaped: Callable[[PILImage.Image], PILImage.Image] | None = None,
    ) -> PILImage.Image:
        """Return a copy of the pixels, upright and in mode RGB.

        Args:
            min_side_px: Least length of the shorter side, unless the whole image is smaller; the copy may be larger.
                None asks for all pixels.
            reshaped: Makes another picture of the pixels, which it must not change; that is returned instead, so that a
                large image is not copied as a whole for a small part of it.
        """
        with self._lock:
            pixels, encoded = self._pixels, self._encoded
            if encoded is not None and (pixels is None or not self._is_enough(pixels, min_side_px)):
                measured = measure(encoded, limits=self._limits, min_side_px=min_side_px)
                taken = ROOM.ask(measured.room_bytes, at_once=True)
                pixels = _decode(measured).pixels
                taken.leave()
                object.__setattr__(self, "_pixels", pixels)
                if self._share is not None:
                    self._share.resize(self.memory_bytes)
        if pixels is None:
            raise AssertionError("An image without pixels has a file to decode.")
        made = pixels if reshaped is None else reshaped(pixels)
        return made.copy() if made is pixels else made

    def _is_enough(self, pixels: PILImage.Image, min_side_px: int | None) -> bool:
        is_whole = pixels.size == (self.width, self.height)
        return is_whole or (min_side_px is not None and min(pixels.size) >= min_side_px)

    def wire(self, rule: WireRule) -> WireImage:
        """Return the image as it is sent: the file's own compressed pixels where they will do, else encoded anew."""
        size = self.width, self.height
        if self._passed is not None:
            known, plain = self._passed
            object.__setattr__(self, "_passed", None)
            if self._share is not None:
                self._share.resize(self.memory_bytes)
            if known is rule:
                return plain
        if self._as_stored and self._encoded is not None:
            data = self._encoded.data
            passed = rule.passed(data, kind=identify(data, name=self._encoded.name), size=size)
            if passed is not None:
                return passed
        width, height = rule.fit(*size)
        pixels = self.rgb(min_side_px=min(width, height))
        if pixels.width > width:
            from PIL.Image import Resampling

            pixels = pixels.resize((width, height), Resampling.LANCZOS)
        return encode_for_wire(pixels)

    def __repr__(self) -> str:
        return f"<Image {self.width}×{self.height} px{f', {self._encoded.name}' if self._encoded else ''}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """An image that is read and measured, and not yet decoded.

    Attributes:
        room_bytes: Memory that decoding takes.
        is_quick: Whether that is done in a few hundredths of a second.
        measured: The file; None for pixels, which a process of its own cannot be handed.
    """

    room_bytes: int
    is_quick: bool
    measured: Measured | None = None
    _decode: Callable[[], Decoded]
    _keeper: KeptImage | None = None

    def decode_here(self) -> Decoded:
        """Decode it in this thread. Errors as in `open_image`."""
        return self._decode()

    def image(self, decoded: Decoded, *, share: Share | None = None) -> Image:
        """Return the image.

        Args:
            decoded: What came of decoding it.
            share: The room that it takes as long as it lives.
        """
        measured, keeper = self.measured, self._keeper
        if keeper is not None and keeper.image is not None:
            if share is not None:
                share.leave()
            return keeper.image
        passed = measured.passed if measured and decoded.as_stored else None
        is_reduced = decoded.pixels.size != (decoded.width, decoded.height)
        was_checked = passed is not None and is_reduced and keeper is None  # few of its pixels, which nobody will want
        image = Image(
            width=decoded.width,
            height=decoded.height,
            notes=decoded.notes,
            _pixels=None if was_checked else decoded.pixels,
            _encoded=measured.encoded if measured else None,
            _limits=measured.limits if measured else DEFAULT_LIMITS,
            _share=share,
            _as_stored=decoded.as_stored,
            _passed=passed,
        )
        if share is not None:
            share.resize(image.memory_bytes)
        if keeper is not None:
            keeper.keep(image)
        return image


class KeptImage:
    """An image about which several things are asked: the first call opens it, and the next ones find it open.

    Pass it in place of the image, to one call after the other; any thread may. What was read, decoded and hashed for
    one call is not read, decoded and hashed again for the next, unless that needs more pixels than are there. It is
    kept until the object is gone; of a large image only its file is.

    Args:
        source: As for `open_image`; a file is read once.

    Attributes:
        name: Its path or name as the caller gave it; None where it has none.

    Examples:
        >>> from vision_backends import KeptImage
        >>> cat = KeptImage("cat.jpg")
        >>> router.detect(cat).labels.tolist(), router.embed(cat).dimension
        (['cat'], 1280)
    """

    def __init__(self, source: ImageSource) -> None:
        self.name = name_of(source)
        self._source: ImageSource | None = source
        self._encoded: Encoded | None = None
        self._image: Image | None = None
        self._lock = threading.Lock()

    @property
    def unread(self) -> ImageSource | None:
        """What has to be read to open it; None once that was done."""
        return self._source if self._image is None else None

    @property
    def image(self) -> Image | None:
        """The opened image; None as long as it is not, and for a large one."""
        return self._image

    def keep(self, image: Image) -> None:
        """Take the image that was opened, for the next call."""
        if image.decoded_pixels <= _KEPT_PIXELS:
            self._image = image

    def begin_opening(self, *, min_side_px: int | None, wire: WireRule | None, limits: ImageLimits) -> Opening:
        """Return the open image as one that is quickly opened, or begin to open it. Errors as in `begin_opening`."""
        with self._lock:
            image, encoded, source = self._image, self._encoded, self._source
            if isinstance(source, KeptImage):
                return source.begin_opening(min_side_px=min_side_px, wire=wire, limits=limits)
            if encoded is not None:
                limits.check_bytes(len(encoded.data), name=encoded.name)
            if image is not None:
                limits.check_pixels((image.width, image.height), name=encoded.name if encoded else "The image")
                return Opening(room_bytes=0, is_quick=True, _decode=image.as_decoded, _keeper=self)
            if source is None and encoded is not None:
                opening = _opening_of(measure(encoded, limits=limits, min_side_px=min_side_px, wire=wire))
            else:
                opening = begin_opening(cast("ImageSource", source), min_side_px=min_side_px, wire=wire, limits=limits)
                if opening.measured is not None:
                    self._encoded, self._source = opening.measured.encoded, None
            return replace(opening, _keeper=self)


def open_image(source: ImageSource, *, min_side_px: int | None = None, limits: ImageLimits = DEFAULT_LIMITS) -> Image:
    """Decode and check an image completely, so that no later step meets a broken one.

    Orientation from EXIF is applied, transparency laid over white, colour profiles converted to sRGB, of an
    animation the first picture taken. A format is recognised by its bytes, never by its name or media type.

    Args:
        source: A path or ``data:`` URL, encoded bytes, a binary file (read to its end, not closed), a PIL image,
            or a numpy array (uint8 or float in [0, 1]; [H, W], [H, W, 3] RGB or [H, W, 4] RGBA).
        min_side_px: Least length of the shorter side of the pixels that are kept; of a large image they are then fewer,
            and a JPEG is decoded so, several times faster. None keeps all of them.
        limits: How many bytes and pixels it may have.

    Raises:
        InvalidImageError: It cannot be read, or is not an image that can be used.
        ImageTooLargeError: It has more bytes or pixels than the limits allow.

    Examples:
        >>> from vision_backends import open_image
        >>> image = open_image("cat.jpg")
        >>> image.width, image.height
        (451, 300)
    """
    opening = begin_opening(source, min_side_px=min_side_px, limits=limits)
    taken = wait_for(opening.room_bytes)
    try:
        return opening.image(opening.decode_here())
    finally:
        taken.leave()


def begin_opening(
    source: ImageSource,
    *,
    min_side_px: int | None = None,
    wire: WireRule | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Opening:
    """Read and measure an image, without decoding it. Arguments and errors as in `open_image`, and as in `measure`."""
    if not isinstance(source, str | bytes):
        if isinstance(source, KeptImage):
            return source.begin_opening(min_side_px=min_side_px, wire=wire, limits=limits)
        for module, name, convert in (("PIL.Image", "Image", pixels_of_pil), ("numpy", "ndarray", pixels_of_array)):
            # Not imported here: an instance exists only where its module does. While another thread is importing that
            # module, the class may still be missing from it.
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(source, kind):
                room_bytes = _room_of_pixels(source)
                return Opening(
                    room_bytes=room_bytes,
                    is_quick=room_bytes <= _QUICK_BYTES and getattr(source, "fp", None) is None,
                    _decode=partial(convert, source, limits=limits),
                )
    return _opening_of(measure(read_source(source, limits=limits), limits=limits, min_side_px=min_side_px, wire=wire))


def _opening_of(measured: Measured) -> Opening:
    return Opening(
        room_bytes=measured.room_bytes,
        is_quick=measured.is_quick,
        _decode=partial(_decode, measured),
        measured=measured,
    )


def _room_of_pixels(source: Any) -> int:  # noqa: ANN401 — an array or a PIL image
    """Return about how much memory is taken while pixels are copied."""
    sides = source.size if isinstance(source.size, tuple) else source.shape[:2]
    return math.prod(sides) * 8


def _decode(measured: Measured) -> Decoded:
    """Decode an image: here, unless nobody knows what that may take."""
    if measured.needs_limits:
        return decode_apart(measured)
    decoded = decode(measured)
    if measured.room_bytes > _QUICK_BYTES:
        return_freed_memory()  # or each thread that decodes would keep as much as its largest image has taken
    return decoded
