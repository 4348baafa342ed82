"""Which files count as the same picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from vision_backends import EmbeddedBackend, InvalidRequestError, Router
from vision_backends.search import ImageIndex

SAMPLE = Path(__file__).parents[2] / "benchmarks" / "sample" / "photos"


def test_files_of_the_same_content_are_a_group_and_none_is_touched(index, photos, make_photo):
    """The group whose copies take most comes first."""
    for name, seed in (("a.png", 1), ("sub/b.png", 1), ("c.png", 2)):
        make_photo(name, seed)
    index.update(photos)
    (group,) = index.duplicates(min_similarity=None)
    assert group.is_exact
    assert {file.path.name for file in group.files} == {"a.png", "b.png"}
    assert group.spare_bytes == group.files[1].size_bytes
    assert len(list(photos.rglob("*.png"))) == 3


def test_only_files_of_the_folder_that_are_there_count(index, photos, make_photo):
    """A copy elsewhere makes no duplicate in it."""
    make_photo("in/a.png", 1)
    make_photo("out/a.png", 1)
    gone = make_photo("in/b.png", 1)
    index.update(photos)
    assert len(index.duplicates(photos / "in")) == 1
    gone.unlink()
    assert index.duplicates(photos / "in") == []
    assert len(index.duplicates()) == 1


def test_a_similarity_that_is_no_number_is_refused(index):
    """It would be compared with none."""
    with pytest.raises(InvalidRequestError):
        index.duplicates(min_similarity="very")


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> ImageIndex:
    """The photos of the sample, each with a copy that was encoded anew, one that is smaller and one that is cropped."""
    folder = tmp_path_factory.mktemp("sample")
    for path in sorted(SAMPLE.glob("*.jpg")):
        whole = Image.open(path).convert("RGB")
        width, height = whole.size
        variants = {
            "whole": path.read_bytes(),
            "encoded": _jpeg(whole, 70),
            "half": _jpeg(whole.resize((width // 2, height // 2), Image.Resampling.LANCZOS), 85),
            "quarter": _jpeg(whole.resize((width // 4, height // 4), Image.Resampling.LANCZOS), 85),
            "cropped": _jpeg(whole.crop((width // 20, height // 20, width - width // 20, height - height // 20)), 85),
            "brighter": _jpeg(ImageEnhance.Brightness(whole).enhance(1.2), 85),
        }
        for name, data in variants.items():
            (folder / f"{path.stem}.{name}.jpg").write_bytes(data)
    with Router([EmbeddedBackend()], caching=False) as router:
        index = ImageIndex(folder / "index", router=router)
        index.update(folder, purposes=("like",))
        return index


def _jpeg(image: Image.Image, quality: int) -> bytes:
    data = BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def test_copies_that_were_encoded_scaled_or_cropped_are_found_and_nothing_else(sample):
    """Each of the 29 photos is a group of its own, with its variants."""
    groups = sample.duplicates()
    names = [{file.path.name.split(".")[0] for file in group.files} for group in groups]
    assert all(len(each) == 1 for each in names)
    files = sum(len(group.files) for group in groups)
    assert len(groups) == 29
    assert files >= 0.97 * 29 * 6
    assert not any(group.is_exact for group in groups)


def test_photos_that_share_a_part_of_the_scene_are_not_the_same(real_index):
    """Their vectors are similar; three fifths of their pixels are the same."""
    index, folder = real_index
    for path in sorted(SAMPLE.glob("*.jpg"))[:12]:
        whole = Image.open(path).convert("RGB")
        width, height = whole.size
        for name, left in (("left", 0), ("right", width // 5)):
            whole.crop((left, 0, left + width * 4 // 5, height)).save(folder / f"{path.stem}.{name}.png")
    index.update(folder, purposes=("like",))
    assert index.duplicates() == []


def test_pages_of_text_are_told_apart(real_index):
    """To the model that makes the vectors they all are pages of text."""
    index, folder = real_index
    random = np.random.default_rng(7)
    for number in range(4):
        page = Image.new("RGB", (600, 800), "white")
        for y in range(60, 740, 20):
            text = "".join(random.choice(list("etaoin shrdlu "), size=random.choice([0, 40, 60, 62])))
            ImageDraw.Draw(page).text((50, y), text, fill="black", font_size=14)
        page.save(folder / f"{number}.png")
    index.update(folder, purposes=("like",))
    assert index.duplicates() == []


def test_plain_pictures_are_the_same_only_if_their_files_are(real_index):
    """There is nothing to recognise them by."""
    index, folder = real_index
    for number, shade in enumerate((240, 241, 250)):
        surface = np.full((64, 64, 3), shade, dtype=np.uint8)
        surface[:, 32:] += 2  # a shadow that nobody would see
        Image.fromarray(surface).save(folder / f"{number}.png")
    index.update(folder, purposes=("like",))
    assert index.duplicates() == []


@pytest.fixture
def real_index(tmp_path):
    """An empty folder, and an index whose vectors the embedded rung makes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    with Router([EmbeddedBackend()], caching=False) as router:
        yield ImageIndex(tmp_path / "index", router=router), folder
