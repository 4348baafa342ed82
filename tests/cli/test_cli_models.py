"""``vision models``: the cards as a list."""

from __future__ import annotations

import json

from vision_backends.catalog import model_cards


def test_every_card_is_a_row_with_its_published_quality(vision):
    """Licence, size and where the figure was published included."""
    result = vision("models")
    assert result.exit_code == 0
    for card in model_cards():
        row = next(line for line in result.stdout.splitlines() if line.startswith(f"{card.name}  "))
        assert card.licence in row
        assert card.backend in row
        assert card.quality is None or f"{card.name}: {card.quality.metric}: {card.quality.value:g}" in result.stdout


def test_json_has_whole_cards_and_whether_they_are_installed(vision):
    """One object per line."""
    cards = [json.loads(line) for line in vision("models", "--json").stdout.splitlines()]
    assert [card["name"] for card in cards] == [card.name for card in model_cards()]
    shipped = [card for card in cards if card["file"] is not None]
    assert shipped
    assert all(card["installed"] is True and card["sha256"] for card in shipped)
    assert all(card["installed"] is None for card in cards if card["file"] is None)
