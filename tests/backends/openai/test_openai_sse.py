"""Event streams, however servers cut and dress them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.backends.openai.sse import EventReader, looks_like_events, read_events, read_object
from vision_backends.errors import InvalidReplyError

EVENTS = [{"n": 1, "text": "ä\n"}, {"n": 2}, {"n": 3}]


def stream(*events, end="\n\n", before="data: "):
    """Return a stream of events."""
    return "".join(before + json.dumps(event) + end for event in events).encode()


def read(chunks):
    """Return the events of a stream that comes in chunks."""
    reader = EventReader()
    return [*(event for chunk in chunks for event in reader.feed(chunk)), *reader.end()]


@given(st.lists(st.integers(1, 60), max_size=8), st.sampled_from(["\n\n", "\r\n\r\n"]))
def test_events_are_the_same_however_the_bytes_are_cut(cuts, end):
    """The network cuts where it likes, also inside of characters."""
    rest, chunks = stream(*EVENTS, end=end) + b"data: [DONE]\n\n", []
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    assert read([*chunks, rest]) == EVENTS


@pytest.mark.parametrize(
    "content",
    [
        stream(*EVENTS),
        stream(*EVENTS)[:-2],
        stream(*EVENTS, before="data:"),
        b": a comment\n\n" + stream(*EVENTS, before="event: x\nid: 7\ndata: ") + b"data: [DONE]",
        stream(*EVENTS) + b"data: [DONE]\n\n" + stream({"n": 4}),
        b'data: {"n": 1,\ndata: "text": "\\u00e4\\n"}\n\n' + stream(*EVENTS[1:]),
    ],
)
def test_done_the_last_blank_line_and_other_fields_are_optional(content):
    """Servers differ in all of them."""
    assert list(read_events(content)) == EVENTS


def test_a_server_that_does_not_stream_sends_one_object():
    """It is then the only event."""
    assert read([b'\n{"a":', b"\n 1}"]) == [{"a": 1}]


@pytest.mark.parametrize("content", [b"", b"<html>", b"null", b"[1]", b'{"a": ', b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_an_invalid_reply(content):
    """A page of a proxy, half a document, nothing at all."""
    with pytest.raises(InvalidReplyError):
        read_object(content)
    with pytest.raises(InvalidReplyError):
        list(read_events(b"data: " + content + b"\n\n" if content else b""))


def test_a_page_is_called_a_page():
    """The usual cause is a wrong base_url, and the remedy says so."""
    with pytest.raises(InvalidReplyError, match=r"HTML page.*base_url"):
        read_object(b"  <!doctype html>")


def test_an_event_stream_is_recognised_by_its_first_bytes():
    """Content types lie."""
    assert looks_like_events(b"\n\ndata: {}")
    assert looks_like_events(b"event: x")
    assert not looks_like_events(b'{"data": 1}')
