"""Distils a sentence encoder into one vector per word piece, by the recipe of Model2Vec.

Each word piece goes through the encoder alone; the mean of its outputs is reduced to 128 components by a principal
component analysis and weighted by the logarithm of its rank in the vocabulary, which is ordered by frequency (Zipf's
law): rare words count for more than "the". A text's vector is then the mean of its pieces' vectors. Recipe:
https://github.com/MinishLab/model2vec (MIT); the code is our own.

Only pieces of the letters a to z and digits have vectors: the encoder was trained on English, and what it makes of a
single Chinese character or of a full stop is noise. The others stay in the vocabulary, so that texts are split as the
encoder's own tokenizer splits them.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

COMPONENTS = 128
BATCH = 512
FIRST, LAST = "[CLS]", "[SEP]"
SPECIAL = re.compile(r"\[(?:unused\d+|PAD|UNK|CLS|SEP|MASK)\]")
SPOKEN = re.compile(r"(?:##)?[a-z0-9]+")
ANY_DAY = (1980, 1, 1, 0, 0, 0)
"""The same bytes on every day."""


def convert(encoder: Path, *, vocabulary: Sequence[str]) -> bytes:
    """Return the table of word pieces as an npz file.

    ``pieces`` is the vocabulary in UTF-8, one a line, those with a vector first; ``directions`` int8 [pieces with a
    vector, 128] and ``scales`` float16 [the same number] give the vectors as their product.

    Args:
        encoder: Folder with the configuration and the weights of a BERT-like encoder.
        vocabulary: Its word pieces, in the order of their numbers.
    """
    spoken = [number for number, piece in enumerate(vocabulary) if SPOKEN.fullmatch(piece)]
    silent = [
        number
        for number, piece in enumerate(vocabulary)
        if not SPOKEN.fullmatch(piece) and not SPECIAL.fullmatch(piece)
    ]
    ends = vocabulary.index(FIRST), vocabulary.index(LAST)
    vectors = _reduced(_outputs(encoder, spoken, ends=ends))
    vectors *= np.log(1 + np.arange(1, len(vectors) + 1))[:, None]
    scales = (np.abs(vectors).max(axis=1) / 127).astype(np.float16)
    directions = np.rint(vectors / scales.astype(np.float64)[:, None]).clip(-127, 127).astype(np.int8)
    pieces = "\n".join(vocabulary[number] for number in (*spoken, *silent)).encode()
    return _npz(pieces=np.frombuffer(pieces, dtype=np.uint8), directions=directions, scales=scales)


def _outputs(encoder: Path, numbers: Sequence[int], *, ends: tuple[int, int]) -> Doubles:
    """Return the mean output for each word piece alone, [K, width].

    In double precision, so that the last bits, which depend on the processor, are rounded away.
    """
    from transformers import AutoModel

    model = AutoModel.from_pretrained(encoder, dtype=torch.float64).eval()
    first, last = ends
    means = []
    with torch.inference_mode():
        for start in range(0, len(numbers), BATCH):
            ids = torch.tensor([[first, number, last] for number in numbers[start : start + BATCH]])
            means.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(dim=1))
    return torch.cat(means).numpy()


def _reduced(outputs: Doubles) -> Doubles:
    """Return the principal components of the outputs, [K, COMPONENTS], each axis with its larger side positive."""
    centred = outputs - outputs.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :COMPONENTS]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(COMPONENTS)])
    return centred @ axes


def _npz(**arrays: npt.NDArray[np.generic]) -> bytes:
    """Return arrays as numpy's own archive, but the same bytes every time."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=ANY_DAY), content.getvalue())
    return archive.getvalue()
