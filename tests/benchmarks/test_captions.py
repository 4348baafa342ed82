"""Captions are scored as the reference implementation scores them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from captions_data import CAPTIONS, DESCRIPTIONS
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from pycocotools.coco import COCO

from benchmarks.quality.captions import CaptionJudge, bleu_4, bleu_totals, split_words

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="the reference tokenizer is a Java program")


@pytest.fixture(scope="module")
def judge():
    """One for all tests, because METEOR's program takes seconds to start."""
    with CaptionJudge() as judge:
        yield judge


@pytest.fixture
def reference(tmp_path):
    """The tokenized captions and descriptions, read by the reference from files in its own format."""
    numbers = {name: place for place, name in enumerate(CAPTIONS, start=1)}
    told = [
        {"id": place, "image_id": numbers[name], "caption": text}
        for place, (name, text) in enumerate((name, text) for name, texts in CAPTIONS.items() for text in texts)
    ]
    truth = {"info": {}, "licenses": [], "type": "captions", "images": [{"id": each} for each in numbers.values()]}
    (tmp_path / "captions.json").write_text(json.dumps(truth | {"annotations": told}))
    said = [{"image_id": numbers[name], "caption": text} for name, text in DESCRIPTIONS.items()]
    (tmp_path / "results.json").write_text(json.dumps(said))
    coco = COCO(str(tmp_path / "captions.json"))
    results = coco.loadRes(str(tmp_path / "results.json"))
    ids = coco.getImgIds()
    references = PTBTokenizer().tokenize({each: coco.imgToAnns[each] for each in ids})
    words = PTBTokenizer().tokenize({each: results.imgToAnns[each] for each in ids})
    return references, words


@pytest.fixture(scope="module")
def cut():
    """All captions as the reference's tokenizer cuts them."""
    texts = enumerate(text for texts in CAPTIONS.values() for text in texts)
    words = PTBTokenizer().tokenize({place: [{"caption": text}] for place, text in texts})
    return dict(zip((text for texts in CAPTIONS.values() for text in texts), words.values(), strict=True))


@pytest.fixture(scope="module")
def rouge_of_others(judge):
    """The figure of all images but the first."""
    _, *others = CAPTIONS
    found = judge.score({name: DESCRIPTIONS[name] for name in others}, CAPTIONS, resamples=2, seed=1)
    return next(metric.value for metric in found if metric.name == "ROUGE-L")


@needs_java
@pytest.mark.timeout(300)  # METEOR's program has to start
def test_every_figure_equals_the_reference(judge, reference):
    """To the sixth digit, on the same texts, with the reference's own tokenizer."""
    found = {metric.name: metric for metric in judge.score(DESCRIPTIONS, CAPTIONS, resamples=50, seed=1)}
    meteor = judge._meteor
    assert type(meteor) is Meteor  # the reference's own, whose program takes seconds to start once more
    expected = {
        "CIDEr-D": Cider().compute_score(*reference)[0],
        "BLEU-4": Bleu(4).compute_score(*reference, verbose=0)[0][3],
        "ROUGE-L": Rouge().compute_score(*reference)[0],
        "METEOR": meteor.compute_score(*reference)[0],
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-6)
    assert 0 < expected["BLEU-4"] < expected["CIDEr-D"]


@needs_java
def test_intervals_surround_the_figures(judge):
    """Each interval is from a lower to a higher value, and the figure lies in it."""
    for metric in judge.score(DESCRIPTIONS, CAPTIONS, resamples=200, seed=1)[:3]:
        assert metric.interval.low < metric.value < metric.interval.high


def test_bleu_is_made_anew_for_each_sample_as_the_reference_makes_it():
    """A sample in which images appear twice or not at all has the reference's figure for just these images."""
    words = {name: [split_words(text)] for name, text in DESCRIPTIONS.items()}
    references = {name: [split_words(text) for text in texts] for name, texts in CAPTIONS.items()}
    names = list(words)
    counts = np.array([[1] * len(names), [2, 0, 1, 3, 0, 1], [0, 0, 6, 0, 0, 0]])
    figures = bleu_4(counts, bleu_totals(words, references))
    for row, figure in zip(counts, figures, strict=True):
        drawn = [(f"{name} {copy}", name) for name, count in zip(names, row, strict=True) for copy in range(count)]
        sample = [{copy: texts[name] for copy, name in drawn} for texts in (references, words)]
        assert figure == pytest.approx(Bleu(4).compute_score(*sample, verbose=0)[0][3], abs=1e-9)


@needs_java
@pytest.mark.parametrize("text", [text for texts in CAPTIONS.values() for text in texts if "St." not in text])
def test_words_are_cut_without_java_as_with_it(cut, text):
    """For captions as people write them; but for abbreviations, whose dots it does not know."""
    assert split_words(text) == cut[text][0]


def test_without_java_the_note_says_so_and_meteor_has_no_value(judge, monkeypatch, tmp_path):
    """Nothing is started that is not there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {metric.name: metric for metric in judge.score(DESCRIPTIONS, CAPTIONS, resamples=10, seed=1)}
    assert "no Java" in found["CIDEr-D"].note
    assert found["CIDEr-D"].value > 0
    assert (found["METEOR"].value, found["METEOR"].note) == (None, "it needs Java")


def test_one_image_has_figures_but_no_interval(judge):
    """One is no sample."""
    name = next(iter(CAPTIONS))
    for metric in judge.score({name: DESCRIPTIONS[name]}, {name: CAPTIONS[name]}, resamples=10, seed=1):
        assert metric.interval is None


@needs_java
@pytest.mark.parametrize("text", ["", "   ", "...", "a\nb\r\nc\u2028d\x85e", "||| EVAL ||| 1", "猫 🐈", "x" * 5000])
def test_odd_descriptions_are_scored_and_shift_no_line(judge, rouge_of_others, text):
    """What a model says is a stranger's text: the figures of all other images stay as they are."""
    first, *others = CAPTIONS
    odd = {metric.name: metric for metric in judge.score(DESCRIPTIONS | {first: text}, CAPTIONS, resamples=2, seed=1)}
    assert odd["ROUGE-L"].value == pytest.approx(rouge_of_others * len(others) / len(CAPTIONS), abs=0.03)
    assert all(odd[name].value is not None for name in ("CIDEr-D", "BLEU-4", "METEOR"))
