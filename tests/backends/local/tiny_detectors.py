"""Tiny models that find things, with random weights, saved as their publishers save real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tiny
import torch
import transformers as tf

if TYPE_CHECKING:
    from pathlib import Path

COCO = {0: "person", 1: "motorbike", 2: "sofa", 3: "dog", 4: "tvmonitor"}


def _labels() -> dict:
    return {"id2label": COCO, "label2id": {word: number for number, word in COCO.items()}}


def _resnet(kind: type, **more):
    return kind(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
        **more,
    )


def detr(folder: Path) -> Path:
    """DETR, which keeps the image's aspect ratio and has a class for nothing."""
    torch.manual_seed(6)
    config = tf.DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        use_pretrained_backbone=False,
        backbone_config=tf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
        ),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=6,
        **_labels(),
    )
    processor = tf.DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    return tiny.saved(folder, tf.DetrForObjectDetection(config).eval(), processor)


def _rt_sizes() -> dict:
    return {
        "encoder_hidden_dim": 16,
        "encoder_in_channels": [8, 16, 16],
        "feat_strides": [8, 16, 32],
        "encoder_layers": 1,
        "encoder_ffn_dim": 16,
        "encoder_attention_heads": 2,
        "d_model": 16,
        "num_queries": 10,
        "decoder_in_channels": [16, 16, 16],
        "decoder_ffn_dim": 16,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "num_denoising": 0,
        "use_pretrained_backbone": False,
        **_labels(),
    }


def rt_detr_v2(folder: Path) -> Path:
    """RT-DETRv2."""
    torch.manual_seed(7)
    config = tf.RTDetrV2Config(backbone_config=_resnet(tf.RTDetrResNetConfig, layer_type="basic"), **_rt_sizes())
    processor = tf.RTDetrImageProcessorPil(size={"height": 64, "width": 64})
    return tiny.saved(folder, tf.RTDetrV2ForObjectDetection(config).eval(), processor)


def d_fine(folder: Path) -> Path:
    """D-FINE."""
    torch.manual_seed(8)
    backbone = tf.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 8, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 8, 16, 16],
        stage_num_blocks=[1, 1, 1, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, False, False],
        stage_kernel_size=[3, 3, 3, 3],
        stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        embedding_size=8,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = tf.DFineConfig(backbone_config=backbone, **_rt_sizes())
    processor = tf.RTDetrImageProcessorPil(size={"height": 64, "width": 64})
    return tiny.saved(folder, tf.DFineForObjectDetection(config).eval(), processor)


def grounding_dino(folder: Path) -> Path:
    """Grounding DINO, which finds what a text names."""
    torch.manual_seed(9)
    tokenizer = tiny.bert_tokenizer()
    config = tf.GroundingDinoConfig(
        backbone_config=tf.SwinConfig(
            image_size=64,
            patch_size=4,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 1, 1],
            window_size=4,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=tf.BertConfig(**tiny.text(vocab_size=len(tokenizer))),
        d_model=32,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        num_queries=8,
        max_text_len=32,
        num_feature_levels=4,
    )
    processor = tf.GroundingDinoImageProcessorPil(size={"shortest_edge": 128, "longest_edge": 192})
    return tiny.saved(folder, tf.GroundingDinoForObjectDetection(config).eval(), processor, tokenizer)


def owlv2(folder: Path) -> Path:
    """OWLv2, which does so with one vector per label."""
    torch.manual_seed(10)
    tokenizer = tiny.clip_tokenizer()
    config = tf.Owlv2Config(
        text_config=tiny.text(
            vocab_size=len(tokenizer),
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=0,
        ),
        vision_config=tiny.vision(),
        projection_dim=32,
    )
    processor = tf.Owlv2ImageProcessorPil(size={"height": 32, "width": 32})
    return tiny.saved(folder, tf.Owlv2ForObjectDetection(config).eval(), processor, tokenizer)


MAKERS = {maker.__name__: maker for maker in (detr, rt_detr_v2, d_fine, grounding_dino, owlv2)}
