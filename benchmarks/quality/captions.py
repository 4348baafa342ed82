"""How close descriptions come to the captions that people wrote: CIDEr-D, BLEU-4, ROUGE-L, METEOR and SPICE.

All values are computed by ``pycocoevalcap``, the implementation whose figures papers report. With Java texts are cut
into words by its Stanford tokenizer, and METEOR is there; without, by `split_words`, which does the same to plain
English. SPICE also needs models that pycocoevalcap downloads when it is asked to: this module never does.

Intervals are over images. CIDEr-D and ROUGE-L are means over images; BLEU-4 is made anew of the counted n-grams.
CIDEr-D weighs words by how rare they are among these very captions: figures of other data sets cannot be compared.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from ..records import Interval, Metric
from .bootstrap import interval_of, interval_of_mean
from .silence import silence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Texts = dict[str, list[str]]

__all__ = ["CaptionJudge", "bleu_4", "bleu_totals", "split_words"]

BLEU_N = 4

SMALL, TINY = 1e-9, 1e-15
"""What BLEU's reference implementation adds below and above, so that nothing is divided by 0."""

JAVA_TOKENIZER = "words cut by the Stanford PTB tokenizer"
OWN_TOKENIZER = "no Java: words cut by a regular expression, so that figures may differ in the third digit"

_WORD = re.compile(r"(?:[^\W\d_]\.){2,}|[^\W_]+(?:['’.,:/-][^\W_]+)*", re.UNICODE)

_CLITIC = re.compile(r"(n['’]t|['’](?:s|m|d|ll|re|ve))$")


class CaptionJudge:
    """Scores descriptions; keeps METEOR's program, which takes seconds to start, until it is closed."""

    def __init__(self) -> None:
        self._meteor: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def score(
        self, said: Mapping[str, str], written: Mapping[str, Sequence[str]], *, resamples: int, seed: int
    ) -> list[Metric]:
        """Compare descriptions with captions.

        Args:
            said: A description for each image.
            written: Captions for each image, at least one.
            resamples: Bootstrap samples.
            seed: Of the samples.
        """
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge

        words, references, tokenizer = _tokenize(said, written)
        with silence():
            cider, ciders = Cider().compute_score(references, words)
            bleus, _ = Bleu(BLEU_N).compute_score(references, words, verbose=0)
            rouge, rouges = Rouge().compute_score(references, words)
        sampling: dict[str, int] = {"resamples": resamples, "seed": seed}
        weights = f"word weights from the captions of these {len(words)} images"
        return [
            _metric("CIDEr-D", cider, f"{tokenizer}; {weights}", interval_of_mean(np.asarray(ciders), **sampling)),
            _metric("BLEU-4", bleus[BLEU_N - 1], tokenizer, _interval_of_bleu(words, references, **sampling)),
            _metric("ROUGE-L", rouge, tokenizer, interval_of_mean(np.asarray(rouges), **sampling)),
            self._score_meteor(words, references),
            _score_spice(words, references, **sampling),
        ]

    def close(self) -> None:
        """End METEOR's program; harmless twice."""
        if self._meteor is not None:
            program = self._meteor.meteor_p
            self._meteor = None  # which closes its input and kills it
            program.stdout.close()
            program.stderr.close()

    def _score_meteor(self, words: Texts, references: Texts) -> Metric:
        if not _has_java():
            return _metric("METEOR", None, "it needs Java")
        from pycocoevalcap.meteor.meteor import Meteor

        try:
            if self._meteor is None:
                self._meteor = Meteor()
            value, _ = self._meteor.compute_score(references, words)
        except (OSError, ValueError) as error:
            return _metric("METEOR", None, f"its program failed: {error}")
        return _metric("METEOR", value, f"{JAVA_TOKENIZER}; no interval: its program adds up over all images")


def split_words(text: str) -> str:
    """Cut a text into lower-case words without punctuation, as the Stanford tokenizer cuts plain English.

    Contractions are cut before ``n't``, ``'s``, ``'m``, ``'d``, ``'ll``, ``'re`` and ``'ve``; hyphens, dots and
    commas within a word stay.
    """
    words = []
    for match in _WORD.finditer(text.lower()):
        word = match[0].replace("’", "'")
        clitic = _CLITIC.search(word)
        words += [word] if clitic is None or not clitic.start() else [word[: clitic.start()], clitic[0]]
    return " ".join(words)


def bleu_4(counts: npt.NDArray[Any], totals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return BLEU-4 of samples of images, by the formula of the reference implementation.

    Args:
        counts: How often each image is in each sample, [n, images].
        totals: Per image n-grams that are right (4) and that were said (4), words said, words of the closest
            caption: [images, 10].

    Returns:
        Figures of shape [n].
    """
    sums = counts @ totals
    right, guessed = sums[:, :BLEU_N], sums[:, BLEU_N : 2 * BLEU_N]
    score: npt.NDArray[np.float64] = np.prod((right + TINY) / (guessed + SMALL), axis=1) ** (1 / BLEU_N)
    ratio = (sums[:, -2] + TINY) / (sums[:, -1] + SMALL)
    return score * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)


def bleu_totals(words: Texts, references: Texts) -> npt.NDArray[np.float64]:
    """Return what `bleu_4` is made of, one row per image, as the reference implementation counts it."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=BLEU_N)
    for name, (text,) in words.items():
        scorer += (text, references[name])
    rows = []
    for each in scorer.ctest:
        closest = min((abs(length - each["testlen"]), length) for length in each["reflen"])[1]
        rows.append([*each["correct"], *each["guess"], each["testlen"], closest])
    return np.array(rows, dtype=np.float64)


def _interval_of_bleu(words: Texts, references: Texts, *, resamples: int, seed: int) -> Interval | None:
    totals = bleu_totals(words, references)
    return interval_of(lambda counts: bleu_4(counts, totals), images=len(totals), resamples=resamples, seed=seed)


def _tokenize(said: Mapping[str, str], written: Mapping[str, Sequence[str]]) -> tuple[Texts, Texts, str]:
    """Return descriptions and captions as words with blanks between, and who cut them."""
    texts = {name: [said[name], *written[name]] for name in said}
    cut = _cut_by_java(texts) if _has_java() else None
    tokenizer = OWN_TOKENIZER if cut is None else JAVA_TOKENIZER
    if cut is None:
        cut = {name: [split_words(text) for text in each] for name, each in texts.items()}
    words = {name: each[:1] for name, each in cut.items()}
    references = {name: each[1:] for name, each in cut.items()}
    return words, references, tokenizer


def _cut_by_java(texts: Texts) -> Texts | None:
    """Cut by the Stanford tokenizer; None where it cannot write its file, which is in the folder of its package."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # A caption is one line to it, and every kind of line break would begin another.
    lines = {name: [{"caption": " ".join(text.split())} for text in each] for name, each in texts.items()}
    try:
        with silence():
            cut = cast("Texts", PTBTokenizer().tokenize(lines))
    except OSError:
        return None
    whole = all(len(cut.get(name, ())) == len(each) for name, each in texts.items())
    return cut if whole else None


def _score_spice(words: Texts, references: Texts, *, resamples: int, seed: int) -> Metric:
    import pycocoevalcap.spice

    if not _has_java():
        return _metric("SPICE", None, "it needs Java")
    if not list((Path(pycocoevalcap.spice.__path__[0]) / "lib").glob("stanford-corenlp-*.jar")):
        return _metric("SPICE", None, "it needs models that pycocoevalcap has to download: see its README")
    from pycocoevalcap.spice.spice import Spice

    try:
        with silence():
            value, scores = Spice().compute_score(references, words)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        return _metric("SPICE", None, f"its program failed: {error}")
    each = np.array([score["All"]["f"] for score in scores], dtype=np.float64)
    return _metric("SPICE", value, JAVA_TOKENIZER, interval_of_mean(each, resamples=resamples, seed=seed))


def _has_java() -> bool:
    return shutil.which("java") is not None


def _metric(name: str, value: float | None, note: str, interval: Interval | None = None) -> Metric:
    return Metric(
        name=name,
        value=None if value is None else float(value),
        interval=interval,
        implementation=f"pycocoevalcap {version('pycocoevalcap')}",
        note=note,
    )
