"""Data sets are read as they are published, and drawn by a seed."""

from __future__ import annotations

import io
import json
import shutil

import pytest
from PIL import Image as PILImage

from benchmarks.datasets import Dataset, TrueBox, open_dataset
from vision_backends import InvalidRequestError, open_image


def read(name, *, limit: int | None = None, seed: int = 7) -> Dataset:
    """Open a data set whose order does not matter."""
    return open_dataset(str(name), limit=limit, seed=seed)


def by_name(dataset):
    """The photos of a data set by name."""
    return {photo.name: photo for photo in dataset.photos}


@pytest.fixture
def coco(photos, tmp_path):
    """A folder as COCO's archives unpack."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    images = [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 25, "file_name": "000000000025.jpg"}]
    for image, name in zip(images, ("cat.jpg", "rocket.jpg"), strict=True):
        shutil.copy(photos / name, root / "val2017" / image["file_name"])
    captions = [
        {"id": 1, "image_id": 9, "caption": "A cat. "},
        {"id": 2, "image_id": 25, "caption": "A rocket."},
        {"id": 3, "image_id": 9, "caption": "A tabby cat."},
    ]
    boxes = [
        {"id": 1, "image_id": 9, "category_id": 17, "bbox": [2.5, 0, 440, 300], "area": 9000.0, "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 10, 20], "area": 200.0, "iscrowd": 1},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}]
    write = root / "annotations"
    (write / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))
    instances = {"images": images, "annotations": boxes, "categories": categories}
    (write / "instances_val2017.json").write_text(json.dumps(instances))
    return root


def test_coco_is_read_with_captions_boxes_and_crowds(coco):
    """An image without objects has none, which is not the same as unknown."""
    dataset = read(coco)
    cat, rocket = by_name(dataset)["000000000009.jpg"], by_name(dataset)["000000000025.jpg"]
    assert (dataset.name, dataset.labels) == ("COCO val2017", ("person", "cat"))
    assert cat.captions == ("A cat.", "A tabby cat.")
    assert cat.boxes == (
        TrueBox(label="cat", xyxy=(2.5, 0, 442.5, 300)),
        TrueBox(label="person", xyxy=(0, 0, 10, 20), is_crowd=True),
    )
    assert rocket.boxes == ()
    assert open_image(cat.read()).width == 451


def test_coco_without_instances_has_no_boxes(coco):
    """Nobody has looked for objects then."""
    (coco / "annotations" / "instances_val2017.json").unlink()
    assert {photo.boxes for photo in read(coco).photos} == {None}


def test_another_split_of_coco_can_be_named(coco):
    """After a # sign."""
    for kind in ("captions", "instances"):
        path = coco / "annotations" / f"{kind}_val2017.json"
        shutil.copy(path, path.with_name(f"{kind}_train2017.json"))
    (coco / "val2017").rename(coco / "train2017")
    dataset = read(f"{coco}#train2017")
    assert dataset.name == "COCO train2017"
    assert all(open_image(photo.read()) for photo in dataset.photos)
    with pytest.raises(InvalidRequestError, match="no annotations of the split 'test2017'"):
        read(f"{coco}#test2017")


@pytest.fixture
def flickr(photos, tmp_path):
    """Flickr8k in Karpathy's form, with its images in a folder beside."""
    root = tmp_path / "flickr8k"
    (root / "Flicker8k_Dataset").mkdir(parents=True)
    for name in ("cat.jpg", "coffee.jpg", "rocket.jpg"):
        shutil.copy(photos / name, root / "Flicker8k_Dataset" / name)
    images = [
        {"filename": name, "split": split, "sentences": [{"raw": f"This is {name} ."}, {"raw": "A photo ."}]}
        for name, split in (("cat.jpg", "test"), ("coffee.jpg", "train"), ("rocket.jpg", "test"))
    ]
    (root / "dataset_flickr8k.json").write_text(json.dumps({"dataset": "flickr8k", "images": images}))
    return root


def test_karpathys_test_split_is_read(flickr):
    """With the raw sentences."""
    dataset = read(flickr)
    assert dataset.name == "flickr8k test"
    assert set(by_name(dataset)) == {"cat.jpg", "rocket.jpg"}
    assert by_name(dataset)["cat.jpg"].captions == ("This is cat.jpg .", "A photo .")
    assert all(open_image(photo.read()) for photo in dataset.photos)
    assert set(by_name(read(f"{flickr / 'dataset_flickr8k.json'}#train"))) == {"coffee.jpg"}
    with pytest.raises(InvalidRequestError, match="no split 'dev'"):
        read(f"{flickr}#dev")


def test_lines_are_read_with_everything_that_they_say(lines):
    """Captions, boxes, credit; images beside the file."""
    dataset = read(lines)
    coffee = by_name(dataset)["coffee.jpg"]
    assert dataset.name == "own"
    assert dataset.labels == ("person", "cat", "cup", "spoon")
    assert len(coffee.captions) == 3
    assert coffee.boxes[0] == TrueBox(label="cup", xyxy=(120, 80, 400, 340))
    assert coffee.credit == "the author of coffee.jpg"
    assert by_name(dataset)["rocket.jpg"].boxes == ()


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ('{"image": "a.jpg", "boxes": [{"label": "cat", "xyxy": [5, 0, 5, 9]}]}', "x1 < x2"),
        ('{"image": "a.jpg", "boxes": [{"label": "cat", "xyxy": [-5, 0, 5, 9]}]}', "x1 < x2"),
        ('{"image": "a.jpg", "boxes": [{"label": "cat", "xyxy": [NaN, 0, 5, 9]}]}', "line 2"),
        ('{"image": "a.jpg", "captoins": []}', "captoins"),
        ('{"captions": ["A cat."]}', "image"),
        ('{"image": "/etc/passwd"}', "not a path relative"),
        ("no JSON", "line 2"),
        ('{"image": "cat.jpg"}', "'cat.jpg' twice"),
    ],
)
def test_a_wrong_line_is_named(lines, line, trouble):
    """With its number and what is wrong with it."""
    first = '{"image": "cat.jpg"}'
    (lines / "own.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(InvalidRequestError, match=trouble):
        read(lines)


def test_a_folder_of_images_is_a_data_set_about_which_nobody_has_said_anything(photos):
    """Your own pictures, as they are."""
    dataset = read(photos)
    assert len(dataset.photos) == len(list(photos.glob("*.jpg")))
    assert {(photo.captions, photo.boxes) for photo in dataset.photos} == {((), None)}


@pytest.mark.parametrize("name", ["no-such-folder", "no-such.jsonl", "no-such.json", "no-such-folder#val"])
def test_what_is_not_there_is_named(name):
    """Before anything is asked."""
    with pytest.raises(InvalidRequestError, match="no-such"):
        read(name)


def test_an_empty_folder_is_no_data_set(tmp_path):
    """Nothing could be measured."""
    with pytest.raises(InvalidRequestError, match=r"no images|no image"):
        read(tmp_path)


def test_images_are_drawn_by_the_seed_and_few_are_the_beginning_of_many(photos):
    """A run that stops early has asked about a fair sample."""
    eight = [photo.name for photo in read(photos, seed=3).photos]
    assert [photo.name for photo in read(photos, seed=3, limit=3).photos] == eight[:3]
    assert [photo.name for photo in read(photos, seed=4).photos] != eight
    assert sorted(eight) != eight


@pytest.fixture
def saved(photos, tmp_path):
    """A data set that the library of Hugging Face has saved, with images, captions and objects."""
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "captions": datasets.List(datasets.Value("string")),
            "objects": {
                "bbox": datasets.List(datasets.List(datasets.Value("float32"), length=4)),
                "category": datasets.List(datasets.ClassLabel(names=["person", "cat"])),
            },
        }
    )
    rows = {
        "image": [str(photos / "cat.jpg"), str(photos / "rocket.jpg")],
        "captions": [["A cat.", "A tabby cat."], ["A rocket."]],
        "objects": [{"bbox": [[2, 0, 440, 300]], "category": [1]}, {"bbox": [], "category": []}],
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "test": made.select([0, 1])}).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_saved_data_set_of_hugging_face_is_read(saved):
    """Columns are found by what they are, labels by the names behind their numbers."""
    dataset = read(f"hf:{saved}")
    assert dataset.name == "saved test"
    assert dataset.labels == ("person", "cat")
    cat = next(photo for photo in dataset.photos if photo.boxes)
    assert cat.captions == ("A cat.", "A tabby cat.")
    assert cat.boxes == (TrueBox(label="cat", xyxy=(2, 0, 442, 300)),)
    assert PILImage.open(io.BytesIO(cat.read())).size == (451, 300)
    assert len(read(f"hf:{saved}", limit=1).photos) == 1
    with pytest.raises(InvalidRequestError, match="no split 'dev'"):
        read(f"hf:{saved}#dev")
