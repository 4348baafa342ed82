"""What words find on the embedded rung: captions their photo, words what is there, and nothing what is not.

The cut-outs of things are those of Debian's `tuxpaint-stamps-default` (GPL-2; they are only measured with), whose names
have translations: `apt-get install tuxpaint-stamps-default`, or unpack it and set TUXPAINT_STAMPS to its folder. All
that was chosen about the space was chosen on them; the photos were only measured.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from free_words import ARGUABLE, PRESENT, WORDS
from PIL import Image as PILImage
from timing import PHOTOS, ROOT, Figure, show

from vision_backends import Router, VisionError
from vision_backends.backends.embedded import EmbeddedBackend

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SAMPLE = ROOT / "benchmarks" / "sample"
STAMPS = Path(os.environ.get("TUXPAINT_STAMPS", "/usr/share/tuxpaint/stamps"))
DRAWN = frozenset({"symbols", "seasonal", "cartoon", "roadsigns", "flags"})
LANGUAGES = {"German": "de", "French": "fr", "Spanish": "es", "Chinese": "zh_CN"}
TEXTS = 2000
LOWEST_SCORE = 0.2
"""A word that fits less counts as not found: that can only lower the share of those found first."""
MOST_LABEL_WORDS = 3


class Stamp(NamedTuple):
    """A cut-out, the group that it belongs to, and its name by language; ``"en"`` is English."""

    path: Path
    group: str
    names: dict[str, str]


def run(*, texts: int = TEXTS) -> list[Figure]:
    """Measure everything; the stamps only where they are.

    Args:
        texts: How many are embedded for the time that one takes.
    """
    with Router([EmbeddedBackend(threads=2)]) as router:
        figures = [*_sample(router), *_free_words(router), _time(router, count=texts)]
        stamps = list(_stamps()) if STAMPS.is_dir() else []
        if stamps:
            figures += _things(router, stamps)
    return figures


def _sample(router: Router) -> list[Figure]:
    rows = [json.loads(line) for line in (SAMPLE / "sample.jsonl").read_text(encoding="utf-8").splitlines()]
    captions = [caption for row in rows for caption in row["captions"]]
    owners = [{place} for place, row in enumerate(rows) for _ in row["captions"]]
    images = _vectors(router, [SAMPLE / row["image"] for row in rows])
    return _recalls(f"of {len(rows)} photos, that of a caption", router, captions, owners, images, target=55.0)


def _things(router: Router, stamps: Sequence[Stamp]) -> list[Figure]:
    images = _vectors(router, [_on_white(stamp.path) for stamp in stamps])
    figures = []
    for language, code in ({"English": "en"} | LANGUAGES).items():
        names = sorted({stamp.names[code] for stamp in stamps if code in stamp.names})
        owners = [{place for place, stamp in enumerate(stamps) if stamp.names.get(code) == name} for name in names]
        what = f"of {len(stamps)} cut-outs, that of its {language} name"
        figures += _recalls(what, router, names, owners, images, target=28.0 if code == "en" else None)
    return [*figures, *_alarms_of_things(router, stamps)]


def _alarms_of_things(router: Router, stamps: Sequence[Stamp]) -> list[Figure]:
    """Return how often a cut-out is taken for what it is, and for something else of its group and of others."""
    named = [(stamp, _noun(stamp.names["en"])) for stamp in stamps]
    named = [(stamp, noun) for stamp, noun in named if len(noun.split()) <= MOST_LABEL_WORDS]
    groups: dict[str, set[str]] = {}
    for stamp, noun in named:
        groups.setdefault(noun, set()).add(stamp.group)
    nouns = sorted(groups)
    right, same, other = [], [], []
    for place, (stamp, noun) in enumerate(named):
        wrong = [nouns[(37 * place + 53 * step) % len(nouns)] for step in range(12)]
        wrong = [each for each in dict.fromkeys(wrong) if not set(each.split()) & set(noun.split())]
        said = _said(router, _on_white(stamp.path), [noun, *wrong])
        right.append(noun in said)
        for each in wrong:
            (same if stamp.group in groups[each] else other).append(each in said)
    return [
        _share("cut-outs, said to be what they are", right),
        _share("cut-outs, said to be what they are not", [*same, *other], target=5.0),
        _share("cut-outs, said to be something else of their group", same),
        _share("cut-outs, said to be something of another group", other),
    ]


def _free_words(router: Router) -> list[Figure]:
    """Return how often words that fit a photo are among the first three of all, and what is said at the threshold."""
    photos = {path.stem: path for folder in (SAMPLE / "photos", PHOTOS) for path in sorted(folder.glob("*.jpg"))}
    first, hits, alarms = [], [], []
    for name, fitting in PRESENT.items():
        absent = set(WORDS) - fitting - ARGUABLE.get(name, frozenset())
        scores = _scores(router, photos[name])
        first += [sum(scores[word] >= scores[each] for word in absent) < 3 for each in fitting]
        said = _said(router, photos[name], WORDS)
        hits += [word in said for word in fitting]
        alarms += [word in said for word in absent]
    return [
        _share(f"of {len(WORDS)} words, those that fit a photo in the first three", first, target=75.0, at_least=True),
        _share("words that fit a photo, said of it", hits),
        _share("words that do not, said of it all the same", alarms, target=5.0),
    ]


def _scores(router: Router, photo: Path) -> dict[str, float]:
    found = router.detect(photo, labels=WORDS, min_score=LOWEST_SCORE)
    scores: dict[str, float] = {}
    for each in (*found, *found.image_labels):
        scores[each.label] = max(each.score, scores.get(each.label, 0.0))
    return dict.fromkeys(WORDS, 0.0) | scores


def _said(router: Router, photo: Path | PILImage.Image, labels: Sequence[str]) -> set[str]:
    found = router.detect(photo, labels=labels)
    return {each.label for each in (*found, *found.image_labels)}


def _time(router: Router, *, count: int) -> Figure:
    texts = [f"a photo of {number} red bicycles in front of an old wall" for number in range(count)]
    router.embed_text(texts[0])
    started = time.process_time()
    for text in texts:
        router.embed_text(text)
    taken_ms = (time.process_time() - started) / count * 1000
    return Figure(name="embed_text, CPU time of a call", value=taken_ms, unit="ms", target=1.0)


def _recalls(
    what: str,
    router: Router,
    texts: Sequence[str],
    owners: Sequence[set[int]],
    images: np.ndarray,
    *,
    target: float | None,
) -> list[Figure]:
    """Return how many texts find theirs first, and among the first five; one that is refused finds nothing."""
    space = router.explain("embed_text").verdicts[0].space
    ranks = []
    for answer, own in zip(router.embed_text_many(texts, space=space), owners, strict=True):
        if isinstance(answer, VisionError):
            ranks.append(len(images))
            continue
        likeness = images @ answer.vector
        ranks.append(int((likeness > max(likeness[place] for place in own)).sum()))
    return [
        _share(f"{what} first", [rank < 1 for rank in ranks], target=target, at_least=True),
        _share(f"{what} in the first five", [rank < 5 for rank in ranks]),
    ]


def _vectors(router: Router, images: Sequence[Path | PILImage.Image]) -> np.ndarray:
    space = router.explain("embed_text").verdicts[0].space
    return np.stack([answer.vector for answer in router.embed_many(images, space=space) if _is_vector(answer)])


def _is_vector(answer: object) -> bool:
    if isinstance(answer, VisionError):
        raise answer
    return True


def _share(name: str, found: Sequence[bool], *, target: float | None = None, at_least: bool = False) -> Figure:
    percent = 100 * sum(found) / max(1, len(found))
    return Figure(name=f"{name} ({len(found)})", value=percent, unit="%", target=target, at_least=at_least)


def _stamps() -> Iterator[Stamp]:
    """Yield the cut-outs that show a thing and have a name."""
    for path in sorted(STAMPS.rglob("*.png")):
        folders = path.relative_to(STAMPS).parts[:-1]
        text = path.with_suffix(".txt")
        if DRAWN.isdisjoint(folders) and text.exists():
            english, *lines = text.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
            if english.strip() and "=" not in english:
                others = dict(line.split(".utf8=", 1) for line in lines if ".utf8=" in line)
                names = {language: name.strip() for language, name in {**others, "en": english}.items()}
                yield Stamp(path, folders[0], names)


def _noun(name: str) -> str:
    return re.sub(r"^(an?|the|some) ", "", re.sub(r"\(.*?\)", "", name).strip().rstrip(".!").lower()).strip()


def _on_white(path: Path) -> PILImage.Image:
    with PILImage.open(path) as opened:
        cut_out = opened.convert("RGBA")
    return PILImage.alpha_composite(PILImage.new("RGBA", cut_out.size, "white"), cut_out).convert("RGB")


if __name__ == "__main__":
    show(__doc__.splitlines()[0], run, options={"texts": TEXTS})
