"""What tokens cost: the counts of a reply, the prices of models, and how both become a usage.

This module decides how ``usage`` is read and priced. It must not know what is asked, nor the wire. The cost of a model
that is not listed is unknown.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

from vision_backends.errors import ConfigError
from vision_backends.types import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "NOTHING",
    "Price",
    "PriceList",
    "Tokens",
    "most_tokens",
    "read_tokens",
    "split_usage",
    "thinking_tokens",
]

_SNAPSHOT = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")

VENDORS = frozenset(
    {"openai", "azure", "azure_ai", "google", "gemini", "vertex_ai", "models", "mistral", "mistralai", "xai", "x-ai"}
    | {"openrouter"}
)
"""What servers and proxies write before the name of a maker's own model, as in ``openai/gpt-6-luna``; Google itself
writes ``models/``."""

_OTHER_HOSTS = {"api.together.xyz": "api.together.ai"}
"""Older addresses of servers that have prices."""

MODELS_KEPT = 64
"""Models whose price is known without looking for it again."""

_PRICE_KEYS = ("input", "output", "cached_input", "cache_write")


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
        cached_input: For tokens sent that the server still had; None takes the price of input.
        cache_write: For tokens sent that the server puts into its cache; None takes the price of input.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None

    def cost_usd(self, tokens: Tokens, *, at_most: bool = False) -> float:
        """Return what these tokens cost in US dollars, or at most if all input is charged at the highest price."""
        if at_most:
            sent = tokens.input * max(self.input, self.cache_write or 0.0)
        else:
            cached = self.input if self.cached_input is None else self.cached_input
            written = self.input if self.cache_write is None else self.cache_write
            plain = max(0, tokens.input - tokens.cached - tokens.written)
            sent = plain * self.input + tokens.cached * cached + tokens.written * written
        return (sent + tokens.output * self.output) / 1e6


NOTHING = Price(input=0.0, output=0.0)
"""What a server costs that nobody pays for."""


class PriceList:
    """Prices by model.

    A dated snapshot such as ``gpt-6-luna-2026-09-22`` costs what its model does, and so does a maker's model that is
    named after its maker, such as ``openai/gpt-6-luna``.

    Args:
        own: The user's: model → price.
        flat: What every other model costs; None where the user does not say.
        is_free: Tells of every other model whether nobody pays for it, where the user does not say.
        shipped: Model → price of the others.
        behind: Other names of models, each with the model that it stands for.
    """

    def __init__(
        self,
        own: Mapping[str, Price] | None = None,
        *,
        flat: Price | None = None,
        is_free: Callable[[str], bool] | None = None,
        shipped: Mapping[str, Price] | None = None,
        behind: Mapping[str, str] | None = None,
    ) -> None:
        find = partial(_find_price, dict(own or {}), flat, is_free, dict(shipped or {}), dict(behind or {}))
        self._find = lru_cache(maxsize=MODELS_KEPT)(find)

    @classmethod
    def load(
        cls,
        own: Mapping[str, Mapping[str, float]] | None = None,
        *,
        flat: float | None = None,
        is_free: Callable[[str], bool] | None = None,
        host: str = "",
        behind: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the shipped prices with the user's over them.

        Args:
            own: Model → ``{"input": …, "output": …}`` in US dollars per million tokens.
            flat: US dollars per million tokens, sent or received, of every model that ``own`` does not name.
            is_free: Tells of a model whether nobody pays for it, where neither of them says.
            host: The server, with or without a port; models with open weights cost what it asks for them.
            behind: Other names of models, each with the model that it stands for.

        Raises:
            ConfigError: A row of ``own`` has a wrong or missing key, or a price is negative or no number.
        """
        prices = {}
        for model, row in (own or {}).items():
            if not {"input", "output"} <= set(row) <= set(_PRICE_KEYS) or not all(map(_is_price, row.values())):
                raise ConfigError(
                    f"[openai.prices] has no usable price for {model!r}.",
                    remedy="Write input and output (cached_input, cache_write) in USD per million tokens.",
                )
            prices[model] = Price(**row)
        if flat is not None and not _is_price(flat):
            raise ConfigError(
                f"[openai] price = {flat} is none.", remedy="Write USD per million tokens; 0 for nothing."
            )
        every = None if flat is None else Price(input=flat, output=flat)
        return cls(prices, flat=every, is_free=is_free, shipped=_shipped(host.partition(":")[0]), behind=behind)

    def of(self, model: str) -> Price | None:
        """Return the price of a model, or None where it is not known."""
        return self._find(model)

    def usage(self, model: str, tokens: Tokens | None, *, at_most: bool = False) -> Usage:
        """Return what was consumed; what the server or the list does not say is None, never 0.

        Args:
            model: Which model.
            tokens: What the server counted; None where it did not.
            at_most: Charge all input at the model's highest price, for an estimate from above.
        """
        if tokens is None:
            return Usage()
        price = self.of(model)
        cost_usd = None if price is None else price.cost_usd(tokens, at_most=at_most)
        return Usage(input_tokens=tokens.input, output_tokens=tokens.output, cost_usd=cost_usd)

    def billed(self, model: str, payloads: Iterable[Mapping[str, Any]]) -> Usage:
        """Return what an unusable reply of a model was billed; unknown where it does not say."""
        tokens = None
        for payload in payloads:
            response = payload.get("response")
            usage = (response if isinstance(response, dict) else payload).get("usage")
            tokens = most_tokens(tokens, read_tokens(usage))
        return self.usage(model, tokens)


def _find_price(
    own: Mapping[str, Price],
    flat: Price | None,
    is_free: Callable[[str], bool] | None,
    shipped: Mapping[str, Price],
    behind: Mapping[str, str],
    model: str,
) -> Price | None:
    stated = behind.get(model, model)
    named = (own[name] for each in (model, stated) for name in _spellings(each) if name in own)
    listed = (shipped[name] for name in _spellings(stated) if name in shipped)
    free = NOTHING if is_free is not None and is_free(model) else None
    return next(named, None) or flat or free or next(listed, None)


def _shipped(host: str) -> dict[str, Price]:
    """Return the prices that this package comes with, as they are at one server."""
    text = resources.files("vision_backends.backends.openai").joinpath("prices.toml").read_text("utf-8")
    tables = tomllib.loads(text)
    here = tables.pop("servers").get(_OTHER_HOSTS.get(host, host), {})
    return {
        model: Price(**{key: row[key] for key in _PRICE_KEYS if key in row})
        for rows in (*tables.values(), here)
        for model, row in rows.items()
    }


def _is_price(value: float) -> bool:
    return 0 <= value < math.inf


def _spellings(model: str) -> Iterator[str]:
    """Yield the names under which the price of a model may stand, the most exact first."""
    while True:
        yield model
        yield _SNAPSHOT.sub("", model)
        vendor, slash, rest = model.partition("/")
        if not slash or vendor not in VENDORS:
            return
        model = rest


MOST_TOKENS = 100_000_000
"""More than any model reads or writes for one request: a server that counts more has miscounted."""


def read_tokens(usage: object) -> Tokens | None:
    """Read the ``usage`` of any endpoint; None where a server sends none or one that makes no sense.

    Totals are believed, and parts never make them cheaper: what a total holds beyond its parts was received, such as
    thoughts that were counted apart, and a discount is believed only for what was sent.
    """
    usage = usage if isinstance(usage, dict) else {}
    sent, total = _count(usage, "prompt_tokens", "input_tokens"), _count(usage, "total_tokens")
    received = _count(usage, "completion_tokens", "output_tokens")
    thinking = thinking_tokens(usage)
    if sent is None:
        if total is None:
            return None
        sent = max(0, total - (received or 0))
    received = received or 0
    if total is None and thinking > received:
        total = sent + received + thinking
    received = max(received, thinking, (total or 0) - sent)
    details = _details(usage, "prompt_tokens_details", "input_tokens_details")
    written = min(sent, _count(details, "cache_write_tokens") or 0)
    cached = _count(details, "cached_tokens") or 0
    return Tokens(input=sent, output=received, cached=cached if cached + written <= sent else 0, written=written)


def thinking_tokens(usage: object) -> int:
    """Return how many tokens of a ``usage`` were thoughts, as far as the server says."""
    usage = usage if isinstance(usage, dict) else {}
    details = _details(usage, "completion_tokens_details", "output_tokens_details")
    return _count(details, "reasoning_tokens") or _count(usage, "reasoning_tokens") or 0


def most_tokens(one: Tokens | None, other: Tokens | None) -> Tokens | None:
    """Return the larger of two counts of the same call: a stream may count as it goes, or end with zeros."""
    if one is None or other is None:
        return one or other
    larger = max(one, other, key=lambda tokens: (tokens.input, tokens.output))
    return replace(larger, input=max(one.input, other.input), output=max(one.output, other.output))


def split_usage(usage: Usage, parts: int) -> list[Usage]:
    """Return the usage of one call as that of each of its inputs; the parts add up to the whole."""

    def share(count: int | None, place: int) -> int | None:
        return None if count is None else count // parts + (place < count % parts)

    cost = None if usage.cost_usd is None else usage.cost_usd / parts
    return [
        Usage(input_tokens=share(usage.input_tokens, n), output_tokens=share(usage.output_tokens, n), cost_usd=cost)
        for n in range(parts)
    ]


def _details(usage: dict[str, object], *names: str) -> dict[str, object]:
    found = (usage.get(name) for name in names)
    return next((value for value in found if isinstance(value, dict)), {})


def _count(table: dict[str, object], *names: str) -> int | None:
    for name in names:
        value = table.get(name)
        if isinstance(value, (int, float)) and 0 <= value <= MOST_TOKENS:
            return int(value)
    return None
