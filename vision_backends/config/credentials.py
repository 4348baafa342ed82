"""To which server a key goes: to the one that it was given for.

This module decides which of the keys, headers and accounts that were configured belong to the server in force, and
which are held back. It must not know where tables come from, nor how a server is asked.

A credential was given for the ``base_url`` of the same place, or for OpenAI where that place names none. It goes there.
A credential whose place names no server also goes to one that another place of the user's names, but never unencrypted
to another machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vision_backends.config.web_address import Origin, origin_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ACCOUNT_KEYS", "Withheld", "belonging", "credentials", "server_of"]

ACCOUNT_KEYS = ("api_key", "organization", "project", "headers")
"""Keys of ``[openai]`` that say who pays, or may be secret."""

OPENAI = Origin("https", "api.openai.com", 443)
"""Whom a key is given for that comes without an address."""

Leaf = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Withheld:
    """A credential that does not go to the server in force.

    Attributes:
        keys: The keys of ``[openai]`` that lead to it.
        place: The number of the place that gave it.
        given_for: The server that it was given for; None where its place names no valid address.
        server: The server in force.
    """

    keys: Leaf
    place: int
    given_for: Origin | None
    server: Origin


def server_of(table: Mapping[str, Any]) -> Origin | None:
    """Return the server that an ``[openai]`` table names; OpenAI where it names none, None where it is no address."""
    url = table.get("base_url")
    if url is None:
        return OPENAI
    return origin_of(url.strip()) if isinstance(url, str) else None


def belonging(places: Sequence[Mapping[str, Any]]) -> tuple[dict[Leaf, int], list[Withheld]]:
    """Return which place each credential comes from that may be sent to the server in force, and the others.

    Args:
        places: The ``[openai]`` tables of all places; of two that may be sent, the one that was given for the server
            wins, then the later one.
    """
    named = [table["base_url"] for table in places if "base_url" in table]
    server = server_of({"base_url": named[-1]}) if named else OPENAI
    chosen: dict[Leaf, int] = {}
    withheld: list[Withheld] = []
    given = [(leaf, number) for number, table in enumerate(places) for leaf in credentials(table)]
    for leaf in dict.fromkeys(leaf for leaf, _ in given):
        numbers = [number for each, number in given if each == leaf]
        if server is None:  # which is an error that is still to come
            chosen[leaf] = numbers[-1]
            continue
        homes = {number: server_of(places[number]) for number in numbers}
        meant = [number for number in numbers if _is_same(homes[number], server)]
        free = [number for number in numbers if "base_url" not in places[number] and not _in_the_clear(server)]
        if meant or free:
            chosen[leaf] = (meant or free)[-1]
        else:
            withheld.append(Withheld(leaf, numbers[-1], homes[numbers[-1]], server))
    return chosen, withheld


def credentials(table: Mapping[str, Any]) -> Iterator[Leaf]:
    """Yield the keys that lead to each credential in an ``[openai]`` table."""
    for key in ACCOUNT_KEYS:
        value = table.get(key)
        if isinstance(value, dict):
            yield from ((key, name) for name in value)
        elif value is not None:
            yield (key,)


def _is_same(home: Origin | None, server: Origin) -> bool:
    if home is None:
        return False
    return home == server or (home.is_openai and server.is_openai and home.scheme == server.scheme == "https")


def _in_the_clear(server: Origin) -> bool:
    """Return whether what is sent to a server leaves this machine unencrypted."""
    if server.scheme == "https":
        return False
    if not server.is_this_machine:
        return True
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    return bool(proxies.get("http") or proxies.get("all")) and not proxy_bypass(server.host)
