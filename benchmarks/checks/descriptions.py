"""What the last rung's descriptions say of photos in which it found nothing for sure, and whether that is right.

Beside the bundled photos it takes the pictures of Debian's `gcompris-qt-data` (some are CC BY-SA or GPL; they are
measured with only): `apt-get install gcompris-qt-data`, or unpack it and set GCOMPRIS to its folder of .rcc files. No
share or score was chosen on those of the two activities measured here, but on the cut-outs of
`tuxpaint-stamps-default`, on other activities, on wallpapers and on samples of OpenCV. Every claim was judged by eye.
"""

from __future__ import annotations

import io
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judged_claims import ARGUABLE, RIGHT
from PIL import Image as PILImage
from timing import PHOTOS, ROOT, Figure, show

from vision_backends import Router
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.embedded.label_knowledge import DRAWN, read_sorts
from vision_backends.backends.embedded.models import DEFAULT_MIN_SCORE
from vision_backends.backends.model_cards import asset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

GCOMPRIS = Path(os.environ.get("GCOMPRIS", "/usr/share/gcompris-qt/rcc"))
ACTIVITIES = ("categorization", "explore_monuments")
MIN_SIDE_PX = 150
MOST_WRONG = 3
IS_FOLDER = 2


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a description says that was not found for sure: a sort, or what was half seen.

    Attributes:
        picture: Its name, after that of its topic.
        word: What is said; "" for nothing.
        alone: Whether nothing else is said of it.
    """

    picture: str
    word: str
    alone: bool

    @property
    def verdict(self) -> str:
        """Whether it is "right", "arguable" or "wrong"."""
        topic = self.picture.rpartition("/")[0]
        if self.word in RIGHT.get(self.picture, frozenset()) | RIGHT.get(topic, frozenset()):
            return "right"
        return "arguable" if (self.picture, self.word) in ARGUABLE else "wrong"


def run() -> list[Figure]:
    """Measure the bundled photos, and the others where they are."""
    sets = {"bundled photos": _bundled()}
    if GCOMPRIS.is_dir():
        sets["photos of GCompris"] = _gcompris()
    with Router([EmbeddedBackend(threads=2)]) as router:
        return [figure for name, pictures in sets.items() for figure in _measured(name, router, pictures)]


def _measured(name: str, router: Router, pictures: Iterable[tuple[str, PILImage.Image]]) -> list[Figure]:
    sorts = {sort.label for sort in read_sorts(asset("imagenet-sorts.tsv").read_text(encoding="utf-8"))} | {DRAWN}
    claims = [_claim(name, router.describe(image).evidence or {}, sorts) for name, image in pictures]
    empty = [claim for claim in claims if claim.alone]
    said = [claim for claim in claims if claim.word]
    verdicts = [claim.verdict for claim in said]
    for claim, verdict in zip(said, verdicts, strict=True):
        if verdict != "right":
            print(f"{verdict}: {claim.picture}: {claim.word}", file=sys.stderr)
    filled = sum(bool(claim.word) for claim in empty)
    share = 100 * filled / len(empty)
    return [
        Figure(
            name=f"of {len(empty)} of {len(claims)} {name}, with nothing sure: described",
            value=share,
            unit="%",
            target=50,
            at_least=True,
        ),
        Figure(name=f"{name}: claims that are right", value=verdicts.count("right"), unit=""),
        Figure(name=f"{name}: claims that are arguable", value=verdicts.count("arguable"), unit=""),
        Figure(name=f"{name}: claims that are wrong", value=verdicts.count("wrong"), unit="", target=MOST_WRONG),
    ]


def _claim(picture: str, evidence: Mapping[str, Any], sorts: set[str]) -> Claim:
    """Return what is said of a picture that was not found for sure."""
    weak = [str(item["label"]) for item in evidence["objects"] if item["score"] < DEFAULT_MIN_SCORE]
    scene = (evidence["scene"] or {}).get("label", "")
    others = len(evidence["objects"]) > len(weak) or bool(evidence["text"]) or (scene and scene not in sorts)
    word = weak[0] if weak else scene if scene in sorts else ""
    return Claim(picture=picture, word=word, alone=not others)


def _bundled() -> Iterator[tuple[str, PILImage.Image]]:
    for folder in (ROOT / "benchmarks" / "sample" / "photos", PHOTOS):
        for path in sorted(folder.glob("*.jpg")):
            with PILImage.open(path) as image:
                yield path.stem, image.convert("RGB")


def _gcompris() -> Iterator[tuple[str, PILImage.Image]]:
    """Yield the pictures of the activities, each under the name of its topic; some are in both."""
    seen = set()
    for activity in ACTIVITIES:
        for path, content in sorted(_resources((GCOMPRIS / f"{activity}.rcc").read_bytes())):
            if not path.endswith((".webp", ".jpg", ".jpeg", ".png")) or content in seen:
                continue
            seen.add(content)
            with PILImage.open(io.BytesIO(content)) as image:
                cut_out = image.convert("RGBA")
            if min(cut_out.size) >= MIN_SIDE_PX:
                white = PILImage.new("RGBA", cut_out.size, "white")
                topic, stem = path.split("/")[-2], path.split("/")[-1].rpartition(".")[0]
                topic = "monuments" if activity == "explore_monuments" else topic
                yield f"{topic}/{stem}", PILImage.alpha_composite(white, cut_out).convert("RGB")


def _resources(rcc: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of each uncompressed file of a Qt resource file."""
    version, tree, data, names = struct.unpack(">4I", rcc[4:20])
    size = 14 if version == 1 else 22

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        name_at, flags, first, second = struct.unpack_from(">IHII", rcc, tree + node * size)
        (length,) = struct.unpack_from(">H", rcc, names + name_at)
        start = names + name_at + 6
        path = f"{folder}/{rcc[start : start + 2 * length].decode('utf-16-be')}" if node else ""
        if flags & IS_FOLDER:
            for child in range(second, second + first):
                yield from walk(child, path)
        elif not flags:
            (length,) = struct.unpack_from(">I", rcc, data + second)
            yield path, rcc[data + second + 4 : data + second + 4 + length]

    return walk(0, "")


if __name__ == "__main__":
    show(__doc__.splitlines()[0], run)
