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
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..records import Metric
from .bootstrap import interval_of, interval_of_mean
from .silence import silence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Texts = dict[str, list[str]]

__all__ = ["score_captions", "split_words"]

BLEU_N = 4

SMALL, TINY = 1e-9, 1e-15
"""What BLEU's reference implementation adds below and above, so that nothing is divided by 0."""

JAVA_TOKENIZER = "words cut by the Stanford PTB tokenizer"
OWN_TOKENIZER = "no Java: words cut by a regular expression, so that figures may differ in the third digit"

_WORD = re.compile(r"[^\W_]+(?:['’.,:/-][^\W_]+)*", re.UNICODE)

_CLITIC = re.compile(r"(n['’]t|['’](?:s|m|d|ll|re|ve))$")


def score_captions(
    said: Mapping[str, str], written: Mapping[str, Sequence[str]], *, resamples: int, seed: int
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

    implementation = f"pycocoevalcap {version('pycocoevalcap')}"
    words, references, tokenizer = _tokenize(said, written)
    with silence():
        cider, ciders = Cider().compute_score(references, words)
        bleus, _ = Bleu(BLEU_N).compute_score(references, words, verbose=0)
        rouge, rouges = Rouge().compute_score(references, words)
    sampling: dict[str, int] = {"resamples": resamples, "seed": seed}
    return [
        Metric(
            name="CIDEr-D",
            value=float(cider),
            interval=interval_of_mean(np.asarray(ciders), **sampling),
            implementation=implementation,
            note=f"{tokenizer}; word weights from the captions of these {len(words)} images",
        ),
        Metric(
            name="BLEU-4",
            value=float(bleus[BLEU_N - 1]),
            interval=_interval_of_bleu(words, references, **sampling),
            implementation=implementation,
            note=tokenizer,
        ),
        Metric(
            name="ROUGE-L",
            value=float(rouge),
            interval=interval_of_mean(np.asarray(rouges), **sampling),
            implementation=implementation,
            note=tokenizer,
        ),
        _meteor(words, references, implementation, java=tokenizer == JAVA_TOKENIZER),
        _spice(words, references, implementation, java=tokenizer == JAVA_TOKENIZER, **sampling),
    ]


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


def _interval_of_bleu(words: Texts, references: Texts, *, resamples: int, seed: int) -> Any:  # noqa: ANN401
    totals = bleu_totals(words, references)
    return interval_of(lambda counts: bleu_4(counts, totals), images=len(totals), resamples=resamples, seed=seed)


def _tokenize(said: Mapping[str, str], written: Mapping[str, Sequence[str]]) -> tuple[Texts, Texts, str]:
    """Return descriptions and captions as words with blanks between, and who cut them."""
    texts = {name: [said[name], *written[name]] for name in said}
    cut = _cut_by_java(texts)
    tokenizer = OWN_TOKENIZER if cut is None else JAVA_TOKENIZER
    if cut is None:
        cut = {name: [split_words(text) for text in each] for name, each in texts.items()}
    words = {name: each[:1] for name, each in cut.items()}
    references = {name: each[1:] for name, each in cut.items()}
    return words, references, tokenizer


def _cut_by_java(texts: Texts) -> Texts | None:
    """Cut by the Stanford tokenizer; None where there is no Java, or no right to write where it has to."""
    if shutil.which("java") is None:
        return None
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


def _meteor(words: Texts, references: Texts, implementation: str, *, java: bool) -> Metric:
    if not java:
        return Metric(name="METEOR", value=None, implementation=implementation, note="it needs Java")
    from pycocoevalcap.meteor.meteor import Meteor

    try:
        with silence():
            value, _ = Meteor().compute_score(references, words)
    except (OSError, ValueError) as error:
        return Metric(name="METEOR", value=None, implementation=implementation, note=f"it failed: {error}")
    note = f"{JAVA_TOKENIZER}; no interval, because its own program adds up over all images"
    return Metric(name="METEOR", value=float(value), implementation=implementation, note=note)


def _spice(words: Texts, references: Texts, implementation: str, *, java: bool, resamples: int, seed: int) -> Metric:
    import pycocoevalcap.spice

    models = sorted((Path(pycocoevalcap.spice.__path__[0]) / "lib").glob("stanford-corenlp-*.jar"))
    if not java or not models:
        note = "it needs Java" if not java else "it needs models that pycocoevalcap has to download: see its README"
        return Metric(name="SPICE", value=None, implementation=implementation, note=note)
    from pycocoevalcap.spice.spice import Spice

    try:
        with silence():
            value, scores = Spice().compute_score(references, words)
    except (OSError, ValueError) as error:
        return Metric(name="SPICE", value=None, implementation=implementation, note=f"it failed: {error}")
    each = np.array([score["All"]["f"] for score in scores], dtype=np.float64)
    interval = interval_of_mean(each, resamples=resamples, seed=seed)
    return Metric(name="SPICE", value=float(value), interval=interval, implementation=implementation)
