"""What is known of OpenAI's models by their names: how they look at an image, and how little they can think.

This module decides how large an image is worth sending and how many tokens it takes. It must not know prices,
pixels or the wire. A model that is not listed is looked after with cautious defaults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "DEFAULT_EMBEDDING_MODEL",
    "DEFAULT_MODEL",
    "EMBEDDING_DIMENSIONS",
    "Detail",
    "ImageTokenRule",
    "effort_of",
    "family_of",
    "image_token_rule",
]

Detail = Literal["auto", "low", "high", "original"]
"""How closely the model looks; OpenAI's own word for it."""

DEFAULT_MODEL = "gpt-6-luna"
"""Small, sees images, answers without thinking first, and is what OpenAI names as the replacement of all models
that retire by January 2027 (developers.openai.com/api/docs/deprecations, 2026-11); no end is announced."""

DEFAULT_EMBEDDING_MODEL = "text-embedding-3-small"

EMBEDDING_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}

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
        """Return the size, in pixels, beyond which more pixels are not looked at; never more than given."""
        scale = min(1.0, self.max_side_px / max(width, height))
        if self.short_side_px is not None:
            scale = min(scale, self.short_side_px / min(width, height))
        fitted = _scaled(width, height, scale)
        if self.max_patches is None or _patches(*fitted) <= self.max_patches:
            return fitted
        return _scaled(width, height, _patch_scale(width, height, self.max_patches))

    def tokens(self, width: int, height: int) -> int:
        """Return the tokens of an image of that size; the server's own count is what is billed."""
        width, height = self.fit(width, height)
        tiles = math.ceil(width / TILE_PX) * math.ceil(height / TILE_PX)
        patches = _patches(width, height)
        return math.ceil(self.base_tokens + self.tile_tokens * tiles + self.patch_tokens * patches)

    @property
    def longest_short_side_px(self) -> int:
        """The longest that the shorter side of any image can be when it is sent."""
        limits = [self.max_side_px, self.short_side_px, self.max_patches and math.isqrt(self.max_patches) * PATCH_PX]
        return min(limit for limit in limits if limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that look and think alike.

    Attributes:
        high: How they look at ``detail = "high"``.
        original: True when they also know ``detail = "original"``.
        effort: The least that they can be told to think; None for models that do not think, or are not known.
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
    """Return what is known of a model, ``vendor/model`` included; cautious defaults for one that is not listed."""
    model = model.rpartition("/")[2]
    known = [name for name in FAMILIES if model == name or model.startswith(f"{name}-")]
    return FAMILIES[max(known, key=len)] if known else UNKNOWN


def effort_of(model: str, wanted: str) -> str | None:
    """Return how much a model shall think; ``"auto"`` is as little as it can, ``"default"`` its own choice (None)."""
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


def _patches(width: int, height: int) -> int:
    return math.ceil(width / PATCH_PX) * math.ceil(height / PATCH_PX)


def _patch_scale(width: int, height: int, budget: int) -> float:
    """OpenAI's own formula: shrink to the budget, then to whole patches along the side that needs it more."""
    shrink = math.sqrt(PATCH_PX**2 * budget / (width * height))
    across, down = width * shrink / PATCH_PX, height * shrink / PATCH_PX
    return shrink * min(max(1, math.floor(across)) / across, max(1, math.floor(down)) / down, 1.0)


def _scaled(width: int, height: int, scale: float) -> tuple[int, int]:
    almost = 1e-6  # 1055.9999… is 1056
    return max(1, int(width * scale + almost)), max(1, int(height * scale + almost))
