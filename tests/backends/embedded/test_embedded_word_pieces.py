"""Texts are split as the tokenizer of the library that is the reference splits them."""

from __future__ import annotations

import json
from pathlib import Path
from unicodedata import ucd_3_2_0

import numpy as np
import pytest

from vision_backends.backends.embedded.word_pieces import pieces_of, words_of
from vision_backends.backends.model_cards import asset

SAMPLE = Path(__file__).parents[3] / "benchmarks" / "sample" / "sample.jsonl"
UNKNOWN = "[UNK]"

LONGEST = 18
"""No piece is longer."""

TEXTS = (
    "A red bicycle, leaning against O'Reilly's wall (1998)!",
    "naïve café façade Zürich Ångström İstanbul ΣΊΣΥΦΟΣ",
    "ein Fußgänger überquert die Straße; où est l'œuvre? ¿Dónde está el niño?",
    "東京タワーの写真, 北京烤鸭 and 서울 지하철",
    "Собака на пляже – кошка 🐈 дома 👩‍👩‍👧",
    "tabs\tand\nnew\r\nlines\u00a0and\u2009thin\u3000wide\u2028blanks\x85here",
    "zero\u200bwidth soft\u00adhyphen bell\x07 nul\x00 replaced\ufffd mark\ufeff",
    "e\u0301 combining, a\u0308o\u0308 and \u1e9b\u0323 ﬁ ligature ½ ² ™ 5€ £3 x²+y² a_b #tag ##ing @you",
    "[MASK] is no command, and neither are [CLS] and [PAD]",
    "unaffable " + "x" * 100 + " " + "y" * 101,
    "",
    "  ",
)


@pytest.fixture(scope="module")
def numbers():
    """BERT's vocabulary as it is shipped."""
    with np.load(asset("minilm-l6-static-128.npz")) as arrays:
        pieces = arrays["pieces"].tobytes().decode().split("\n")
    return {piece: number for number, piece in enumerate(pieces)}


@pytest.fixture(scope="module")
def reference(numbers):
    """The reference tokenizer, without special tokens: they are commands, which a text cannot give."""
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordPiece(
        numbers | {UNKNOWN: len(numbers)}, unk_token=UNKNOWN, max_input_chars_per_word=100
    )
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return made


def split(text, numbers):
    """Return the numbers of a text's pieces; that of an unknown word is the one after the vocabulary."""
    found = [pieces_of(word, numbers, longest_chars=LONGEST) for word in words_of(text)]
    return [piece for pieces in found for piece in (pieces if pieces is not None else [len(numbers)])]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_many_scripts_are_split_as_by_the_reference(text, numbers, reference):
    """Accents, capitals, blanks, invisible characters, ideographs, symbols and overlong words are treated alike."""
    assert split(text, numbers) == reference.encode(text).ids


def test_captions_are_split_as_by_the_reference(numbers, reference):
    """All captions of the sample photos."""
    captions = [each for line in SAMPLE.read_text("utf-8").splitlines() for each in json.loads(line)["captions"]]
    assert len(captions) == 145
    for caption in captions:
        assert split(caption, numbers) == reference.encode(caption).ids


def test_characters_of_all_the_world_are_split_as_by_the_reference(numbers, reference):
    """Each fortieth that Unicode has had since 2002, inside a word; for newer ones its tables differ by version."""
    old = [char for char in map(chr, range(0x20, 0x30000)) if ucd_3_2_0.category(char) not in {"Cn", "Co", "Cs"}]
    texts = [f"a{char}b" for char in old[::40]]
    assert len(texts) > 2000
    assert [text for text in texts if split(text, numbers) != reference.encode(text).ids] == []
