"""Which files count as the same picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

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
            "cropped": _jpeg(whole.crop((width // 50, height // 50, width - width // 50, height - height // 50)), 85),
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
    """Each of the 29 photos is a group of its own with all its variants."""
    groups = sample.duplicates()
    names = [{file.path.name.split(".")[0] for file in group.files} for group in groups]
    assert all(len(each) == 1 for each in names)
    pairs = sum(len(group.files) for group in groups)
    assert (len(groups), pairs) == (29, 4 * 29)
    assert not any(group.is_exact for group in groups)
