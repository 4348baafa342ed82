"""Data sets, read by those that they are for."""

import dataclasses
import json
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends import Detection, Detections, InvalidImageError, InvalidRequestError
from vision_backends.results import save_coco, save_csv, save_voc, save_yolo, to_coco


def box(label, xyxy=(10, 5, 60, 45), score=0.5, category_id=None):
    """Return one object."""
    return Detection(label=label, score=score, xyxy=xyxy, category_id=category_id)


def found(source, *items):
    """Return what was found in a picture of 100×50."""
    return Detections(items=items, width=100, height=50, source=source)


RESULTS = [
    found("photos/a.jpg", box("cat", category_id=17), box("scooter", score=0.4)),
    found("photos/b.jpg"),
    found("photos/c.jpg", box("kite <&>\x00", score=0.3), box("scooter", (0, 0, 100, 50), score=0.2)),
]


def test_a_coco_data_set_is_read_by_pycocotools(tmp_path, capsys):
    """Labels of COCO's have its ids, others those above; images without objects are images all the same."""
    coco = pytest.importorskip("pycocotools.coco")
    save_coco(RESULTS, tmp_path / "new" / "set.json")
    read = coco.COCO(str(tmp_path / "new" / "set.json"))
    assert [image["file_name"] for image in read.loadImgs(read.getImgIds())] == [each.source for each in RESULTS]
    assert {each["name"]: each["id"] for each in read.loadCats(read.getCatIds())} == {
        "cat": 17,
        "kite <&>\x00": 91,
        "scooter": 92,
    }
    scooters = read.loadAnns(read.getAnnIds(catIds=[92]))
    assert [(each["image_id"], each["bbox"], each["area"]) for each in scooters] == [
        (1, [10, 5, 50, 40], 2000),
        (3, [0, 0, 100, 50], 5000),
    ]


def test_a_coco_data_set_uses_the_categories_that_the_caller_names():
    """Those that were not found are categories all the same."""
    made = to_coco(RESULTS[0], categories={"cat": 1, "scooter": 2, "swan": 3})
    assert [each["category_id"] for each in made["annotations"]] == [1, 2]
    assert [each["name"] for each in made["categories"]] == ["cat", "scooter", "swan"]
    with pytest.raises(InvalidRequestError, match="'scooter' has no COCO category"):
        to_coco(RESULTS[0], categories={"cat": 1})
    with pytest.raises(InvalidRequestError, match="gives no label an id"):
        to_coco(RESULTS[0], categories=["cat"])


def test_an_image_without_a_name_has_one_in_a_coco_data_set():
    """Its number, by which its annotations go as well."""
    assert [each["file_name"] for each in to_coco([found(None), found(None)])["images"]] == ["image-1", "image-2"]


def test_a_yolo_data_set_has_a_file_for_each_image(tmp_path):
    """With the centre and size of each box as shares of the sides; none found is an empty file."""
    save_yolo(RESULTS, tmp_path / "set")
    lines = (tmp_path / "set/labels/a.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["0 0.350000 0.500000 0.500000 0.800000", "2 0.350000 0.500000 0.500000 0.800000"]
    assert (tmp_path / "set/labels/b.txt").read_text(encoding="utf-8") == ""
    names = (tmp_path / "set/data.yaml").read_text(encoding="utf-8").partition("names:")[2].splitlines()[1:]
    assert [json.loads(name.partition(": ")[2]) for name in names] == ["cat", "kite <&>\x00", "scooter"]
    save_yolo(RESULTS[0], tmp_path / "named", classes=["scooter", "cat"])
    assert (tmp_path / "named/labels/a.txt").read_text(encoding="utf-8").startswith("1 ")


def test_the_names_of_a_yolo_data_set_are_yaml(tmp_path):
    """Also where there are none."""
    yaml = pytest.importorskip("yaml")
    save_yolo([found("a.jpg", box("no"), box("a: b #c"), box("ü"))], tmp_path)
    assert yaml.safe_load((tmp_path / "data.yaml").read_text(encoding="utf-8"))["names"] == {
        0: "a: b #c",
        1: "no",
        2: "ü",
    }
    save_yolo([found("a.jpg")], tmp_path)
    assert yaml.safe_load((tmp_path / "data.yaml").read_text(encoding="utf-8"))["names"] == {}


@given(st.tuples(st.floats(0, 99), st.floats(0, 49), st.floats(0.01, 100), st.floats(0.01, 50)).filter(
    lambda box: box[0] < box[2] and box[1] < box[3]
))  # fmt: skip
def test_a_box_of_pascal_voc_is_in_whole_pixels_that_hold_it(tmp_path_factory, xyxy):
    """Counted from 1 and inside the image, however thin it is."""
    folder = tmp_path_factory.mktemp("voc")
    save_voc(found("a.jpg", box("cat", xyxy)), folder)
    sides = [int(side.text) for side in ET.parse(folder / "a.xml").find("object/bndbox")]  # noqa: S314 — our own
    left, top, right, bottom = sides
    assert left - 1 <= xyxy[0] < left
    assert top - 1 <= xyxy[1] < top
    assert right - 1 < xyxy[2] <= right <= 100
    assert bottom - 1 < xyxy[3] <= bottom <= 50
    assert left <= right
    assert top <= bottom


def test_a_file_of_pascal_voc_is_xml_whatever_the_labels(tmp_path):
    """Control characters have no place in it, and markup none in a label."""
    save_voc(RESULTS, tmp_path)
    tree = ET.parse(tmp_path / "c.xml")  # noqa: S314 — our own
    assert tree.findtext("filename") == "c.jpg"
    assert (tree.findtext("size/width"), tree.findtext("size/height")) == ("100", "50")
    assert [each.text for each in tree.findall("object/name")] == ["kite <&>\\x00", "scooter"]
    assert ET.parse(tmp_path / "b.xml").find("object") is None  # noqa: S314 — our own


@pytest.mark.parametrize("save", [save_yolo, save_voc])
@pytest.mark.parametrize(
    ("results", "says"),
    [
        ([found("x/a.jpg"), found("y/a.png")], "Two images are called a"),
        ([found(None)], "without a name"),
        ([found("a.jpg"), InvalidImageError("b.jpg cannot be read.")], "is an error, not an answer"),
    ],
)
def test_no_file_of_a_data_set_takes_the_place_of_another(tmp_path, save, results, says):
    """Nothing is written then, nor left out in silence."""
    with pytest.raises(InvalidRequestError, match=says):
        save(results, tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("save", [save_coco, save_yolo, save_voc, save_csv, Detections.save])
@pytest.mark.parametrize("path", [None, 5, "a\0.json", b"a.json", ["a.json"]])
def test_what_is_no_path_is_refused(save, path):
    """As any other argument that has no meaning."""
    with pytest.raises(InvalidRequestError, match="is not a path"):
        save(RESULTS[0], path)


def test_one_class_is_no_list_of_letters(tmp_path):
    """It would make a class of each."""
    with pytest.raises(InvalidRequestError, match="single str"):
        save_yolo(found("a.jpg"), tmp_path / "set", classes="cat")
    assert not (tmp_path / "set").exists()


def test_only_detections_make_a_data_set():
    """And errors are left out by the caller, who then knows of them."""
    for results in (5, ["a.jpg"], [RESULTS[0], InvalidImageError("b.jpg cannot be read.")]):
        with pytest.raises(InvalidRequestError):
            to_coco(results)


def test_a_name_of_an_image_is_no_way_out_of_the_folder(tmp_path):
    """Only its last part names a file."""
    save_voc(dataclasses.replace(RESULTS[1], source="../../b.jpg"), tmp_path / "set")
    assert [path.name for path in tmp_path.rglob("*.xml")] == ["b.xml"]
    assert (tmp_path / "set" / "b.xml").exists()
