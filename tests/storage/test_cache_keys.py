"""Cache keys: equal for equal requests, different for all others."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from vision_backends.storage.cache import cache_keys

TEXTS = st.text(st.characters(codec=None), max_size=6)  # lone surrogates included
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
ARGUMENTS = st.fixed_dictionaries(
    {
        "task": TEXTS,
        "content": TEXTS,
        "backend": TEXTS,
        "model": st.dictionaries(TEXTS, VALUES, max_size=3),
        "options": st.dictionaries(TEXTS, VALUES, max_size=3),
    }
)
BASE = {"task": "describe", "content": "c", "backend": "b", "model": {"name": "m"}, "options": {"prompt": None}}


def cache_key(*, content, **others):
    """Return the key of one answer."""
    return cache_keys(**others)(content)


def typed(value):
    """A value that only equals values of the same types: 1, 1.0 and True are three."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value).__name__, repr(value)


@given(ARGUMENTS, ARGUMENTS)
@example(BASE | {"content": "ab", "backend": "c"}, BASE | {"content": "a", "backend": "bc"})
@example(BASE | {"options": {"x": 1}}, BASE | {"options": {"x": True}})
@example(BASE | {"options": {"x": 1}}, BASE | {"options": {"x": 1.0}})
@example(BASE | {"options": {"x": "1"}}, BASE | {"options": {"x": 1}})
@example(BASE | {"content": "\ud83d\ude00"}, BASE | {"content": "\U0001f600"})
@example(BASE | {"content": "\ud800"}, BASE | {"content": "?"})
@example(BASE | {"content": '","'}, BASE | {"content": ""})
def test_different_requests_have_different_keys(one, other):
    """Nothing that differs, in value or type, shares a key."""
    assume(typed(one) != typed(other))
    assert cache_key(**one) != cache_key(**other)


@given(ARGUMENTS)
def test_the_order_of_options_does_not_matter(arguments):
    """A mapping is a set of pairs."""
    reordered = {name: dict(reversed(value.items())) for name, value in arguments.items() if isinstance(value, dict)}
    assert cache_key(**arguments) == cache_key(**(arguments | reordered))


def test_a_key_is_the_same_in_every_process_and_version():
    """The cache outlives the process; a change here has to be meant, by a new KEY_VERSION."""
    canonical = b'[1,"describe","c","b",{"name":"m"},{"prompt":null}]'
    assert cache_key(**BASE) == hashlib.sha256(canonical).hexdigest()


def test_tuples_and_lists_are_alike():
    """Labels come as either."""
    as_tuple, as_list = BASE | {"options": {"labels": ("a", "b")}}, BASE | {"options": {"labels": ["a", "b"]}}
    assert cache_key(**as_tuple) == cache_key(**as_list)


@pytest.mark.parametrize("options", [{"x": {1: "a"}}, {"x": [{None: 1}]}, {"x": {"a"}}, {"x": b"bytes"}])
def test_what_has_no_canonical_form_is_refused(options):
    """JSON would turn the key 1 into "1" without a word, and cannot write a set."""
    with pytest.raises(TypeError):
        cache_key(**(BASE | {"options": options}))


def test_numbers_are_finite():
    """NaN equals nothing, hence has no key."""
    with pytest.raises(ValueError, match="JSON compliant"):
        cache_key(**(BASE | {"options": {"x": float("nan")}}))


def test_an_answer_that_anybody_may_have_is_found_where_it_always_was():
    """An account is a further part, not an empty one."""
    assert cache_key(**BASE, account=()) == cache_key(**BASE)
    keys = {cache_key(**BASE, account=account) for account in ((), ("",), ("a", "b"), ("ab",), ("a", "b", "c"))}
    assert len(keys) == 5
