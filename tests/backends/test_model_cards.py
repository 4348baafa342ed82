"""Model cards, shipped files and COCO's vocabulary."""

import hashlib
import inspect
from dataclasses import replace

import pytest

from vision_backends import TASKS
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.model_cards import (
    ModelCard,
    Quality,
    asset,
    coco_categories,
    flaw_of_asset,
    model_card,
    model_cards,
)

CARD = """
name = "tiny"
tasks = ["detect", "describe"]
backend = "embedded"
licence = "Apache-2.0"
source = "https://example.org"
parameters = 12
input_px = 64

[[quality]]
metric = "COCO AP, percent"
value = 22.9
source = "https://example.org/paper"

[[quality]]
metric = "LVIS AP, percent"
value = 11.5
source = "https://example.org/paper"
"""


def test_a_card_is_read():
    """A file in models/ becomes a record; what it leaves out is unknown."""
    card = ModelCard.from_toml(CARD)
    assert card.tasks == ("detect", "describe")
    assert card.quality == (
        Quality(metric="COCO AP, percent", value=22.9, source="https://example.org/paper"),
        Quality(metric="LVIS AP, percent", value=11.5, source="https://example.org/paper"),
    )
    assert (card.dimension, card.memory_bytes, card.file, card.sha256, card.revision) == (None,) * 5
    assert card.restriction is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('tasks = ["detect", "describe"]', ""), "tasks = None"),
        (('tasks = ["detect", "describe"]', "tasks = []"), r"tasks = \[\]"),
        (('tasks = ["detect", "describe"]', 'tasks = "detect"'), "tasks = 'detect'"),
        (('tasks = ["detect", "describe"]', 'tasks = ["fly"]'), "describe, embed, embed_text, detect"),
        (('tasks = ["detect", "describe"]', 'tasks = [["detect"]]'), "is not a list of tasks"),
        (('name = "tiny"', ""), "'name'"),
        (('name = "tiny"', 'name = "tiny"\ncolour = "red"'), "'colour'"),
        (('metric = "COCO AP, percent"', ""), "'metric'"),
        (('name = "tiny"', 'name = "tiny"\nquality = "high"'), "line"),
        (('name = "tiny"', "name = tiny"), "line 2"),
    ],
)
def test_a_bad_card_says_which_key_is_at_fault(change, says):
    """Whoever writes a card is told what to mend."""
    with pytest.raises(ValueError, match=says):
        ModelCard.from_toml(CARD.replace(*change))


def test_every_shipped_card_can_be_read():
    """Cards come sorted by their file's name, which is the model's short name, and tell a licence and a source."""
    cards = model_cards()
    assert [card.alias for card in cards] == sorted(path.stem for path in asset("").glob("*.toml"))
    assert len({card.name for card in cards}) == len(cards) > 20
    assert next(card for card in cards if card.alias == "nanodet-g-416") == model_card("nanodet-g-416")
    for card in cards:
        assert set(card.tasks) <= set(TASKS)
        assert card.licence
        assert card.source
        assert ("embed" in card.tasks) == (card.dimension is not None)
        assert all(figure.source.startswith("https://") for figure in card.quality)


def test_licences_of_our_own_naming_say_what_they_forbid():
    """Nobody knows them by their name; a model may also carry a part under a stricter licence."""
    for card in model_cards():
        assert card.restriction or not card.licence.startswith("LicenseRef-")
    assert "non-commercial" in model_card("blip2-opt-2.7b").restriction


def test_every_shipped_file_is_the_one_on_its_card():
    """Size and checksum are those of the file that is there."""
    shipped = [card for card in model_cards() if card.file is not None]
    assert len(shipped) == 5
    for card in shipped:
        content = asset(card.file).read_bytes()
        assert len(content) == card.size_bytes
        assert hashlib.sha256(content).hexdigest() == card.sha256
        assert flaw_of_asset(card) is None
        assert "wrong sha256" in flaw_of_asset(replace(card, sha256="0" * 64))
        assert "is missing" in flaw_of_asset(replace(card, file="gone.onnx"))


def test_every_model_that_is_fetched_by_default_has_a_card():
    """Its licence and size are known before the download."""
    cards = {card.name: card for card in model_cards()}
    parameters = inspect.signature(LocalBackend).parameters
    fetched = [cards[value.default] for name, value in parameters.items() if name.endswith("_model")]
    assert len(fetched) == 4
    assert all(card.size_bytes and card.memory_bytes and card.quality and not card.restriction for card in fetched)


def test_the_vocabulary_is_cocos():
    """80 names in the models' order; ids go to 90 because COCO left ten out."""
    categories = coco_categories()
    assert len(categories) == 80
    assert list(categories.values()) == sorted(set(categories.values()))
    assert list(categories)[:3] == ["person", "bicycle", "car"]
    assert (categories["person"], categories["cat"], categories["toothbrush"]) == (1, 17, 90)
    assert 12 not in categories.values()
