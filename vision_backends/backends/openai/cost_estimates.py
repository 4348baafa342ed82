"""What a call may take at most, for the budget check before it.

This module decides how tokens are counted before anybody has counted them; bills are made of the server's own count.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.openai.prices import Tokens
from vision_backends.backends.openai.prompts import ask_for_boxes, ask_for_description
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest
from vision_backends.types import Usage

if TYPE_CHECKING:
    from vision_backends.backends.openai.prices import PriceList
    from vision_backends.backends.openai.settings import Settings
    from vision_backends.backends.requests import Request
    from vision_backends.images import Image

__all__ = ["estimate"]


def estimate(request: Request, given: Image | str, *, settings: Settings, prices: PriceList) -> Usage:
    """Return tokens and cost of one image or text from above; None where nobody can know."""
    if isinstance(given, str):
        return prices.usage(settings.embedding_model, Tokens(input=_text_tokens(given)), at_most=True)
    if isinstance(request, EmbedRequest) and settings.image_embeddings == "direct":
        return Usage()
    if isinstance(request, DetectRequest):
        ask = ask_for_boxes(settings, request.labels or tuple(coco_categories()))
    else:
        ask = ask_for_description(settings, request if isinstance(request, DescribeRequest) else DescribeRequest())
    words = ask.instructions + ask.question + (json.dumps(ask.schema) if ask.schema else "")
    seen = settings.image_rule.tokens(given.width, given.height)
    said = Tokens(input=seen + _text_tokens(words), output=ask.max_tokens)
    usage = prices.usage(settings.model, said, at_most=True)
    if isinstance(request, EmbedRequest):  # the description is embedded afterwards
        usage += prices.usage(settings.embedding_model, Tokens(input=ask.max_tokens), at_most=True)
    return usage


def _text_tokens(text: str) -> int:
    """No language takes more than one token for two bytes, by a wide margin."""
    return len(text.encode()) // 2 + 16
