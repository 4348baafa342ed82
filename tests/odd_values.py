"""Values that nobody expects, and tables in which one stands where another was; for tests against hostile input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    10**9,
    10**30,
    1e308,
    float("nan"),
    "",
    "x",
    "\x1b[2J\u202e",
    "a" * 10_000,
]
ODD += [[], {}, [[]], "../../etc/passwd", "someone/kernels", {"quant_method": "gptq"}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every place in a table, but to few of a long list."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:5]) if isinstance(value, list) else ()
    for name, each in inner:
        yield from places(each, (*path, name))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a table with another value at one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy
