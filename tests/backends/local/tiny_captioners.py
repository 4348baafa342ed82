"""Tiny models that describe, beside those of `tiny`: other BLIPs, Florence-2, and followers of instructions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import tiny
import torch
import transformers as tf

if TYPE_CHECKING:
    from pathlib import Path

CHAT = (
    "{%- for m in messages %}{{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE {% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}- {% endif %}"
)
"""A chat template; IMAGE stands for what a family puts in an image's place."""


def _configure(folder: Path, name: str, **more) -> None:
    """Add to a JSON file of a checkpoint, as its publisher has done."""
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | more))


def blip_large(folder: Path) -> Path:
    """BLIP whose two halves are of unequal size."""
    torch.manual_seed(21)
    tokenizer = tiny.bert_tokenizer()
    config = tf.BlipConfig(
        text_config=tiny.text(
            vocab_size=len(tokenizer),
            max_position_embeddings=64,
            encoder_hidden_size=48,
            bos_token_id=tokenizer.convert_tokens_to_ids("[MASK]"),
            pad_token_id=tokenizer.pad_token_id,
            sep_token_id=tokenizer.sep_token_id,
            eos_token_id=tokenizer.sep_token_id,
        ),
        vision_config=tiny.vision(hidden_size=48, num_hidden_layers=3, initializer_range=0.02),
        projection_dim=24,
        image_text_hidden_size=24,
    )
    processor = tf.BlipImageProcessorPil(size={"height": 32, "width": 32})
    return tiny.saved(folder, tiny.decisive(tf.BlipForConditionalGeneration(config)), processor, tokenizer)


def _blip2(folder: Path, text_config, tokenizer) -> Path:
    config = tf.Blip2Config(
        vision_config=tiny.vision(initializer_range=0.02),
        qformer_config=tiny.text(encoder_hidden_size=32, vocab_size=len(tokenizer)),
        text_config=text_config,
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = tf.BlipImageProcessorPil(size={"height": 32, "width": 32})
    processor = tf.Blip2Processor(images, tokenizer, num_query_tokens=4)
    return tiny.saved(folder, tiny.decisive(tf.Blip2ForConditionalGeneration(config)), processor)


def blip2_opt(folder: Path) -> Path:
    """BLIP-2 before a language model that only goes on."""
    torch.manual_seed(22)
    tokenizer = tiny.word_tokenizer("<image>")
    sizes = {"vocab_size": len(tokenizer), "word_embed_proj_dim": 32, "ffn_dim": 37, "max_position_embeddings": 80}
    return _blip2(folder, tf.OPTConfig(**tiny.text(**sizes), **tiny.ends(tokenizer)), tokenizer)


def blip2_t5(folder: Path) -> Path:
    """BLIP-2 before a language model that reads first."""
    torch.manual_seed(23)
    tokenizer = tiny.word_tokenizer("<image>")
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    return _blip2(folder, tf.T5Config(vocab_size=len(tokenizer), **sizes, **tiny.ends(tokenizer)), tokenizer)


def florence2(folder: Path) -> Path:
    """Florence-2 in transformers' own format."""
    torch.manual_seed(24)
    tokenizer = tiny.word_tokenizer("<image>", template="<s> $0 </s>")
    config = tf.Florence2Config(
        vision_config={
            "depths": (1, 1, 1, 1),
            "embed_dim": (8, 8, 16, 16),
            "num_heads": (1, 1, 2, 2),
            "num_groups": (1, 1, 2, 2),
            "window_size": 4,
            "projection_dim": 32,
        },
        text_config=tf.BartConfig(
            vocab_size=len(tokenizer),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=37,
            decoder_ffn_dim=37,
            max_position_embeddings=320,
            decoder_start_token_id=2,
            forced_eos_token_id=2,
            **tiny.ends(tokenizer),
        ),
        image_token_id=tokenizer.image_token_id,
        **tiny.ends(tokenizer),
    )
    images = tf.CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    model = tiny.decisive(tf.Florence2ForConditionalGeneration(config))
    model.generation_config.update(num_beams=3, no_repeat_ngram_size=3, forced_bos_token_id=1)
    return tiny.saved(folder, model, tf.Florence2Processor(images, tokenizer))


def _llama(tokenizer, **more) -> dict:
    return tiny.text(vocab_size=len(tokenizer), max_position_embeddings=4096, **tiny.ends(tokenizer), **more)


def _idefics(folder: Path, tokenizer, kind: str) -> Path:
    config = getattr(tf, f"{kind}Config")(
        vision_config=tiny.vision(),
        text_config=tf.LlamaConfig(**_llama(tokenizer)),
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        **tiny.ends(tokenizer),
    )
    model = tiny.decisive(getattr(tf, f"{kind}ForConditionalGeneration")(config))
    images = getattr(tf, f"{kind}ImageProcessorPil")(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    tiny.saved(folder, model, images, tokenizer)
    _configure(folder, "preprocessor_config.json", processor_class=f"{kind}Processor")
    _configure(folder, "processor_config.json", processor_class=f"{kind}Processor", image_seq_len=4)
    (folder / "chat_template.jinja").write_text(CHAT.replace("IMAGE", "<image>"))
    return folder


IDEFICS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
CELLS = tuple(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))


def idefics3(folder: Path) -> Path:
    """Idefics 3, which is what the first SmolVLMs are too: pictures cut into tiles."""
    torch.manual_seed(25)
    return _idefics(folder, tiny.word_tokenizer(*IDEFICS, *CELLS), "Idefics3")


def smolvlm(folder: Path) -> Path:
    """SmolVLM 2, which knows videos as well."""
    torch.manual_seed(26)
    return _idefics(folder, tiny.word_tokenizer(*IDEFICS, *CELLS), "SmolVLM")


QWEN = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_end|>")


def _qwen(folder: Path, kind: str, vision: dict, text: dict) -> Path:
    tokenizer = tiny.word_tokenizer(*QWEN)
    numbers = dict(zip(QWEN, tokenizer.convert_tokens_to_ids(list(QWEN)), strict=True))
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = getattr(tf, f"{kind}Config")(
        vision_config={"depth": 2, "num_heads": 4, "patch_size": 8, **vision},
        text_config=_llama(tokenizer, num_key_value_heads=2, rope_parameters=rope, **text),
        image_token_id=numbers["<|image_pad|>"],
        video_token_id=numbers["<|video_pad|>"],
        vision_start_token_id=numbers["<|vision_start|>"],
        vision_end_token_id=numbers["<|vision_end|>"],
    )
    model = tiny.decisive(getattr(tf, f"{kind}ForConditionalGeneration")(config))
    images = tf.Qwen2VLImageProcessorPil(patch_size=8, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64})
    tiny.saved(folder, model, images, tokenizer)
    _configure(folder, "preprocessor_config.json", processor_class=f"{kind}Processor")
    (folder / "chat_template.jinja").write_text(CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"))
    return folder


def qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL, for which a picture has as many tokens as its size wants."""
    torch.manual_seed(27)
    return _qwen(folder, "Qwen2VL", {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}, {})


def qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL, which looks through windows."""
    torch.manual_seed(28)
    sizes = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 37, "window_size": 32}
    return _qwen(folder, "Qwen2_5_VL", {**sizes, "fullatt_block_indexes": [1]}, {})


def qwen3_vl(folder: Path) -> Path:
    """Qwen3-VL, which hands on what it saw at several depths."""
    torch.manual_seed(29)
    sizes = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 37, "num_position_embeddings": 16}
    return _qwen(folder, "Qwen3VL", {**sizes, "deepstack_visual_indexes": [0]}, {"head_dim": 8})


def llava_onevision(folder: Path) -> Path:
    """LLaVA-OneVision, which sees the whole and its parts."""
    torch.manual_seed(30)
    tokenizer = tiny.word_tokenizer("<image>", "<video>")
    image, video = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    grid = [[32, 32], [32, 64], [64, 32]]
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(**tiny.vision(vision_use_head=False)),
        text_config=tf.Qwen2Config(**_llama(tokenizer, num_key_value_heads=2)),
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=grid,
    )
    model = tiny.decisive(tf.LlavaOnevisionForConditionalGeneration(config))
    images = tf.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grid)
    tiny.saved(folder, model, images, tokenizer)
    _configure(folder, "preprocessor_config.json", processor_class="LlavaOnevisionProcessor")
    _configure(
        folder,
        "processor_config.json",
        processor_class="LlavaOnevisionProcessor",
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )
    (folder / "chat_template.jinja").write_text(CHAT.replace("IMAGE", "<image>"))
    return folder


MAKERS = {
    maker.__name__: maker
    for maker in (
        blip_large,
        blip2_opt,
        blip2_t5,
        florence2,
        idefics3,
        smolvlm,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        llava_onevision,
    )
}
