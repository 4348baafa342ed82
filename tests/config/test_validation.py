"""A table of the configuration, checked against the constructor that it configures."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field

from vision_backends import ConfigError
from vision_backends.clock import SYSTEM_CLOCK, Clock
from vision_backends.config.validation import HiddenTable, parse_table

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from decimal import Decimal

CANARY = "sk-canary-0123456789"


class Thing:
    """Has a keyword of every type that a backend's constructor has."""

    def __init__(
        self,
        *,
        timeout_s: float = 20.0,
        threads: int | None = None,
        api: Literal["auto", "chat"] = "auto",
        prices: Mapping[str, Mapping[str, float]] | None = None,
        labels: Sequence[str] = (),
        size: int | str = "small",
        loud: bool = False,
        anything=None,
        **others: object,
    ) -> None:
        raise AssertionError("a table is checked without making anything")


def refusal(make, table) -> ConfigError:
    """Return the error that checking a table ends with."""
    with pytest.raises(ConfigError) as caught:
        parse_table(make, table, section="[thing]")
    return caught.value


def test_a_table_sets_what_it_names():
    """The constructor's defaults stay where they are written."""
    assert parse_table(Thing, {}, section="[thing]") == {}
    assert parse_table(Thing, {"timeout_s": 5.0, "api": "chat"}, section="[thing]") == {"timeout_s": 5.0, "api": "chat"}


@pytest.mark.parametrize(
    ("key", "given", "parsed"),
    [
        ("timeout_s", "5", 5.0),
        ("timeout_s", 5, 5.0),
        ("threads", "2", 2),
        ("threads", None, None),
        ("api", "chat", "chat"),
        ("prices", {"tiny": {"input": "0.1"}}, {"tiny": {"input": 0.1}}),
        ("labels", ["a dog"], ["a dog"]),
        ("size", 3, 3),
        ("size", "large", "large"),
        ("loud", "true", True),
        ("anything", {"as": ["it", "is"]}, {"as": ["it", "is"]}),
    ],
)
def test_values_take_the_type_that_the_constructor_wants(key, given, parsed):
    """Variables are texts, TOML has no tuples: both fit."""
    assert parse_table(Thing, {key: given}, section="[thing]") == {key: parsed}


@pytest.mark.parametrize(
    ("key", "value", "place", "reason"),
    [
        ("timeout_s", "soon", "timeout_s", "valid number"),
        ("threads", 1.5, "threads", "valid integer"),
        ("api", "telepathy", "api", "'auto' or 'chat'"),
        ("prices", {"tiny": {"input": "cheap"}}, "prices.tiny.input", "valid number"),
        ("prices", 5, "prices", "valid dictionary"),
        ("labels", "a dog", "labels", "not allowed as a Sequence"),
        ("labels", ["a dog", 5], "labels.1", "valid string"),
        ("size", [], "size", "valid integer; Input should be a valid string"),
    ],
)
def test_a_bad_value_names_its_key_in_its_section(key, value, place, reason):
    """And says what would be right."""
    message = refusal(Thing, {key: value}).message
    assert message.startswith(f"[thing] has a bad value for {place!r}: ")
    assert reason in message


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("timeout", "Did you mean 'timeout_s'?"),
        ("thread", "Did you mean 'threads'?"),
        ("zzz", "Valid keys: anything, api, labels, loud, prices, size, threads, timeout_s."),
        ("self", "Valid keys: anything,"),
        ("others", "Did you mean 'threads'?"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(key, remedy):
    """Only keywords that the constructor names count."""
    error = refusal(Thing, {key: 1})
    assert error.message == f"[thing] has an unknown key {key!r}."
    assert error.remedy.startswith(remedy)


def test_a_class_without_a_constructor_takes_no_key():
    """There is nothing to configure, and the remedy says so."""

    class Plain:
        pass

    assert parse_table(Plain, {}, section="[plain]") == {}
    assert refusal(Plain, {"key": 1}).remedy == "Valid keys: none."


def test_a_required_key_is_asked_for():
    """A constructor may insist on a value."""

    def make(*, path: str) -> None:
        raise AssertionError

    assert refusal(make, {}).message == "[thing] is missing the key 'path'."
    assert parse_table(make, {"path": "x"}, section="[thing]") == {"path": "x"}


def test_a_dataclass_can_be_configured():
    """Its constructor is written by Python."""

    @dataclass
    class Point:
        x: float
        y: float = 0.0

    assert parse_table(Point, {"x": "1"}, section="[point]") == {"x": 1.0}


def test_names_may_be_anything_that_python_allows():
    """Even what pydantic's own classes are made of."""

    def make(*, copy: int = 0, json: str = "", model_config: str = "", schema: str = "", _hidden: int = 0) -> None:
        raise AssertionError

    table = {"copy": 1, "json": "a", "model_config": "b", "schema": "c", "_hidden": 2}
    assert parse_table(make, table, section="[thing]") == table


def test_constraints_in_annotations_count():
    """A constructor can leave its checks to the parser."""

    def make(*, threads: Annotated[int, Field(gt=0)] = 1) -> None:
        raise AssertionError

    assert "greater than 0" in refusal(make, {"threads": 0}).message


def test_names_for_type_checkers_only_do_not_matter_until_they_are_needed():
    """The annotation of a key that the table does not set is not looked at."""

    def make(*, cost: "Decimal | None" = None, threads: "int" = 1, names: "AbstractSet[str]" = frozenset()) -> None:
        raise AssertionError

    assert parse_table(make, {"threads": "2"}, section="[thing]") == {"threads": 2}
    error = refusal(make, {"cost": "2"})
    assert "'Decimal' is not defined" in error.message
    assert "at run time" in error.remedy


def test_what_only_a_program_can_pass_is_refused():
    """No file can hold a clock, or an object of any other class."""

    def make(*, clock: Clock = SYSTEM_CLOCK, event: Event | None = None) -> None:
        raise AssertionError

    assert refusal(make, {"clock": "x"}).message == "[thing] has an unknown key 'clock'."
    assert "instance of Event" in refusal(make, {"event": "x"}).message
    assert parse_table(make, {}, section="[thing]") == {}


def test_abstract_collections_are_known_even_where_they_are_imported_for_type_checkers_only():
    """Linters move their imports there."""
    namespace: dict[str, Any] = {}
    exec("def make(*, names: 'Collection[str]' = ()) -> None: ...", namespace)  # noqa: S102 — a module without imports
    assert parse_table(namespace["make"], {"names": ["a"]}, section="[thing]") == {"names": ["a"]}


@pytest.mark.parametrize(
    "table",
    [
        {"key": CANARY, "modle": "x"},
        {"key": CANARY, "threads": CANARY},
        {"key": CANARY, "cost": 5},
        {"threads": CANARY},
    ],
)
def test_no_value_is_in_an_error(table):
    """Neither in its text nor in the local variables of its traceback, if the table is a hidden one."""

    def make(*, key: str = "", model: str = "", threads: int = 1, cost: "Decimal | None" = None) -> None:
        raise AssertionError

    error = refusal(make, HiddenTable(table))
    table.clear()
    assert CANARY not in f"{error} {error!r} {vars(error)}"
    assert CANARY not in "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_what_is_parsed_is_hidden_too():
    """Constructors receive it, and their tracebacks show local variables."""
    parsed = parse_table(Thing, {"anything": CANARY}, section="[thing]")
    assert CANARY not in repr(parsed)
    assert repr(parsed) == "<table of anything>"
    assert repr(HiddenTable()) == "<table of nothing>"
