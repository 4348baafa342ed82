"""Answers as rows: of lists, CSV files and frames."""

import csv
import dataclasses
import json
import sys

import pytest

from vision_backends import (
    ConfigError,
    Description,
    Detection,
    Detections,
    Embedding,
    ImageLabel,
    InvalidImageError,
    InvalidRequestError,
    Reply,
    Trace,
    Usage,
)
from vision_backends.installing import pip_command
from vision_backends.results import save_csv, to_pandas, to_polars, to_rows

TRACE = Trace(backend="openai", model="m", usage=Usage(input_tokens=10, output_tokens=2, cost_usd=0.5), elapsed_s=1.5)
FOUND = Detections(
    items=(
        Detection(label="cat", score=0.75, xyxy=(1, 2, 30, 40), category_id=17),
        Detection(label='a "big", dog', score=0.5, xyxy=(5, 6, 70, 45)),
    ),
    width=100,
    height=50,
    image_labels=(ImageLabel(label="garden", score=0.25),),
    source="a.jpg",
    trace=TRACE,
)
SAID = Description(
    text="Ein Hund.\nEr schläft.", language="de", evidence={"objects": ["dog"]}, source="b.jpg", trace=TRACE
)
VECTOR = Embedding(vector=[1.0], space="toy", trace=TRACE)
ERROR = InvalidImageError("c.jpg cannot be read.")


def test_detections_are_a_row_for_each_object():
    """And one without sides for what is known of the whole image."""
    rows = to_rows(FOUND)
    assert [(row["label"], row["score"], row["x1"], row["y2"], row["category_id"]) for row in rows] == [
        ("cat", 0.75, 1.0, 40.0, 17),
        ('a "big", dog', 0.5, 5.0, 45.0, None),
        ("garden", 0.25, None, None, None),
    ]
    assert {(row["source"], row["width"], row["backend"], row["degraded"]) for row in rows} == {
        ("a.jpg", 100, "openai", False)
    }


def test_other_answers_are_one_row_each_with_what_they_cost():
    """With their fields and their account, but without the list of attempts."""
    reply = Reply(text="2", data={"dogs": 2}, sources=("a.jpg",), trace=TRACE)
    rows = to_rows([SAID, reply, VECTOR])
    assert [row["source"] for row in rows] == ["b.jpg", "a.jpg", None]
    assert [row["sources"] for row in rows] == [None, ["a.jpg"], None]
    assert [row["text"] for row in rows] == [SAID.text, "2", None]
    assert (rows[1]["data"], rows[2]["vector"], rows[2]["dimension"]) == ({"dogs": 2}, [1.0], 1)
    assert {(row["backend"], row["cost_usd"], row["input_tokens"]) for row in rows} == {("openai", 0.5, 10)}
    assert len({tuple(row) for row in rows}) == 1


def test_an_error_among_answers_is_a_row():
    """The methods that take lists return some, and a row that is missing would go unnoticed."""
    rows = to_rows([SAID, ERROR])
    assert [row["error"] for row in rows] == [None, ERROR.kind]
    assert rows[1]["message"] == "c.jpg cannot be read."


@pytest.mark.parametrize("answers", [5, "a.jpg", [SAID, "a.jpg"], None])
def test_what_is_no_answer_is_refused(answers):
    """Before anything is written."""
    with pytest.raises(InvalidRequestError):
        to_rows(answers)


def test_a_csv_file_has_the_rows(tmp_path):
    """Quoted, in UTF-8, with lists and mappings as JSON."""
    path = tmp_path / "new" / "answers.csv"
    save_csv([FOUND, SAID, ERROR], path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["cat", 'a "big", dog', "garden", "", ""]
    assert rows[3]["text"] == SAID.text
    assert json.loads(rows[3]["evidence"]) == {"objects": ["dog"]}
    assert rows[2]["x1"] == ""


def test_a_name_that_is_no_text_is_written_with_its_bytes_escaped(tmp_path):
    """A file of an old camera may be called anything, and tables are of valid Unicode."""
    answers = [dataclasses.replace(answer, source="f\udce9te.jpg") for answer in (SAID, FOUND)]
    save_csv(answers, tmp_path / "answers.csv")
    assert r"f\udce9te.jpg" in (tmp_path / "answers.csv").read_text(encoding="utf-8")
    assert {row["source"] for row in to_rows(answers)} == {r"f\udce9te.jpg"}
    assert "f\\udce9te" in repr(answers[0])
    assert Description.from_dict(json.loads(json.dumps(answers[0].to_dict()))) == answers[0]


def test_a_csv_file_of_nothing_found_has_its_columns(tmp_path):
    """Programs that read it find them."""
    save_csv(FOUND.filter([]), tmp_path / "none.csv")
    save_csv(FOUND, tmp_path / "some.csv")
    none, some = ((tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("none.csv", "some.csv"))
    assert none == some[:1]


def test_a_csv_file_never_takes_the_place_of_an_image(tmp_path):
    """Its name may have been mistaken."""
    photo = tmp_path / "photo"
    photo.write_bytes(b"pixels")
    with pytest.raises(InvalidRequestError, match="the image itself"):
        save_csv(Description(text="A cat.", source=str(photo)), photo)
    assert photo.read_bytes() == b"pixels"


def test_a_pandas_frame_has_the_rows():
    """Also of nothing, with the columns."""
    pytest.importorskip("pandas")
    frame = FOUND.to_pandas()
    assert frame["label"].tolist() == ["cat", 'a "big", dog', "garden"]
    assert frame["x1"].isna().tolist() == [False, False, True]
    assert FOUND.filter([]).to_pandas().columns.tolist() == frame.columns.tolist()
    assert to_pandas([SAID, FOUND, ERROR]).shape[0] == 5
    assert to_pandas([]).shape == (0, 0)


def test_pandas_frames_of_any_answers_are_of_the_same_types():
    """A column that misses values is none of objects, and picks rows as it is."""
    pandas = pytest.importorskip("pandas")
    some, none, many = FOUND.to_pandas(), FOUND.filter([]).to_pandas(), to_pandas([SAID, FOUND, ERROR, VECTOR])
    assert some.dtypes.equals(none.dtypes)
    assert many.dtypes[some.columns.tolist()].equals(some.dtypes)
    assert some["category_id"].tolist()[0] == 17
    assert many[many["degraded"]].empty
    assert many["error"].dropna().tolist() == [ERROR.kind]
    assert pandas.concat([none, some])["category_id"].sum() == 17
    assert many["vector"].dropna().tolist() == [[1.0]]


def test_a_polars_frame_has_the_rows():
    """Also of nothing, and where values of a column come late or differ in shape."""
    pytest.importorskip("polars")
    assert FOUND.to_polars()["label"].to_list() == ["cat", 'a "big", dog', "garden"]
    assert to_polars([]).shape == (0, 0)
    replies = [Reply(text="2", data=data, sources=("a.jpg",)) for data in ({"dogs": 2}, [1, "a"], 5, "Zwölf", None)]
    frame = to_polars([*[ERROR] * 200, SAID, FOUND, *replies])
    assert frame.height == 209
    assert json.loads(frame["evidence"][200]) == {"objects": ["dog"]}
    assert frame["data"][204:].to_list() == ['{"dogs": 2}', '[1, "a"]', "5", '"Zwölf"', None]
    assert frame["sources"][204].to_list() == ["a.jpg"]


def test_polars_frames_of_any_answers_are_of_the_same_types(tmp_path):
    """They can be put together and stored."""
    polars = pytest.importorskip("polars")
    some, none, many = FOUND.to_polars(), FOUND.filter([]).to_polars(), to_polars([SAID, FOUND, ERROR, VECTOR])
    assert some.schema == none.schema
    assert polars.concat([none, some]).equals(some)
    assert {name: kind for name, kind in many.schema.items() if name in some.schema} == dict(some.schema)
    assert many.schema["vector"] == polars.List(polars.Float32)
    many.write_parquet(tmp_path / "answers.parquet")
    assert polars.read_parquet(tmp_path / "answers.parquet").equals(many)


@pytest.mark.parametrize("library", ["pandas", "polars", "supervision"])
def test_a_missing_library_says_how_to_install_it(monkeypatch, library):
    """For the interpreter that runs, and only when it is asked for."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=f"needs {library}, which is not installed") as caught:
        getattr(FOUND, f"to_{library}")()
    assert caught.value.remedy == f"Run: {pip_command(library)}"
