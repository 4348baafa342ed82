"""Tiny models that find things, with random weights, saved as their publishers save real ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import tiny
import torch
import transformers as tf

if TYPE_CHECKING:
    from pathlib import Path

COCO = {0: "person", 1: "motorbike", 2: "sofa", 3: "dog", 4: "tvmonitor"}


SCALES = {
    "box_head": 0.1,
    "class_head": 0.3,
    "detection_tokens": 40,
    "patch_embeddings": 40,
    "vit.": 6,
    "query": 8,
    "class": 5,
    "bbox": 5,
}
"""By how much the random weights of parts are scaled, so that neither queries nor pictures are all alike."""


def _awake(model):
    """Let what begins at nought, to be learned, take part: otherwise boxes would stay where they were guessed first."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                if not parameter.any():
                    parameter.normal_(std=0.3)
                parameter.mul_(next((scale for part, scale in SCALES.items() if part in name), 1.5))
    return model.eval()


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


def _detr_sizes() -> dict:
    return {
        "backbone_config": tf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
        ),
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "num_queries": 6,
        **_labels(),
    }


RATIO = {"shortest_edge": 64, "longest_edge": 96}
"""How DETR and its kin scale pictures: in their own aspect ratio."""


def detr(folder: Path) -> Path:
    """DETR, which keeps the image's aspect ratio and has a class for nothing."""
    torch.manual_seed(6)
    model = _awake(tf.DetrForObjectDetection(tf.DetrConfig(d_model=16, **_detr_sizes())))
    return tiny.saved(folder, model, tf.DetrImageProcessorPil(size=RATIO))


def conditional_detr(folder: Path) -> Path:
    """Conditional DETR, whose classes exclude nothing."""
    torch.manual_seed(41)
    config = tf.ConditionalDetrConfig(d_model=16, **_detr_sizes())
    model = _awake(tf.ConditionalDetrForObjectDetection(config))
    return tiny.saved(folder, model, tf.ConditionalDetrImageProcessorPil(size=RATIO))


def table_transformer(folder: Path) -> Path:
    """Table Transformer, a DETR for tables."""
    torch.manual_seed(47)
    config = tf.TableTransformerConfig(d_model=16, **_detr_sizes())
    model = _awake(tf.TableTransformerForObjectDetection(config))
    return tiny.saved(folder, model, tf.DetrImageProcessorPil(size=RATIO))


def deformable_detr(folder: Path) -> Path:
    """Deformable DETR, which looks at few places."""
    torch.manual_seed(42)
    config = tf.DeformableDetrConfig(d_model=32, num_feature_levels=2, **_detr_sizes())
    model = _awake(tf.DeformableDetrForObjectDetection(config))
    return tiny.saved(
        folder, model, tf.DeformableDetrImageProcessorPil(size={"shortest_edge": 128, "longest_edge": 192})
    )


def yolos(folder: Path) -> Path:
    """YOLOS, a plain transformer with tokens for objects."""
    torch.manual_seed(43)
    config = tf.YolosConfig(**tiny.vision(image_size=[64, 96]), num_detection_tokens=6, **_labels())
    model = _awake(tf.YolosForObjectDetection(config))
    return tiny.saved(folder, model, tf.YolosImageProcessorPil(size=RATIO))


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


def rt_detr(folder: Path) -> Path:
    """The first RT-DETR."""
    torch.manual_seed(44)
    config = tf.RTDetrConfig(backbone_config=_resnet(tf.RTDetrResNetConfig, layer_type="basic"), **_rt_sizes())
    processor = tf.RTDetrImageProcessorPil(size={"height": 64, "width": 64})
    return tiny.saved(folder, _awake(tf.RTDetrForObjectDetection(config)), processor)


def rt_detr_v2(folder: Path) -> Path:
    """RT-DETRv2."""
    torch.manual_seed(7)
    config = tf.RTDetrV2Config(backbone_config=_resnet(tf.RTDetrResNetConfig, layer_type="basic"), **_rt_sizes())
    processor = tf.RTDetrImageProcessorPil(size={"height": 64, "width": 64})
    return tiny.saved(folder, _awake(tf.RTDetrV2ForObjectDetection(config)), processor)


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
    return tiny.saved(folder, _awake(tf.DFineForObjectDetection(config)), processor)


def rf_detr(folder: Path) -> Path:
    """RF-DETR, whose pictures are scaled without smoothing."""
    torch.manual_seed(45)
    config = tf.RfDetrConfig(
        backbone_config=tf.RfDetrDinov2Config(
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            mlp_ratio=2,
            image_size=64,
            patch_size=8,
            num_windows=2,
            out_features=["stage2", "stage4"],
        ),
        d_model=16,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=10,
        group_detr=2,
        **_labels(),
    )
    tiny.saved(folder, _awake(tf.RfDetrForObjectDetection(config)))
    settings = {
        "image_processor_type": "RfDetrImageProcessor",
        "size": {"height": 64, "width": 64},
        "resample": 2,
        "rescale_factor": 1 / 255,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "do_pad": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def lw_detr(folder: Path) -> Path:
    """LW-DETR, from which RF-DETR comes."""
    torch.manual_seed(46)
    config = tf.LwDetrConfig(
        backbone_config=tf.LwDetrViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            mlp_ratio=2,
            image_size=64,
            pretrain_image_size=64,
            patch_size=8,
            num_windows=4,
            window_block_indices=[0],
            out_indices=[1, 2],
        ),
        projector_scale_factors=[1.0],
        d_model=16,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=10,
        group_detr=2,
        **_labels(),
    )
    processor = tf.DeformableDetrImageProcessorPil(size={"height": 64, "width": 64})
    return tiny.saved(folder, _awake(tf.LwDetrForObjectDetection(config)), processor)


def _grounded(folder: Path, kind: str) -> Path:
    tokenizer = tiny.bert_tokenizer()
    config = getattr(tf, f"{kind}Config")(
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
    model = _awake(getattr(tf, f"{kind}ForObjectDetection")(config))
    return tiny.saved(folder, model, processor, tokenizer)


def grounding_dino(folder: Path) -> Path:
    """Grounding DINO, which finds what a text names."""
    torch.manual_seed(9)
    return _grounded(folder, "GroundingDino")


def mm_grounding_dino(folder: Path) -> Path:
    """MM Grounding DINO, which was trained anew in the open."""
    torch.manual_seed(47)
    return _grounded(folder, "MMGroundingDino")


def _owl(folder: Path, kind: str) -> Path:
    tokenizer = tiny.clip_tokenizer()
    config = getattr(tf, f"{kind}Config")(
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
    processor = getattr(tf, f"{kind}ImageProcessorPil")(size={"height": 32, "width": 32})
    model = _awake(getattr(tf, f"{kind}ForObjectDetection")(config))
    return tiny.saved(folder, model, processor, tokenizer)


def owlv2(folder: Path) -> Path:
    """OWLv2, which has one vector per label, and sees pictures padded to a square."""
    torch.manual_seed(10)
    return _owl(folder, "Owlv2")


def owlvit(folder: Path) -> Path:
    """OWL-ViT, which sees them squeezed into one."""
    torch.manual_seed(48)
    return _owl(folder, "OwlViT")


MAKERS = {
    maker.__name__: maker
    for maker in (
        detr,
        conditional_detr,
        table_transformer,
        deformable_detr,
        yolos,
        rt_detr,
        rt_detr_v2,
        d_fine,
        rf_detr,
        lw_detr,
        grounding_dino,
        mm_grounding_dino,
        owlv2,
        owlvit,
    )
}
