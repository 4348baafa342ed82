"""Tiny models with a tower for pictures and one for texts, saved as their publishers save real ones."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import sentencepiece
import tiny
import torch
import transformers as tf

if TYPE_CHECKING:
    from pathlib import Path


def clip(folder: Path) -> Path:
    """CLIP as its own checkpoint."""
    torch.manual_seed(1)
    tokenizer = tiny.clip_tokenizer()
    config = tf.CLIPConfig(
        text_config=tiny.text(
            vocab_size=len(tokenizer),
            max_position_embeddings=21,
            projection_dim=24,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=tiny.vision(projection_dim=24),
        projection_dim=24,
    )
    processor = tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return tiny.saved(folder, tf.CLIPModel(config).eval(), processor, tokenizer)


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


def sentencepiece_tokenizer(folder: Path) -> tf.PreTrainedTokenizerBase:
    """Return one of SigLIP's kind, whose vocabulary is learned in a moment."""
    learned = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny.WORDS * 4),
        model_writer=learned,
        vocab_size=60,
        hard_vocab_limit=False,
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        pad_id=-1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(learned.getvalue())
    return tf.SiglipTokenizer(vocab_file=str(folder / "spiece.model"), model_max_length=16)


def gemma_tokenizer() -> tf.PreTrainedTokenizerBase:
    """Return one of SigLIP 2's kind: Gemma's pieces, all in small letters."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {piece: number for number, piece in enumerate([*special, "▁", *"abcdefghijklmnopqrstuvwxyz,", "do", "▁c"])}
    merges = [("d", "o"), ("▁", "c")]
    return tf.Siglip2Tokenizer(vocab=vocab, merges=merges, model_max_length=16, padding_side="right")


def _siglip(folder: Path, tokenizer) -> Path:
    config = tf.SiglipConfig(
        text_config=tiny.text(vocab_size=len(tokenizer), max_position_embeddings=16, projection_size=32),
        vision_config=tiny.vision(),
    )
    processor = tf.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return tiny.saved(folder, tf.SiglipModel(config).eval(), processor, tokenizer)


def siglip(folder: Path) -> Path:
    """SigLIP, whose texts are padded to one length."""
    torch.manual_seed(2)
    return _siglip(folder, sentencepiece_tokenizer(folder))


def siglip2(folder: Path) -> Path:
    """SigLIP 2 for pictures of one size: SigLIP's architecture, other words."""
    torch.manual_seed(51)
    return _siglip(folder, gemma_tokenizer())


def siglip2_naflex(folder: Path) -> Path:
    """SigLIP 2 with patches of the image's own aspect ratio."""
    torch.manual_seed(3)
    tokenizer = gemma_tokenizer()
    config = tf.Siglip2Config(
        text_config=tiny.text(vocab_size=len(tokenizer), max_position_embeddings=16, projection_size=32),
        vision_config=tiny.vision(num_patches=16),
    )
    processor = tf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return tiny.saved(folder, tf.Siglip2Model(config).eval(), processor, tokenizer)


MAKERS = {maker.__name__: maker for maker in (clip, sentence_clip, siglip, siglip2, siglip2_naflex)}
