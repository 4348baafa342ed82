"""What may be loaded is decided before anything is."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from vision_backends.backends.local.hub.checkpoint import MOST_FILES, flaws_of_files, read_checkpoint
from vision_backends.errors import NotReadyError


def edit(path, change):
    """Change a JSON file."""
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def refusal(folder) -> NotReadyError:
    """Return why a folder is refused."""
    with pytest.raises(NotReadyError) as caught:
        read_checkpoint(folder)
    return caught.value


def test_a_checkpoint_says_what_it_is(model):
    """Kind, input size and number of weights are known without loading them."""
    checkpoint = read_checkpoint(model("blip"))
    assert (checkpoint.kind, checkpoint.input_px, checkpoint.folder) == ("blip", 32, model("blip"))
    assert checkpoint.parameters == sum(t.numel() for t in load_file(model("blip") / "model.safetensors").values())
    assert checkpoint.labels == {}
    assert read_checkpoint(model("detr")).labels[1] == "motorbike"


def test_a_model_of_sentence_transformers_is_found_one_folder_deeper(model):
    """Its weights are those of the CLIP inside."""
    checkpoint = read_checkpoint(model("sentence_clip"))
    assert checkpoint.folder == model("sentence_clip") / "0_CLIPModel"
    assert checkpoint.kind == "clip"


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("nest", [lambda inner: inner, lambda inner: {"vision_config": [{"deep": inner}]}])
def test_code_of_the_author_is_refused_wherever_it_is_asked_for(model_copy, name, nest):
    """An auto_map on top or nested deep inside, in any configuration."""
    folder = model_copy("clip")
    edit(folder / name, lambda table: table.update(nest({"auto_map": {"AutoModel": "evil.Model"}})))
    error = refusal(folder)
    assert error.code == "remote_code"
    assert name in error.message


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("nest", [lambda inner: inner, lambda inner: {"vision_config": inner}])
def test_attention_from_elsewhere_is_refused(model_copy, key, nest):
    """It would be fetched and run as native code; transformers' own ways are fine."""
    folder = model_copy("clip")
    edit(folder / "config.json", lambda table: table.update(nest({key: "sdpa"})))
    read_checkpoint(folder)
    edit(folder / "config.json", lambda table: table.update(nest({key: "someone/flash-attention"})))
    error = refusal(folder)
    assert error.code == "remote_code"
    assert "someone/flash-attention" in error.message


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"backbone_config": {"depths": [2, 10**9], "stage_num_blocks": [1, 1]}},
        {"stage_num_blocks": [10**9]},
        {"encoder_layers": 10**6},
    ],
)
def test_a_model_of_a_billion_layers_is_refused(model_copy, changes):
    """Making them would take all time and memory, long before a weight is missed."""
    folder = model_copy("clip")
    edit(folder / "config.json", lambda table: table.update(changes))
    assert "no model has more than 1000" in refusal(folder).message


@pytest.mark.parametrize("kind", ["clip", "blip", "grounding_dino"])
def test_a_model_that_knows_words_needs_its_tokenizer(model_copy, kind):
    """Another library may have fetched the rest; that is told as what it is, also by `vision models verify`."""
    folder = model_copy(kind)
    for path in folder.glob("*"):
        if path.name.startswith(("tokenizer", "vocab", "special_tokens", "merges")):
            path.unlink()
    error = refusal(folder)
    assert error.code == "incomplete"
    assert "it has no tokenizer" in error.message
    assert flaws_of_files(folder).keys() == {"tokenizer.json"}


def test_a_tokenizer_that_was_cut_short_is_named(model_copy):
    """Its own reader would tell a place in some file."""
    folder = model_copy("clip")
    vocabulary = folder / "tokenizer.json"
    vocabulary.write_bytes(vocabulary.read_bytes()[:-100])
    error = refusal(folder)
    assert (error.code, "tokenizer.json is cut short" in error.message) == ("incomplete", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_this_user_may_not_read_is_not_called_damaged(model_copy, name):
    """Fetching it again would not help."""
    folder = model_copy("clip")
    (folder / name).chmod(0)
    error = refusal(folder)
    assert error.code == "unreadable"
    assert "Permission denied" in error.message


def test_weights_that_end_in_zeros_are_refused(model_copy):
    """Room was made for a download that never came to its end."""
    folder = model_copy("clip")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5_000] + bytes(5_000))
    assert "ends in zeros" in refusal(folder).message
    assert flaws_of_files(folder).keys() == {"model.safetensors"}


@pytest.mark.parametrize("begin", [0.15, 0.4, 0.8])
def test_a_hole_in_the_weights_is_found_where_they_are_read(model_copy, begin):
    """One of several streams of a download has not arrived; `vision models verify` says so as well."""
    folder = model_copy("clip")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    place = int(len(whole) * begin)
    weights.write_bytes(whole[:place] + bytes(20_000) + whole[place + 20_000 :])
    assert len(whole) == weights.stat().st_size
    assert "bytes of zeros: it has not arrived whole" in flaws_of_files(folder)["model.safetensors"]


def test_a_matrix_of_zeros_is_no_hole(model_copy):
    """It may be what was learned, as may the zeros of the biases around it, and of the next."""
    folder = model_copy("clip")
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.embeddings.token_embedding.weight"].zero_()
    for name in ("fc1.weight", "fc2.bias", "fc2.weight"):
        tensors[f"vision_model.encoder.layers.0.mlp.{name}"].zero_()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert flaws_of_files(folder) == {}


def test_a_large_vocabulary_is_one(model_copy):
    """Those of Gemma's family, as SigLIP 2 has it, have 34 MB."""
    folder = model_copy("siglip2")
    vocabulary = folder / "tokenizer.json"
    content = vocabulary.read_text()
    vocabulary.write_text(content.rstrip()[:-1] + " " * 34_000_000 + "}")
    assert read_checkpoint(folder).kind == "siglip"


@pytest.mark.parametrize("weights", ["adapter_model.bin", "other.safetensors", "other.safetensors.index.json"])
@pytest.mark.parametrize("nest", [lambda inner: inner, lambda inner: {"vision_config": inner}])
def test_weights_that_nobody_has_checked_are_refused(model_copy, weights, nest):
    """Transformers would load those that the configuration names, pickled ones too, and not the ones beside it."""
    folder = model_copy("clip")
    (folder / weights).write_bytes(b"pickle")
    edit(folder / "config.json", lambda table: table.update(nest({"transformers_weights": weights})))
    error = refusal(folder)
    assert error.code == "other_weights"
    assert "config.json names weights that were not checked (transformers_weights)" in error.message
    assert "transformers_weights" in error.remedy


def test_a_configuration_for_one_version_of_transformers_is_searched_as_well(model_copy):
    """The usual one may point at it, and then it alone counts."""
    folder = model_copy("clip")
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.4.0.0.json").write_text(json.dumps({**table, "transformers_weights": "adapter_model.bin"}))
    edit(folder / "config.json", lambda table: table.update(configuration_files=["config.4.0.0.json"]))
    assert refusal(folder).code == "other_weights"


def test_an_escaped_auto_map_is_found_as_well(model_copy):
    """JSON has many spellings of one key."""
    folder = model_copy("clip")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("{", '{"auto\\u005fmap": {"AutoConfig": "evil.Config"},', 1))
    assert refusal(folder).code == "remote_code"


def test_code_below_the_weights_is_refused(model_copy):
    """The outer folder of sentence-transformers counts as well."""
    folder = model_copy("sentence_clip")
    edit(folder / "config_sentence_transformers.json", lambda table: table.update(auto_map={}))
    assert refusal(folder).code == "remote_code"


def test_adapters_are_refused(model_copy):
    """They would load a second model, which nobody has checked."""
    folder = model_copy("clip")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    assert refusal(folder).code == "remote_code"


def test_pickled_weights_are_refused(model_copy):
    """They are never opened; the remedy says how to convert them."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refusal(folder)
    assert error.code == "no_safetensors"
    assert "safetensors" in error.remedy


def test_an_index_may_name_safetensors_beside_it_only(model_copy):
    """Neither pickles nor files elsewhere."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    for bad in ("pytorch_model.bin", "../one.safetensors", "..\\one.safetensors"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": bad}}))
        assert refusal(folder).code == "remote_code"


def test_all_shards_have_to_be_there(model_copy):
    """A half fetched model is incomplete, a whole one is not."""
    folder = model_copy("clip")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    error = refusal(folder)
    assert error.code == "incomplete"
    assert "model-00002-of-00002.safetensors is missing" in error.message
    save_file({"b": torch.zeros(3)}, folder / "model-00002-of-00002.safetensors")
    assert read_checkpoint(folder).parameters > 3


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_makes_it_incomplete(model_copy, name):
    """The message names what is missing."""
    folder = model_copy("clip")
    (folder / name).unlink()
    error = refusal(folder)
    assert error.code == "incomplete"
    assert name in error.message


class TestOddFiles:
    """What stands where a file is expected need not be one: nothing is waited for, and nothing endless is read."""

    @staticmethod
    def put(path, what):
        """Put something in the place of a file."""
        path.unlink(missing_ok=True)
        if what == "endless":
            path.symlink_to("/dev/zero")
        elif what == "pipe":
            os.mkfifo(path)
        elif what == "pipe behind a link":
            os.mkfifo(path.with_name("elsewhere"))
            path.symlink_to("elsewhere")
        elif what == "directory":
            path.mkdir()
        elif what == "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        else:
            with path.open("wb") as file:
                file.truncate(10_000_000_000)

    @pytest.mark.parametrize("what", ["endless", "pipe", "pipe behind a link", "directory", "socket", "huge"])
    @pytest.mark.parametrize(
        "name", ["config.json", "preprocessor_config.json", "model.safetensors", "tokenizer.json", "merges.txt"]
    )
    def test_each_is_refused_at_once_by_its_name(self, model_copy, name, what):
        """Whoever reads it: this package, or transformers later."""
        folder = model_copy("clip")
        self.put(folder / name, what)
        started = time.process_time()
        if what == "directory" and name in {"tokenizer.json", "merges.txt"}:
            return  # nothing reads it
        error = refusal(folder)
        assert time.process_time() - started < 2
        assert error.code == "incomplete"
        assert name in error.message or "elsewhere" in error.message

    @pytest.mark.parametrize("what", ["endless", "pipe", "socket"])
    def test_others_are_refused_too(self, model_copy, what):
        """Nobody knows what else a library may open."""
        folder = model_copy("clip")
        self.put(folder / "special_tokens.bpe", what)
        assert "special_tokens.bpe is not a regular file" in refusal(folder).message

    def test_a_folder_of_countless_files_is_no_checkpoint(self, model_copy):
        """Somebody has named the wrong one."""
        folder = model_copy("clip")
        for number in range(MOST_FILES):
            (folder / f"{number}").touch()
        assert "more than 10,000 files" in refusal(folder).message

    @pytest.mark.parametrize(
        ("length", "why"),
        [
            (25_000_001, "25,000,001 bytes"),
            (2**63, "is not a safetensors file"),
            (2**64 - 1, "is not a safetensors file"),
        ],
    )
    def test_a_table_of_tensors_of_absurd_length_is_not_read(self, model_copy, length, why):
        """Its length is the first thing in the file."""
        weights = model_copy("clip") / "model.safetensors"
        with weights.open("wb") as file:
            file.write(length.to_bytes(8, "little"))
            file.truncate(10_000_000_000)
        assert why in refusal(weights.parent).message

    @pytest.mark.parametrize("span", [[8, 4], [-8, 4]])
    def test_tensors_have_to_lie_within_their_file(self, model_copy, span):
        """One that ends before it begins would be read to the end of the file."""
        weights = model_copy("clip") / "model.safetensors"
        entry = {"dtype": "F32", "shape": [1], "data_offsets": span}
        header = json.dumps({"a": entry, "b": {**entry, "data_offsets": [0, 8]}}).encode()
        weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        assert "end before they begin" in refusal(weights.parent).message


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_cut_weights_are_noticed(model_copy, keep):
    """A file that was cut anywhere is not loaded."""
    weights = model_copy("clip") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert refusal(weights.parent).code == "incomplete"


def test_a_broken_configuration_is_incomplete(model_copy):
    """No JSON, no model."""
    folder = model_copy("clip")
    (folder / "config.json").write_text("{")
    assert "config.json is not valid JSON" in refusal(folder).message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors.index.json", "[]"),
        ("model.safetensors.index.json", '{"weight_map": ["a"]}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": 1}}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": {}}}'),
        ("preprocessor_config.json", "[]"),
        ("preprocessor_config.json", '{"image_processor": null}'),
        ("modules.json", '["x"]'),
        ("config.json", "[]"),
        ("config.json", "[" * 100_000),
        ("generation_config.json", '{"a":' * 100_000),
    ],
)
def test_files_of_an_odd_form_make_it_incomplete(model_copy, name, content):
    """Whatever they hold, other models and the commands that mend go on."""
    folder = model_copy("clip")
    if name.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(content)
    assert refusal(folder).code == "incomplete"
    assert flaws_of_files(folder) == {}


@pytest.mark.parametrize("entry", [{"data_offsets": [0, 0]}, {"dtype": "F32", "data_offsets": [0]}, 7])
def test_tensors_of_an_odd_form_make_it_incomplete(model_copy, entry):
    """The table of contents is no more to be believed than any other file."""
    folder = model_copy("clip")
    header = json.dumps({"a": entry}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert refusal(folder).code == "incomplete"


def test_files_that_cannot_be_read_make_it_incomplete(model_copy):
    """Those that configure nothing but words are read only for the revision."""
    folder = model_copy("clip")
    (folder / "vocab.json").unlink(missing_ok=True)
    (folder / "vocab.json").symlink_to("/proc/self/mem")
    assert refusal(folder).code == "incomplete"


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "merges.txt"])
@pytest.mark.parametrize("revision", [None, "abc"])
def test_links_into_nothing_make_it_incomplete(model_copy, name, revision):
    """Where they stand for files that it needs."""
    folder = model_copy("clip")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("gone")
    with pytest.raises(NotReadyError, match=f"{name} is missing") as caught:
        read_checkpoint(folder, revision=revision)
    assert caught.value.code == "incomplete"


def test_what_it_does_not_need_may_be_anything(model, model_copy):
    """A link into nothing, or a folder with the name of a file."""
    folder = model_copy("clip")
    (folder / "README.md").symlink_to("gone")
    (folder / "pytorch_model.bin").symlink_to("gone")
    (folder / "notes.json").mkdir()
    assert read_checkpoint(folder).revision == read_checkpoint(model("clip")).revision


def test_other_models_of_sentence_transformers_are_not_supported(model_copy):
    """A pooling or dense layer would change the vectors."""
    folder = model_copy("sentence_clip")
    edit(folder / "modules.json", lambda rows: rows.append({"type": "sentence_transformers.models.Dense"}))
    error = refusal(folder)
    assert error.code == "not_supported"
    assert "Dense" in error.message


def test_modules_stay_inside_their_folder(model_copy):
    """A path may not lead out of it."""
    folder = model_copy("sentence_clip")
    edit(folder / "modules.json", lambda rows: rows[0].update(path="../elsewhere"))
    assert refusal(folder).code == "remote_code"


class TestRevision:
    """A folder without a commit is told apart by its content."""

    def test_a_copy_has_the_same(self, model, model_copy):
        """It does not matter where or when it was written."""
        assert read_checkpoint(model_copy("clip")).revision == read_checkpoint(model("clip")).revision

    def test_a_commit_comes_first(self, model):
        """Where there is one, it is the revision."""
        assert read_checkpoint(model("clip"), revision="abc").revision == "abc"

    def test_other_weights_have_another(self, model, model_copy):
        """Though they have the same shapes."""
        folder = model_copy("clip")
        tensors = load_file(folder / "model.safetensors")
        name = max(tensors)
        tensors[name] = tensors[name] + 0.01
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        assert read_checkpoint(folder).revision != read_checkpoint(model("clip")).revision

    @pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer_config.json"])
    def test_another_configuration_has_another(self, model, model_copy, name):
        """How input is prepared changes answers as well."""
        folder = model_copy("clip")
        edit(folder / name, lambda table: table.update(new=1))
        assert read_checkpoint(folder).revision != read_checkpoint(model("clip")).revision
