"""What a reply costs: tokens as the server counted them, times the prices in ``prices.toml`` or the user's own.

This module decides what a token costs and how `usage` is read. It must not know how many tokens an image takes.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

from vision_backends.errors import ConfigError
from vision_backends.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Price", "PriceList", "Tokens", "read_tokens", "split_usage"]

_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """How many tokens a call took, as the server bills them.

    Attributes:
        input: All tokens sent, including the next two.
        output: Tokens received, thinking included.
        cached: Tokens sent that the server still had.
        written: Tokens sent that the server put into its cache.
    """

    input: int
    output: int = 0
    cached: int = 0
    written: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            input=self.input + other.input,
            output=self.output + other.output,
            cached=self.cached + other.cached,
            written=self.written + other.written,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens.

    Attributes:
        input: For tokens sent.
        output: For tokens received.
        cached_input: For tokens sent that the server still had; the price of input where it has none.
        cache_write: For tokens sent that the server keeps; the price of input where it has none.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None

    def cost_usd(self, tokens: Tokens) -> float:
        """Return what these tokens cost in US dollars."""
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        plain = max(0, tokens.input - tokens.cached - tokens.written)
        per_million = (
            plain * self.input + tokens.cached * cached + tokens.written * written + tokens.output * self.output
        )
        return per_million / 1e6

    def at_most(self) -> Price:
        """Return the price with all input at its dearest, for an estimate from above."""
        return Price(input=max(self.input, self.cache_write or 0.0), output=self.output)


class PriceList:
    """Prices by model.

    Args:
        prices: Model → price; a dated snapshot such as ``gpt-6-luna-2026-09-22`` costs what its model does.
    """

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = dict(prices)

    @classmethod
    def load(cls, own: Mapping[str, Mapping[str, float]] | None = None) -> Self:
        """Return the shipped prices with the user's over them.

        Args:
            own: Model → ``{"input": …, "output": …}`` in US dollars per million tokens.

        Raises:
            ConfigError: A row of ``own`` has a wrong or missing key, or a negative price.
        """
        text = resources.files("vision_backends.backends.openai").joinpath("prices.toml").read_text("utf-8")
        keys = ("input", "output", "cached_input", "cache_write")
        prices = {
            model: Price(**{key: row[key] for key in keys if key in row}) for model, row in tomllib.loads(text).items()
        }
        for model, row in (own or {}).items():
            if not {"input", "output"} <= set(row) <= set(keys) or any(value < 0 for value in row.values()):
                raise ConfigError(
                    f"[openai.prices] has no usable price for {model!r}.",
                    remedy="Write input and output (cached_input, cache_write) in USD per million tokens.",
                )
            prices[model] = Price(**row)
        return cls(prices)

    def of(self, model: str) -> Price | None:
        """Return the price of a model, or None where it is not known."""
        return self._prices.get(model) or self._prices.get(_SNAPSHOT.sub("", model))

    def usage(self, model: str, tokens: Tokens | None, *, at_most: bool = False) -> Usage:
        """Return what was consumed; what the server or the list does not say is None, never 0.

        Args:
            model: Which model.
            tokens: What the server counted; None where it did not.
            at_most: Take all input at its dearest, for an estimate from above.
        """
        if tokens is None:
            return Usage()
        price = self.of(model)
        price = price.at_most() if price and at_most else price
        return Usage(
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cost_usd=None if price is None else price.cost_usd(tokens),
        )


def read_tokens(usage: object) -> Tokens | None:
    """Read the ``usage`` of any endpoint; None where a server sends none or one that makes no sense."""
    if not isinstance(usage, dict):
        return None
    sent = _count(usage, "prompt_tokens", "input_tokens")
    if sent is None:
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    return Tokens(
        input=sent,
        output=_count(usage, "completion_tokens", "output_tokens") or 0,
        cached=_count(details, "cached_tokens") or 0,
        written=_count(details, "cache_write_tokens") or 0,
    )


def billed(payloads: Iterable[Mapping[str, Any]]) -> Usage:
    """Return the tokens that a useless reply says were billed; unknown where it does not say, for it was a reply."""
    for payload in payloads:
        response = payload.get("response")
        inner = response if isinstance(response, dict) else payload
        tokens = read_tokens(inner.get("usage"))
        if tokens is not None:
            return Usage(input_tokens=tokens.input, output_tokens=tokens.output)
    return Usage()


def split_usage(usage: Usage, parts: int) -> list[Usage]:
    """Return the usage of one call as that of each of its inputs; the parts add up to the whole."""
    cost = None if usage.cost_usd is None else usage.cost_usd / parts
    inputs, outputs = _split(usage.input_tokens, parts), _split(usage.output_tokens, parts)
    return [
        Usage(input_tokens=sent, output_tokens=received, cost_usd=cost)
        for sent, received in zip(inputs, outputs, strict=True)
    ]


def _split(count: int | None, parts: int) -> list[int | None]:
    if count is None:
        return [None] * parts
    each, rest = divmod(count, parts)
    return [each + (place < rest) for place in range(parts)]


def _count(table: dict[str, object], *names: str) -> int | None:
    found = (table.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value >= 0), None)
