"""CLIPScore is what its paper says, of the vectors that the local rung gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as PILImage
from tiny_towers import clip

from benchmarks.quality import measure
from benchmarks.quality.clipscore import PREFIX, clip_score


@pytest.fixture
def folder(photos, tmp_path):
    """A tiny CLIP with random weights, in the publisher's format."""
    folder = tmp_path / "clip"
    folder.mkdir()
    clip(folder)
    model = transformers.CLIPModel.from_pretrained(folder)
    with torch.no_grad():  # what is random may point away from every image, and all scores would be 0
        likeness = by_the_paper(folder, photos / "cat.jpg", "a cat", clipped=False)
        model.text_projection.weight.mul_(1 if likeness > 0 else -1)
    model.save_pretrained(folder)
    return folder


def by_the_paper(folder, photo, text, *, clipped=True):
    """2.5 × max(cos, 0), of vectors that transformers makes itself."""
    model = transformers.CLIPModel.from_pretrained(folder)
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    with torch.inference_mode(), PILImage.open(photo) as picture:
        made = processor(
            text=[f"A photo depicts {text}"], images=picture.convert("RGB"), return_tensors="pt", truncation=True
        )
        said = model(**made)
    cosine = float(torch.nn.functional.cosine_similarity(said.image_embeds, said.text_embeds))
    return 2.5 * (max(cosine, 0.0) if clipped else cosine)


def test_the_score_is_that_of_the_paper(folder, lines, make_plan, open_run_file):
    """With the local rung as judge of what the embedded one has said."""
    small = lines.parent / "small"
    small.mkdir()
    for path in lines.glob("*.jpg"):  # the rung decodes fewer pixels of a JPEG, and heeds profiles
        PILImage.open(path).resize((64, 64)).save(small / f"{path.stem}.png", icc_profile=None)
    plan = make_plan(
        f'[local]\nembedding_model = "{folder}"\ndtype = "float32"\n',
        backends=("embedded", "local"),
        tasks=("describe",),
        dataset=str(small),
    )
    run_file = open_run_file(plan)
    measure(plan, run_file)
    result = next(each for each in run_file.run.quality if each.contestant.backend == "embedded")
    metric = next(metric for metric in result.metrics if metric.name == "CLIPScore")
    said = {example.image: example.answers[0].text for example in run_file.run.examples}
    expected = np.mean([by_the_paper(folder, small / name, text) for name, text in said.items()])
    assert metric.value == pytest.approx(expected, abs=1e-5)
    assert metric.value > 0.01
    assert metric.interval.low <= metric.value <= metric.interval.high


def test_a_text_that_points_away_scores_nothing():
    """Not less than nothing."""
    assert clip_score([1.0, 0.0], [0.6, 0.8]) == pytest.approx(1.5)
    assert clip_score([1.0, 0.0], [-0.6, 0.8]) == 0.0
    assert PREFIX == "A photo depicts "
