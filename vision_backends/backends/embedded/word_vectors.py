"""English texts as vectors: the mean of the vectors of their word pieces (Model2Vec's recipe; ``models/convert``).

This module decides how much of a text is read, what is refused, and what is said about a text that is hardly English.
It must not know what vectors are compared with. numpy is imported when the first text comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vision_backends.backends.embedded.session import Lazy, check_intact, check_there
from vision_backends.backends.embedded.word_pieces import pieces_of, words_of
from vision_backends.clock import measured
from vision_backends.errors import TEXT_TOO_LONG, UNREADABLE_INPUT, NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["MOST_PIECES", "WordVectors"]

MOST_PIECES = 256
"""As many as the encoder reads whose vectors these are."""

MOST_CHARS = 64 * MOST_PIECES
"""Nothing after that can be among the first pieces of a text, but for blanks and what is no writing."""

KNOWN_SHARE = 0.5
"""Of its letters, a text should have so many in words of the vocabulary. Of 327 English names of rare animals and
tools 26 % have fewer, of their translations into German, French, Spanish, Dutch and Italian 79 to 93 %; of 145 English
sentences none."""

UNFAMILIAR = "Most of it is in no word that the model knows, which reads English: its vector may say little."


@dataclass(frozen=True, slots=True)
class _Table:
    """Word pieces and their vectors, as ``models/convert/words.py`` writes them.

    Attributes:
        numbers: The vocabulary; pieces with a vector come first.
        longest_chars: Length of its longest piece.
        directions: int8 [pieces with a vector, D].
        scales: What to multiply each by, float32 [the same number].
    """

    numbers: Mapping[str, int]
    longest_chars: int
    directions: npt.NDArray[np.int8]
    scales: Floats


class WordVectors:
    """Turns English texts into vectors; the first one loads the table, which any number of threads may then use.

    Args:
        path: The table.
        sha256: Its hex digest, checked before anything is loaded.
    """

    def __init__(self, path: Path, *, sha256: str) -> None:
        self._path = path
        self._sha256 = sha256
        self._table: Lazy[_Table] = Lazy()

    @property
    def loaded(self) -> bool:
        """Whether the table is in memory."""
        return self._table.made

    def check(self) -> None:
        """Return if the file exists.

        Raises:
            NotReadyError: It does not.
        """
        check_there(self._path)

    def embed(self, text: str, *, truncate: bool = False) -> tuple[Floats, tuple[str, ...]]:
        """Return the L2-normalised vector of a text, [D], and what there is to say about how it was read.

        Args:
            text: The text.
            truncate: Whether the rest of one may be left out that is longer than `MOST_PIECES`.

        Raises:
            NotReadyError: The file is missing or damaged.
            NotSupportedError: The text is too long, or has no word that the model knows.
        """
        import numpy as np

        table = self._table.get(self._load)
        with measured("model"):
            pieces, known_share, is_whole = _read(text, table)
            notes = () if known_share >= KNOWN_SHARE else (UNFAMILIAR,)
            if not is_whole:
                size = f"The text is {len(text):,} characters long; the model"
                if not truncate:
                    remedy = "Shorten it, or pass truncate=True to have the rest left out."
                    message = f"{size} reads at most {MOST_PIECES} word pieces."
                    raise NotSupportedError(message, remedy=remedy, code=TEXT_TOO_LONG)
                notes = (f"{size} has read {MOST_PIECES} word pieces of it.", *notes)
            if not pieces:
                message = "The text has no word that the model knows, which reads English."
                raise NotSupportedError(message, remedy="Write it in English, in Latin letters.", code=UNREADABLE_INPUT)
            vector = table.scales[pieces] @ table.directions[pieces]
        return vector / np.linalg.norm(vector), notes

    def close(self) -> None:
        """Free the memory; the next text loads again."""
        self._table.drop()

    def _load(self) -> _Table:
        import numpy as np

        check_intact(self._path, sha256=self._sha256)
        with np.load(self._path, allow_pickle=False) as arrays:
            pieces = arrays["pieces"].tobytes().decode().split("\n")
            directions, scales = arrays["directions"], arrays["scales"].astype(np.float32)
        numbers = {piece: number for number, piece in enumerate(pieces)}
        return _Table(numbers, max(map(len, pieces)), directions, scales)


def _read(text: str, table: _Table) -> tuple[list[int], float, bool]:
    """Return the pieces of a text that have vectors, the share of letters in known words, and whether it was all read.

    A word is known when it is one piece; words of punctuation have no letters.
    """
    pieces: list[int] = []
    count = letters = known = 0
    for word in words_of(text[:MOST_CHARS]):
        found = pieces_of(word, table.numbers, longest_chars=table.longest_chars) or []
        count += max(1, len(found))
        if count > MOST_PIECES:
            return pieces, known / max(1, letters), False
        if word.isalnum():
            letters += len(word)
            known += len(word) if len(found) == 1 and found[0] < len(table.scales) else 0
        pieces += [piece for piece in found if piece < len(table.scales)]
    return pieces, known / max(1, letters), len(text) <= MOST_CHARS
