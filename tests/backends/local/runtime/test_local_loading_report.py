"""Weights and configuration are of one model, whatever kind it is: otherwise it would answer with a part of itself."""

from __future__ import annotations

import json
from functools import reduce

import pytest
import torch
from answering import answer
from safetensors.torch import load_file, save_file

from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest
from vision_backends.errors import NotReadyError

FEWER = {
    "clip": ("embedding", "vision_config.num_hidden_layers"),
    "sentence_clip": ("embedding", "text_config.num_hidden_layers"),
    "siglip": ("embedding", "vision_config.num_hidden_layers"),
    "siglip2_naflex": ("embedding", "text_config.num_hidden_layers"),
    "blip": ("caption", "vision_config.num_hidden_layers"),
    "blip_large": ("caption", "text_config.num_hidden_layers"),
    "blip2_opt": ("caption", "qformer_config.num_hidden_layers"),
    "blip2_t5": ("caption", "text_config.num_layers"),
    "florence2": ("caption", "text_config.encoder_layers"),
    "llava": ("caption", "text_config.num_hidden_layers"),
    "smolvlm": ("caption", "vision_config.num_hidden_layers"),
    "qwen3_vl": ("caption", "vision_config.depth"),
    "llava_onevision": ("caption", "vision_config.num_hidden_layers"),
    "detr": ("detection", "decoder_layers"),
    "deformable_detr": ("detection", "decoder_layers"),
    "yolos": ("detection", "num_hidden_layers"),
    "rt_detr": ("detection", "decoder_layers"),
    "rt_detr_v2": ("detection", "decoder_layers"),
    "d_fine": ("detection", "decoder_layers"),
    "rf_detr": ("detection", "decoder_layers"),
    "lw_detr": ("detection", "decoder_layers"),
    "grounding_dino": ("open_vocabulary", "text_config.num_hidden_layers"),
    "mm_grounding_dino": ("open_vocabulary", "decoder_layers"),
    "owlv2": ("open_vocabulary", "vision_config.num_hidden_layers"),
    "owlvit": ("open_vocabulary", "text_config.num_hidden_layers"),
}
"""Kinds of models with the role of each, and where its configuration says how many layers a part of it has."""

REQUESTS = {
    "caption": DescribeRequest(),
    "embedding": EmbedRequest(),
    "detection": DetectRequest(),
    "open_vocabulary": DetectRequest(labels=("dog",)),
}


def inner(folder):
    """Return where the model itself is."""
    return next(folder.rglob("config.json")).parent


def change(folder, path, value):
    """Change a number in a model's configuration."""
    config = json.loads((inner(folder) / "config.json").read_text())
    *way, last = path.split(".")
    table = reduce(lambda table, key: table[key], way, config)
    table[last] = value(table[last])
    (inner(folder) / "config.json").write_text(json.dumps(config))


def reweigh(folder, alter):
    """Change a model's weights by name."""
    weights = inner(folder) / "model.safetensors"
    tensors = load_file(weights)
    alter(tensors)
    save_file({name: each.contiguous() for name, each in tensors.items()}, weights, metadata={"format": "pt"})


@pytest.fixture
def ask(make_backend, make_image):
    """Ask a model that lies in a folder; return its answer and the backend."""

    def ask(role, folder, **settings):
        request = REQUESTS[role]
        backend = make_backend(**{"detection_model": "", f"{role}_model": folder, "download": "never", **settings})
        way = {"caption": backend.describe, "embedding": backend.embed}.get(role, backend.detect)
        return answer(way, [make_image()], request, timeout_s=60), backend

    return ask


@pytest.mark.parametrize("kind", FEWER)
def test_half_of_a_model_is_refused(ask, model_copy, kind):
    """The configuration has one layer less than the weights; transformers would leave it out without a word."""
    role, path = FEWER[kind]
    folder = model_copy(kind)
    change(folder, path, lambda layers: layers - 1)
    with pytest.raises(NotReadyError, match=r"config\.json") as caught:
        ask(role, folder)
    assert caught.value.code == "inconsistent"
    assert "of one model" in caught.value.remedy


def test_the_same_holds_where_another_engine_computes(ask, model_copy):
    """Nothing is converted from half of a model."""
    folder = model_copy("clip")
    change(folder, "vision_config.num_hidden_layers", lambda layers: layers - 1)
    message = r"model\.safetensors has 2 of vision_model\.encoder\.layers, and config\.json asks for 1"
    with pytest.raises(NotReadyError, match=message):
        ask("embedding", folder, engine="auto")


def test_layers_of_a_backbone_count(ask, model_copy):
    """A detector sees by another network, which has a configuration of its own."""
    folder = model_copy("detr")
    longer = {}

    def alter(tensors):
        for name, each in tensors.items():
            if "stages.3.layers.0." in name:
                longer[name.replace("layers.0", "layers.1")] = each.clone()
        tensors.update(longer)

    reweigh(folder, alter)
    if not longer:
        pytest.fail("the backbone has no such layers any more")
    with pytest.raises(NotReadyError, match=r"and config\.json asks for 1"):
        ask("detection", folder)


@pytest.mark.parametrize("extra", ["k_proj.extra", "q_norm.weight"])
def test_weights_within_a_layer_that_nothing_uses_are_refused(ask, model_copy, extra):
    """A configuration that leaves out a step of each layer computes something else."""
    folder = model_copy("llava")
    layer = "language_model.model.layers.0.self_attn"
    reweigh(folder, lambda tensors: tensors.update({f"{layer}.{extra}": torch.ones(8)}))
    with pytest.raises(NotReadyError, match=f"1 weights that config.json has no use for, such as .*{extra}"):
        ask("caption", folder)


def test_a_bias_that_is_left_out_is_refused(ask, model_copy):
    """It belongs to a weight that is used."""
    folder = model_copy("clip")
    reweigh(folder, lambda tensors: tensors.update({"visual_projection.bias": torch.ones(24)}))
    with pytest.raises(NotReadyError, match=r"such as visual_projection\.bias"):
        ask("embedding", folder)


def test_weights_of_another_shape_are_refused(ask, model_copy):
    """The shapes are told, with the files that they are from."""
    folder = model_copy("clip")
    reweigh(folder, lambda tensors: tensors.update({"visual_projection.weight": torch.ones(24, 16)}))
    with pytest.raises(NotReadyError, match=r"\[24, 16\] in model.safetensors, and \[24, 32\] by config.json"):
        ask("embedding", folder)


def test_weights_with_a_hole_are_refused(ask, model_copy):
    """What was never written is zeros, and half of the model would be dead."""
    folder = model_copy("blip")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    middle = len(whole) // 2
    weights.write_bytes(whole[:middle] + bytes(20_000) + whole[middle + 20_000 :])
    with pytest.raises(NotReadyError, match=r"model\.safetensors has a hole of .* zeros") as caught:
        ask("caption", folder)
    assert caught.value.code == "incomplete"


LEFT = {
    "clip": {
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
        "text_model.encoder.layers.0.ids": torch.arange(3),
    },
    "siglip": {"classifier.weight": torch.ones(2, 32), "classifier.bias": torch.ones(2)},
    "blip": {
        "text_encoder.encoder.layer.0.output.dense.weight": torch.ones(8, 8),
        "itm_head.weight": torch.ones(2, 32),
        "text_decoder.bert.embeddings.position_ids": torch.arange(64)[None],
        "vision_model.embeddings.mask_token": torch.ones(1, 1, 32),
    },
    "llava": {
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "vision_tower.vision_model.head.attention.in_proj_weight": torch.ones(8, 8),
    },
    "detr": {
        "mask_head.lay1.weight": torch.ones(8, 8, 3, 3),
        "bbox_attention.q_linear.weight": torch.ones(16, 16),
        "model.backbone.conv_encoder.model.layer1.0.downsample.1.num_batches_tracked": torch.tensor(7),
    },
    "grounding_dino": {"model.text_backbone.pooler.dense.weight": torch.ones(32, 32)},
    "owlv2": {"owlv2.text_model.embeddings.position_ids": torch.arange(16)[None]},
}
"""What published weights may hold beside the model that is made of them: the head for another task, a part that this
task does not need, what was computed and saved by an older version."""


@pytest.mark.parametrize("kind", LEFT)
def test_what_belongs_to_no_part_of_the_model_may_be_left(ask, model_copy, kind):
    """It changes no answer."""
    folder = model_copy(kind)
    reweigh(folder, lambda tensors: tensors.update(LEFT[kind]))
    ask(FEWER[kind][0], folder)
