"""Text files as editors write them."""

from __future__ import annotations

import json

import pytest

from vision_backends.backends.local.hub.checkpoint import read_checkpoint
from vision_backends.config.loading import load_settings
from vision_backends.config.text_file import read_text
from vision_backends.errors import ConfigError
from vision_backends.testing.sandbox.script import Script

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
ENDS = ["\n", "\r\n", "\r"]
MARKS = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}


def encoded(text: str, encoding: str, end: str = "\n") -> bytes:
    """Return a text as an editor saves it, with a mark where the encoding needs one."""
    return MARKS.get(encoding, b"") + text.replace("\n", end).encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ENDS)
def test_marks_and_line_ends_are_no_part_of_the_text(tmp_path, encoding, end):
    """Whichever the editor writes."""
    path = tmp_path / "text"
    path.write_bytes(encoded("eine Zeile für Größe\nnoch eine\n", encoding, end))
    assert read_text(path) == "eine Zeile für Größe\nnoch eine\n"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ENDS)
def test_a_configuration_may_be_written_with_any_editor(tmp_path, encoding, end):
    """Notepad's mark is no statement of TOML."""
    path = tmp_path / "vision.toml"
    path.write_bytes(encoded('# Größe\nladder = ["embedded"]\n[images]\nmax_bytes = 5\n', encoding, end))
    settings = load_settings(path)
    assert settings.ladder == ("embedded",)
    assert settings.images.max_bytes == 5


def test_a_configuration_in_another_encoding_is_named(tmp_path):
    """Latin-1 has no mark, and cannot be told."""
    path = tmp_path / "vision.toml"
    path.write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"vision\.toml' is not UTF-8"):
        load_settings(path)


def test_files_of_a_checkpoint_may_have_a_mark(tmp_path):
    """Someone has edited them."""
    (tmp_path / "config.json").write_bytes(encoded(json.dumps({"model_type": "clip"}), "utf-8-sig"))
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (tmp_path / "preprocessor_config.json").write_bytes(encoded("{}", "utf-8-sig", "\r\n"))
    assert read_checkpoint(tmp_path, name="mine", revision=None).kind == "clip"


def test_a_script_of_the_sandbox_may_have_a_mark(tmp_path):
    """It is JSON that people write."""
    path = tmp_path / "script.json"
    path.write_bytes(encoded('{"steps": ["quota_gone"]}', "utf-16"))
    assert len(Script.load(path).steps) == 1
