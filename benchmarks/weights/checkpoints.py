"""Checkpoints that hold all of a published model but what it has learned.

This module decides which architectures there are and what their folders contain: safetensors, processor and tokenizer,
as their publishers save them. It must not know who runs them. The numbers are the published hyper-parameters.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from vision_backends import InvalidRequestError
from vision_backends.backends.model_cards import coco_categories

from .vocabularies import byte_pairs, word_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from transformers import PreTrainedModel

__all__ = ["ROLES", "Role", "build_model", "make_checkpoint"]

Role = Literal["caption", "embedding", "detection", "detection-rtdetr"]
"""Like the keys of ``[local]``; the second detector is what others compare themselves with."""

ROLES: tuple[Role, ...] = get_args(Role)

LEVELS: dict[str, Any] = {"out_features": ["stage2", "stage3", "stage4"]}
"""What a detector looks at of its backbone: 1/8, 1/16 and 1/32 of the image's resolution."""


def make_checkpoint(role: Role, folder: Path, *, seed: int) -> Path:
    """Write a checkpoint with random weights at its true size, and return its folder.

    Args:
        role: Which one: BLIP-base, CLIP ViT-B/32 as sentence-transformers keeps it, D-FINE-S or RT-DETRv2-R18.
        folder: Where it is written; made if it is not there. The largest takes 0.9 GB.
        seed: Of the weights.

    Raises:
        InvalidRequestError: There is no such role.
    """
    if role not in ROLES:
        raise InvalidRequestError(f"There is no model for {role!r}.", remedy=f"Roles: {', '.join(ROLES)}.")
    import torch

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = build_model(role).train(mode=False)
        if role.startswith("detection"):
            _let_see(model)
    inner = folder
    if role == "embedding":
        inner = folder / "0_CLIPModel"
        inner.mkdir(parents=True, exist_ok=True)
        _write_modules(folder, inner.name)
    with _without_bars():
        for part in (model, *_processors(role)):
            part.save_pretrained(inner)
    return folder


def build_model(role: Role) -> PreTrainedModel:
    """Return the architecture with random weights on torch's current device and generator."""
    makers: dict[Role, Callable[[], PreTrainedModel]] = {
        "caption": _blip_base,
        "embedding": _clip_vit_b_32,
        "detection": _dfine_small,
        "detection-rtdetr": _rtdetr_v2_r18,
    }
    return makers[role]()


def _blip_base() -> PreTrainedModel:
    """Source: https://github.com/salesforce/BLIP, configs/caption_coco.yaml and configs/med_config.json."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    text = {"num_attention_heads": 12, "eos_token_id": 102}  # [SEP] ends a caption
    vision = {"image_size": 384, "initializer_range": 0.02}  # else the image would play no part in the words
    return BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))


def _clip_vit_b_32() -> PreTrainedModel:
    """Source: https://arxiv.org/abs/2103.00020, table 20; it is what transformers builds by default."""
    from transformers import CLIPConfig, CLIPModel

    marks = {"bos_token_id": 49_406, "eos_token_id": 49_407}
    return CLIPModel(CLIPConfig(text_config=marks, vision_config={"patch_size": 32}))


def _dfine_small() -> PreTrainedModel:
    """Source: https://github.com/Peterande/D-FINE, configs/dfine/dfine_hgnetv2_s_coco.yml with HGNetv2-B0."""
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

    backbone = HGNetV2Config(
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[3, 3, 3, 3],
        hidden_sizes=[128, 256, 512, 1024],
        embedding_size=32,
        use_learnable_affine_block=True,
        **LEVELS,
    )
    config = DFineConfig(
        backbone_config=backbone,
        encoder_in_channels=[256, 512, 1024],
        hidden_expansion=0.5,
        depth_mult=0.34,
        decoder_layers=3,
        decoder_n_points=[3, 6, 3],
        **_coco_labels(),
    )
    return DFineForObjectDetection(config)


def _rtdetr_v2_r18() -> PreTrainedModel:
    """Source: https://github.com/lyuwenyu/RT-DETR, rtdetrv2_pytorch/configs/rtdetrv2/rtdetrv2_r18vd_120e_coco.yml."""
    from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

    backbone = RTDetrResNetConfig(
        layer_type="basic",
        depths=[2, 2, 2, 2],
        hidden_sizes=[64, 128, 256, 512],
        **LEVELS,
    )
    config = RTDetrV2Config(
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512],
        hidden_expansion=0.5,
        decoder_layers=3,
        **_coco_labels(),
    )
    return RTDetrV2ForObjectDetection(config)


def _let_see(model: PreTrainedModel) -> None:
    """Let what a detector sees depend on the picture, as of one that has learned.

    Normalisation as it is initialised lets every picture fade away in the backbone: all queries would be alike, and
    rounding would choose among them. So each layer gets the mean and variance that it meets in one picture of noise.
    """
    import torch

    def meet(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:  # noqa: ANN401 — torch has no types
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)

    layers = [layer for layer in model.modules() if hasattr(layer, "running_mean")]
    hooks = [layer.register_forward_pre_hook(meet) for layer in layers]
    with torch.no_grad():
        model(pixel_values=torch.rand(1, 3, 640, 640))
    for hook in hooks:
        hook.remove()


def _coco_labels() -> dict[str, Any]:
    words = dict(enumerate(coco_categories()))
    return {"id2label": words, "label2id": {word: number for number, word in words.items()}}


def _processors(role: Role) -> tuple[Any, ...]:
    """Return what prepares images and texts for a model, as it is published with it."""
    import transformers

    if role == "caption":
        return transformers.BlipImageProcessorPil(size={"height": 384, "width": 384}), word_pieces()
    if role == "embedding":
        return transformers.CLIPImageProcessorPil(size={"shortest_edge": 224}), byte_pairs()
    return (transformers.RTDetrImageProcessorPil(size={"height": 640, "width": 640}),)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers from showing its progress."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers'
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _write_modules(folder: Path, inner: str) -> None:
    """Write what makes a folder one of sentence-transformers."""
    module = {"idx": 0, "name": "0", "path": inner, "type": "sentence_transformers.models.CLIPModel"}
    (folder / "modules.json").write_text(json.dumps([module]), encoding="utf-8")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"__version__": {}}), encoding="utf-8")
