"""What is known of OpenAI's models: how they see an image, and how little they can think.

This module decides how large an image is worth sending, and how many tokens it takes. It must not know what is asked,
what a token costs, nor the wire. A model that is not listed gets cautious defaults.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from vision_backends.images.wire import WireRule

__all__ = [
    "DEFAULT_EMBEDDING_MODEL",
    "DEFAULT_MODEL",
    "EMBEDDING_DIMENSIONS",
    "Detail",
    "ImageTokenRule",
    "effort_of",
    "family_of",
    "image_token_rule",
    "is_openai_model",
    "wire_rule",
]

Detail = Literal["auto", "low", "high", "original"]
"""How closely the model looks; OpenAI's own word for it."""

DEFAULT_MODEL = "gpt-6-luna"
"""Small, sees images, answers without thinking first, and is what OpenAI names as the replacement of all models
that retire by January 2027 (developers.openai.com/api/docs/deprecations, 2026-11); its own end is not announced."""

DEFAULT_EMBEDDING_MODEL = "text-embedding-3-small"

EMBEDDING_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}

ALMOST = 1e-6
"""Added before rounding down: 1055.9999… px are 1056."""

PATCH_PX = 32
TILE_PX = 512
LOW_DETAIL_PX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTokenRule:
    """How a model sees an image: by tiles of 512 px or by patches of 32 px, after scaling it down.

    Attributes:
        max_side_px: The longer side is scaled down to this.
        short_side_px: Tile models then scale the shorter side down to this.
        max_patches: Patch models then scale down until no more patches than this cover the image.
        base_tokens: Tokens of any image.
        tile_tokens: Tokens of each tile.
        patch_tokens: Tokens of each patch.
    """

    max_side_px: int
    short_side_px: int | None = None
    max_patches: int | None = None
    base_tokens: int = 0
    tile_tokens: int = 0
    patch_tokens: float = 0.0

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """Return the size in pixels that the model looks at, which is never larger than the given one."""
        scale = min(1.0, self.max_side_px / max(width, height))
        if self.short_side_px is not None:
            scale = min(scale, self.short_side_px / min(width, height))
        if self.max_patches is not None and _patches(width, height, scale) > self.max_patches:
            scale = _patch_scale(width, height, self.max_patches)
        return max(1, int(width * scale + ALMOST)), max(1, int(height * scale + ALMOST))

    def tokens(self, width: int, height: int) -> int:
        """Return the tokens of an image of that size; the server's own count is what is billed."""
        width, height = self.fit(width, height)
        tiles = math.ceil(width / TILE_PX) * math.ceil(height / TILE_PX)
        return math.ceil(self.base_tokens + self.tile_tokens * tiles + self.patch_tokens * _patches(width, height))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that see and think alike.

    Attributes:
        high: How they see an image at ``detail = "high"``.
        original: True when they also know ``detail = "original"``.
        effort: Their lowest reasoning effort; None for models that do not reason, or are not listed.
    """

    high: ImageTokenRule
    original: bool = False
    effort: str | None = None


def _tiles(base: int, tile: int) -> ImageTokenRule:
    return ImageTokenRule(max_side_px=2048, short_side_px=768, base_tokens=base, tile_tokens=tile)


def _small_patches(factor: float) -> ImageTokenRule:
    return ImageTokenRule(max_side_px=2048, max_patches=1536, patch_tokens=factor)


_PATCHES = ImageTokenRule(max_side_px=2048, max_patches=2500, patch_tokens=1.2)
_ORIGINAL = ImageTokenRule(max_side_px=6000, max_patches=10_000, patch_tokens=1.2)

UNKNOWN = Family(high=ImageTokenRule(max_side_px=2048, patch_tokens=1.2))

FAMILIES = {
    "gpt-6.2": Family(high=_PATCHES, original=True, effort="low"),
    "gpt-6.1-sol": Family(high=_PATCHES, original=True, effort="low"),
    "gpt-6.1-terra": Family(high=_PATCHES, original=True, effort="none"),
    "gpt-6-astra": Family(high=_PATCHES, original=True, effort="low"),
    "gpt-6": Family(high=_PATCHES, original=True, effort="none"),
    "gpt-5.6": Family(high=_PATCHES, original=True, effort="none"),
    "gpt-5.5": Family(high=_PATCHES, original=True, effort="none"),
    "gpt-5.4-mini": Family(high=_small_patches(1.62), effort="none"),
    "gpt-5.4-nano": Family(high=_small_patches(2.46), effort="none"),
    "gpt-5.4": Family(high=_PATCHES, original=True, effort="none"),
    "gpt-5.2": Family(high=_small_patches(1.2), effort="none"),
    "gpt-5.1": Family(high=_tiles(70, 140), effort="none"),
    "gpt-5-mini": Family(high=_small_patches(1.62), effort="minimal"),
    "gpt-5-nano": Family(high=_small_patches(2.46), effort="minimal"),
    "gpt-5": Family(high=_tiles(70, 140), effort="minimal"),
    "gpt-4.1-mini": Family(high=_small_patches(1.62)),
    "gpt-4.1-nano": Family(high=_small_patches(2.46)),
    "gpt-4.1": Family(high=_tiles(85, 170)),
    "gpt-4o-mini": Family(high=_tiles(2833, 5667)),
    "gpt-4o": Family(high=_tiles(85, 170)),
    "o4-mini": Family(high=_small_patches(1.72), effort="low"),
    "o3": Family(high=_tiles(75, 150), effort="low"),
    "o1": Family(high=_tiles(75, 150), effort="low"),
}
"""By the beginning of the name, longest first. Sources: developers.openai.com/api/docs/guides/images-vision and the
models' own pages (2026-11); 1.2 tokens per patch for 5.2 and later as users measured it (openai/codex#19806)."""


def family_of(model: str) -> Family:
    """Return what is known of a model, also of ``vendor/model``; cautious defaults for one that is not listed."""
    model = model.rpartition("/")[2]
    known = [name for name in FAMILIES if model == name or model.startswith(f"{name}-")]
    return FAMILIES[max(known, key=len)] if known else UNKNOWN


_NAME = re.compile(r"[a-z0-9.-]+", re.ASCII)


def is_openai_model(model: str) -> bool:
    """Return whether this is the name of one of OpenAI's own models, and not of one that somebody has made of it."""
    return _NAME.fullmatch(model) is not None and (model in EMBEDDING_DIMENSIONS or family_of(model) is not UNKNOWN)


def effort_of(model: str, wanted: str) -> str | None:
    """Return the reasoning effort to ask for: ``"auto"`` is the model's least, ``"default"`` its own choice (None)."""
    if wanted == "auto":
        return family_of(model).effort
    return None if wanted == "default" else wanted


def image_token_rule(model: str, detail: Detail, *, max_image_px: int | None = None) -> ImageTokenRule:
    """Return how a model looks at an image.

    Args:
        model: Its name.
        detail: ``"auto"`` counts as ``"original"`` where the model knows that, else as ``"high"``.
        max_image_px: A smaller limit for the longer side.
    """
    family = family_of(model)
    rule = family.high
    if detail == "low":
        rule = replace(rule, max_side_px=LOW_DETAIL_PX, tile_tokens=0)
    elif detail in {"original", "auto"} and family.original:
        rule = _ORIGINAL
    if max_image_px is not None:
        rule = replace(rule, max_side_px=min(rule.max_side_px, max_image_px))
    return rule


def wire_rule(model: str, rule: ImageTokenRule, *, max_image_px: int | None = None) -> WireRule:
    """Return how an image is sent to a model that looks at it by a rule.

    OpenAI's own models take WEBP, and scale what is too large for them; of others little is known.
    """
    if family_of(model) is UNKNOWN:
        return WireRule(fit=rule.fit, formats=frozenset({"JPEG", "PNG"}))
    return WireRule(fit=rule.fit, formats=frozenset({"JPEG", "PNG", "WEBP"}), scales=max_image_px is None)


def _patches(width: int, height: int, scale: float = 1.0) -> int:
    return math.ceil(int(width * scale + ALMOST) / PATCH_PX) * math.ceil(int(height * scale + ALMOST) / PATCH_PX)


def _patch_scale(width: int, height: int, budget: int) -> float:
    """OpenAI's own formula: shrink to the budget, then to whole patches along the side that needs it more."""
    shrink = math.sqrt(PATCH_PX**2 * budget / (width * height))
    across, down = width * shrink / PATCH_PX, height * shrink / PATCH_PX
    return shrink * min(max(1, math.floor(across)) / across, max(1, math.floor(down)) / down, 1.0)
