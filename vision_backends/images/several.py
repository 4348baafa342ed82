"""The images of one question: opened together, known again together.

This module decides that several images have room together, so that no two questions wait for each other with half of
their images in hand. It must not know what is asked about them.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vision_backends.errors import CallerError
from vision_backends.images.image import Image, Opening, begin_opening
from vision_backends.images.room import ROOM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vision_backends.images.decoding import Measured
    from vision_backends.images.image import ImageSource
    from vision_backends.images.limits import ImageLimits
    from vision_backends.images.pixels import Decoded
    from vision_backends.images.room import Share
    from vision_backends.images.wire import WireRule

__all__ = ["Images", "SeveralOpenings"]


class Images(tuple[Image, ...]):
    """Several images in their order."""

    __slots__ = ()

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal of what identifies each of them, in their order."""
        return hashlib.sha256("\n".join(image.digest for image in self).encode()).hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with each although it could be opened."""
        if len(self) == 1:
            return self[0].notes
        return tuple(f"Image {place}: {note}" for place, image in enumerate(self, start=1) for note in image.notes)

    @property
    def memory_bytes(self) -> int:
        """About how much memory they take together."""
        return sum(image.memory_bytes for image in self)

    def leave_room(self) -> None:
        """Give back the room that they take."""
        for image in self:
            image.leave_room()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralOpenings:
    """Images that are read and measured, and not yet decoded; used in place of an `Opening`.

    Attributes:
        openings: That of each.
    """

    openings: tuple[Opening, ...]

    @classmethod
    def begin(
        cls, sources: tuple[ImageSource, ...], *, min_side_px: int | None, wire: WireRule | None, limits: ImageLimits
    ) -> SeveralOpenings:
        """Read and measure images. Errors as in `begin_opening`, and they say which image is meant."""
        begun = []
        for place, source in enumerate(sources, start=1):
            with _naming(place, of=len(sources)):
                begun.append(begin_opening(source, min_side_px=min_side_px, wire=wire, limits=limits))
        return cls(openings=tuple(begun))

    @property
    def room_bytes(self) -> int:
        """Memory that decoding them takes."""
        return sum(opening.room_bytes for opening in self.openings)

    @property
    def measured(self) -> Measured | None:
        """A file among them, if possible one that nobody knows the cost of; None where all are pixels."""
        files = [opening.measured for opening in self.openings if opening.measured is not None]
        return max(files, key=lambda file: file.needs_limits, default=None)

    @property
    def is_quick(self) -> bool:
        """Whether that is done in a few hundredths of a second."""
        return len(self.openings) == 1 and self.openings[0].is_quick

    def decode(self, how: Callable[[Opening], Decoded]) -> list[Decoded]:
        """Decode them one after the other, each in the given way. Errors say which image is meant."""
        decoded = []
        for place, opening in enumerate(self.openings, start=1):
            with _naming(place, of=len(self.openings)):
                decoded.append(how(opening))
        return decoded

    def images(self, decoded: Sequence[Decoded], *, share: Share | None) -> Images:
        """Return the images, between which the room of all is divided."""
        made = []
        for opening, each in zip(self.openings, decoded, strict=True):
            own = None if share is None else ROOM.ask(opening.room_bytes, at_once=True)
            made.append(opening.image(each, share=own))
        if share is not None:
            share.leave()
        return Images(made)


@contextmanager
def _naming(place: int, *, of: int) -> Iterator[None]:
    """Have an error say which of several images it is about."""
    try:
        yield
    except CallerError as error:
        if of > 1:
            error.message = f"Image {place}: {error.message}"
            error.args = (error.message, *error.args[1:])
        raise
