"""Tiny models with random weights, saved as their publishers save real ones: safetensors, processor, tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,?!-", "red", "bicycle", "cat", "dog", "two", "cats", "snow", "scooter"]


def vision(**more) -> dict:
    """Return sizes of a tower for pictures."""
    return {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        **more,
    }


def text(**more) -> dict:
    """Return sizes of a tower for texts."""
    return {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        **more,
    }


def clip_tokenizer() -> tf.PreTrainedTokenizerBase:
    """Return one of CLIP's kind."""
    special = ["<|startoftext|>", "<|endoftext|>"]
    pieces = [*WORDS, *(f"{word}</w>" for word in WORDS)]
    vocab = {piece: number for number, piece in enumerate([*pieces, *special])}
    return tf.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=21)


def bert_tokenizer(**more) -> tf.PreTrainedTokenizerBase:
    """Return one of BERT's kind."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *WORDS, *(f"##{word}" for word in WORDS)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return tf.BertTokenizer(vocab=vocab, **more)


def word_tokenizer(*extra: str, template: str | None = None) -> tf.PreTrainedTokenizerBase:
    """Return one that spells the words it does not know; a template puts the marks around a text."""
    special = ["<pad>", "<s>", "</s>", "<unk>", *extra]
    vocab = {word: number for number, word in enumerate([*special, *WORDS, *(f"##{word}" for word in WORDS)])}
    raw = Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))  # noqa: S106 — no password
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.decoder = decoders.WordPiece()
    if template is not None:
        raw.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=False))
    if "<image>" in extra:
        names["extra_special_tokens"] = {"image_token": "<image>"}
    made = tf.PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    made.add_special_tokens({"additional_special_tokens": list(extra)})
    return made


def ends(tokenizer: tf.PreTrainedTokenizerBase) -> dict:
    """Return the numbers of the tokens that fill, begin and end a text."""
    return {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}


def decisive(model):
    """Scale random weights up, so that another picture gets another answer."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(50.0 if parameter.ndim == 4 else 15.0)
    return model.eval()


def saved(folder: Path, *parts) -> Path:
    """Write the parts of a checkpoint into a folder, and return that."""
    for part in parts:
        part.save_pretrained(folder)
    return folder


def blip_model(
    *, seed: int = 4, std: float = 0.02, vision_changes: dict | None = None, **changes
) -> tf.BlipForConditionalGeneration:
    """BLIP as a model alone.

    Args:
        seed: Of its weights.
        std: How widely they are spread; 0.3 makes it say different things of different images.
        vision_changes: What differs in its vision tower.
        changes: What differs in its text decoder.
    """
    torch.manual_seed(seed)
    tokenizer = bert_tokenizer()
    config = tf.BlipConfig(
        text_config=text(
            vocab_size=len(tokenizer),
            max_position_embeddings=64,
            initializer_range=std,
            bos_token_id=tokenizer.convert_tokens_to_ids("[MASK]"),
            pad_token_id=tokenizer.pad_token_id,
            sep_token_id=tokenizer.sep_token_id,
            eos_token_id=tokenizer.sep_token_id,
        )
        | changes,
        vision_config=vision(initializer_range=std) | (vision_changes or {}),
        projection_dim=24,
        initializer_range=std,
    )
    return tf.BlipForConditionalGeneration(config).eval()


def blip(folder: Path) -> Path:
    """BLIP for captions."""
    processor = tf.BlipImageProcessorPil(size={"height": 32, "width": 32})
    return saved(folder, decisive(blip_model()), processor, bert_tokenizer())


def blip_that_says(folder: Path, words: list[str]) -> Path:
    """BLIP that says these words of its tokenizer, one after the other, whatever it sees, and then ends."""
    tokenizer, model = bert_tokenizer(), blip_model()
    said, size = tokenizer.convert_tokens_to_ids(words), model.config.text_config.hidden_size
    bert, head = model.text_decoder.bert, model.text_decoder.cls.predictions
    with torch.no_grad():  # what is computed depends on the place only, and the head reads it off
        for layer in bert.encoder.layer:
            for part in (layer.attention.output.dense, layer.crossattention.output.dense, layer.output.dense):
                part.weight.zero_()
                part.bias.zero_()
        bert.embeddings.word_embeddings.weight.zero_()
        bert.embeddings.position_embeddings.weight.copy_(torch.eye(size).repeat(2, 1)[:64] * 30.0)
        head.transform.dense.weight.copy_(torch.eye(size))
        head.transform.dense.bias.zero_()
        columns = torch.zeros(len(tokenizer), size)
        for place in range(size):
            columns[said[place] if place < len(said) else tokenizer.sep_token_id, place] = 10.0
        head.decoder.weight = torch.nn.Parameter(columns)
        head.bias.zero_()
        head.decoder.bias = torch.nn.Parameter(torch.zeros(len(tokenizer)))
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    return saved(folder, model, tf.BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer)


def llava(folder: Path) -> Path:
    """A model that follows instructions, with a chat template."""
    torch.manual_seed(5)
    tokenizer = word_tokenizer("<image>")
    config = tf.LlavaConfig(
        text_config=tf.LlamaConfig(**text(vocab_size=len(tokenizer), max_position_embeddings=256)),
        vision_config=tf.CLIPVisionConfig(**vision()),
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
    return saved(folder, decisive(tf.LlavaForConditionalGeneration(config)), processor)


def blip_of_two_cats(folder: Path) -> Path:
    """BLIP that says two words and ends; one of random weights goes on for ever."""
    return blip_that_says(folder, ["two", "cats"])


MAKERS = {maker.__name__: maker for maker in (blip, blip_of_two_cats, llava)}
