"""To which server a key goes: to the one that it was given for.

This module decides which of the keys, headers and accounts that were configured belong to the server in force, and
which are held back. It must not know where tables come from, nor how a server is asked.

A credential was given for the ``base_url``, the ``endpoint`` or the ``preset`` of the same place, or for OpenAI where
that place names none of them. It goes there. A credential whose place names no server also goes to one that another
place of the user's names, but never unencrypted to another machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vision_backends.config.presets import presets
from vision_backends.config.web_address import Origin, goes_in_the_clear, is_same_server, origin_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ACCOUNT_KEYS", "SERVER_KEYS", "Withheld", "belonging", "credentials", "server_of"]

ACCOUNT_KEYS = ("api_key", "api_key_env", "azure_ad_token_provider", "organization", "project", "headers")
"""Keys of the table of a server that say who pays, or may be secret, or where a secret is."""

PROOFS = (("api_key",), ("api_key_env",), ("azure_ad_token_provider",))
"""The keys of which one is enough."""

ADDRESS_KEYS = ("base_url", "endpoint")
"""Keys of the table of a server that say where it is; the first that stands there counts."""

SERVER_KEYS = (*ADDRESS_KEYS, "preset")
"""Keys that name a server; an address counts before a preset."""

OPENAI = Origin("https", "api.openai.com", 443)
"""Whom a key is given for that comes without an address."""

Leaf = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Withheld:
    """A credential that does not go to the server in force.

    Attributes:
        table: The keys that lead to the table of the rung, as ``("openai",)``.
        keys: The keys of that table that lead to it.
        place: The number of the place that gave it.
        given_for: The server that it was given for; None where its place names no valid address.
        server: The server in force.
    """

    table: Leaf
    keys: Leaf
    place: int
    given_for: Origin | None
    server: Origin


def server_of(table: Mapping[str, Any]) -> Origin | None:
    """Return the server that the table of a rung names; OpenAI where it names none, None where it is no address."""
    for key in ADDRESS_KEYS:
        url = table.get(key)
        if url is not None:
            return origin_of(url.strip()) if isinstance(url, str) else None
    preset = None if table.get("preset") is None else presets().get(str(table["preset"]))
    return OPENAI if preset is None else preset.origin


def belonging(places: Sequence[Mapping[str, Any]], *, table: Leaf) -> tuple[dict[Leaf, int], list[Withheld]]:
    """Return which place each credential comes from that may be sent to the server in force, and the others.

    Args:
        places: One rung's table in each place; of two that may be sent, the one that was given for the server wins,
            then the later one.
        table: The keys that lead to that table.
    """
    server = server_of({key: place[key] for place in places for key in SERVER_KEYS if key in place})
    chosen: dict[Leaf, int] = {}
    withheld: list[Withheld] = []
    given = [(leaf, number) for number, table in enumerate(places) for leaf in credentials(table)]
    for leaf in dict.fromkeys(leaf for leaf, _ in given):
        numbers = [number for each, number in given if each == leaf]
        if server is None:  # which is an error that is still to come
            chosen[leaf] = numbers[-1]
            continue
        homes = {number: server_of(places[number]) for number in numbers}
        meant = [number for number in numbers if is_same_server(homes[number], server)]
        free = [
            number
            for number in numbers
            if places[number].keys().isdisjoint(SERVER_KEYS) and not goes_in_the_clear(server)
        ]
        if meant or free:
            chosen[leaf] = (meant or free)[-1]
        else:
            withheld.append(Withheld(table, leaf, numbers[-1], homes[numbers[-1]], server))
    return _with_one_key(chosen), withheld


def _with_one_key(chosen: dict[Leaf, int]) -> dict[Leaf, int]:
    """Leave out the earlier ones of a key and what names one; two of one place are an error to come."""
    proofs = {leaf: number for leaf, number in chosen.items() if leaf in PROOFS}
    latest = max(proofs.values(), default=None)
    return {leaf: number for leaf, number in chosen.items() if leaf not in proofs or number == latest}


def credentials(table: Mapping[str, Any]) -> Iterator[Leaf]:
    """Yield the keys that lead to each credential in the table of a rung."""
    for key in ACCOUNT_KEYS:
        value = table.get(key)
        if isinstance(value, dict):
            yield from ((key, name) for name in value)
        elif value is not None:
            yield (key,)
