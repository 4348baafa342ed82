"""Tiny models with random weights, saved as their publishers save real ones: safetensors, processor, tokenizer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,?!-", "red", "bicycle", "cat", "dog", "two", "cats", "snow", "scooter"]
COCO = {0: "person", 1: "motorbike", 2: "sofa", 3: "dog", 4: "tvmonitor"}


def _vision(**more) -> dict:
    return {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        **more,
    }


def _text(**more) -> dict:
    return {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        **more,
    }


def _clip_tokenizer() -> tf.PreTrainedTokenizerBase:
    special = ["<|startoftext|>", "<|endoftext|>"]
    pieces = [*WORDS, *(f"{word}</w>" for word in WORDS)]
    vocab = {piece: number for number, piece in enumerate([*pieces, *special])}
    return tf.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16)


def _bert_tokenizer(**more) -> tf.PreTrainedTokenizerBase:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *WORDS, *(f"##{word}" for word in WORDS)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return tf.BertTokenizer(vocab=vocab, **more)


def _word_tokenizer(*extra: str) -> tf.PreTrainedTokenizerBase:
    special = ["<pad>", "<s>", "</s>", "<unk>", *extra]
    vocab = {word: number for number, word in enumerate([*special, *WORDS])}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))  # noqa: S106 — no password
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=False))
    made = tf.PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    made.add_special_tokens({"additional_special_tokens": list(extra)})
    return made


def _saved(folder: Path, *parts) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    """CLIP as its own checkpoint."""
    torch.manual_seed(1)
    tokenizer = _clip_tokenizer()
    config = tf.CLIPConfig(
        text_config=_text(
            vocab_size=len(tokenizer),
            max_position_embeddings=16,
            projection_dim=24,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=_vision(projection_dim=24),
        projection_dim=24,
    )
    processor = tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return _saved(folder, tf.CLIPModel(config).eval(), processor, tokenizer)


def sentence_clip(folder: Path) -> Path:
    """The same in the layout of sentence-transformers' clip-ViT-B-32, with its old processor and tokenizer files."""
    inner = clip(folder / "0_CLIPModel")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (folder / "modules.json").write_text(json.dumps([module]))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"__version__": {}}))
    new = json.loads((inner / "preprocessor_config.json").read_text())
    old = {key: value for key, value in new.items() if key.startswith(("do_", "image_m", "image_s", "resample"))}
    kind = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32}
    (inner / "preprocessor_config.json").write_text(json.dumps(old | kind))
    vocab = json.loads((inner / "tokenizer.json").read_text())["model"]["vocab"]
    (inner / "tokenizer.json").unlink()
    (inner / "vocab.json").write_text(json.dumps(vocab))
    (inner / "merges.txt").write_text("#version: 0.2\n")
    return folder


def siglip(folder: Path) -> Path:
    """SigLIP, whose texts are padded to one length."""
    torch.manual_seed(2)
    tokenizer = _word_tokenizer()
    tokenizer.model_max_length = 12
    config = tf.SiglipConfig(
        text_config=_text(vocab_size=len(tokenizer), max_position_embeddings=12, projection_size=32),
        vision_config=_vision(),
    )
    processor = tf.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return _saved(folder, tf.SiglipModel(config).eval(), processor, tokenizer)


def siglip2(folder: Path) -> Path:
    """SigLIP 2 with patches of the image's own aspect ratio."""
    torch.manual_seed(3)
    tokenizer = _word_tokenizer()
    tokenizer.model_max_length = 12
    config = tf.Siglip2Config(
        text_config=_text(vocab_size=len(tokenizer), max_position_embeddings=12, projection_size=32),
        vision_config=_vision(num_patches=16),
    )
    processor = tf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return _saved(folder, tf.Siglip2Model(config).eval(), processor, tokenizer)


def blip_model(
    *, seed: int = 4, std: float = 0.02, vision: dict | None = None, **text
) -> tf.BlipForConditionalGeneration:
    """BLIP as a model alone.

    Args:
        seed: Of its weights.
        std: How widely they are spread; 0.3 makes it say different things of different images.
        vision: What differs in its vision tower.
        text: What differs in its text decoder.
    """
    torch.manual_seed(seed)
    tokenizer = _bert_tokenizer()
    config = tf.BlipConfig(
        text_config=_text(
            vocab_size=len(tokenizer),
            max_position_embeddings=64,
            initializer_range=std,
            bos_token_id=tokenizer.convert_tokens_to_ids("[MASK]"),
            pad_token_id=tokenizer.pad_token_id,
            sep_token_id=tokenizer.sep_token_id,
            eos_token_id=tokenizer.sep_token_id,
        )
        | text,
        vision_config=_vision(initializer_range=std) | (vision or {}),
        projection_dim=24,
        initializer_range=std,
    )
    return tf.BlipForConditionalGeneration(config).eval()


def blip(folder: Path) -> Path:
    """BLIP for captions."""
    processor = tf.BlipImageProcessorPil(size={"height": 32, "width": 32})
    return _saved(folder, blip_model(), processor, _bert_tokenizer())


def llava(folder: Path) -> Path:
    """A model that follows instructions, with a chat template."""
    torch.manual_seed(5)
    tokenizer = _word_tokenizer("<image>")
    config = tf.LlavaConfig(
        text_config=tf.LlamaConfig(**_text(vocab_size=len(tokenizer), max_position_embeddings=256)),
        vision_config=tf.CLIPVisionConfig(**_vision()),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}"
        "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    processor = tf.LlavaProcessor(
        image_processor=tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return _saved(folder, tf.LlavaForConditionalGeneration(config).eval(), processor)


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
    return _saved(folder, tf.DetrForObjectDetection(config).eval(), processor)


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
    return _saved(folder, tf.RTDetrV2ForObjectDetection(config).eval(), processor)


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
    return _saved(folder, tf.DFineForObjectDetection(config).eval(), processor)


def grounding_dino(folder: Path) -> Path:
    """Grounding DINO, which finds what a text names."""
    torch.manual_seed(9)
    tokenizer = _bert_tokenizer()
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
        text_config=tf.BertConfig(**_text(vocab_size=len(tokenizer))),
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
    return _saved(folder, tf.GroundingDinoForObjectDetection(config).eval(), processor, tokenizer)


def owlv2(folder: Path) -> Path:
    """OWLv2, which does so with one vector per label."""
    torch.manual_seed(10)
    tokenizer = _clip_tokenizer()
    config = tf.Owlv2Config(
        text_config=_text(
            vocab_size=len(tokenizer),
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=0,
        ),
        vision_config=_vision(),
        projection_dim=32,
    )
    processor = tf.Owlv2ImageProcessorPil(size={"height": 32, "width": 32})
    return _saved(folder, tf.Owlv2ForObjectDetection(config).eval(), processor, tokenizer)


MAKERS = {
    maker.__name__: maker
    for maker in (clip, sentence_clip, siglip, siglip2, blip, llava, detr, rt_detr_v2, d_fine, grounding_dino, owlv2)
}
