"""Broken connections, replies that are no answer and streams that go wrong, as the real SDK meets them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import replace

import openai
import pytest

from vision_backends.testing.sandbox import FAULTS, Fault, SandboxServer


def test_a_redirect_takes_the_image_to_another_port(server, call, image_part):
    """A client that follows sends the image elsewhere, though not the key; one that does not gets the 307."""
    body = {"model": "m", "messages": [{"role": "user", "content": [image_part()]}]}
    with SandboxServer() as elsewhere:
        location = {"location": f"{elsewhere.url}/chat/completions"}
        server.play(replace(FAULTS["redirect"], headers=location))
        with pytest.raises(openai.AuthenticationError):
            call.client.post("/chat/completions", body=body, cast_to=object)
        assert len(elsewhere.requests[0].pictures) == 1
        with pytest.raises(openai.APIStatusError) as caught:
            call.client.post("/chat/completions", body=body, cast_to=object, options={"follow_redirects": False})
        assert caught.value.status_code == 307
        assert len(elsewhere.requests) == 1


@pytest.mark.parametrize("name", ["connection_reset", "connection_closed", "half_body", "reset_midway"])
@pytest.mark.parametrize("endpoint", ["chat", "stream", "responses", "embed"])
def test_a_broken_connection_is_a_connection_error(server, call, name, endpoint):
    """Before or amid the reply, for documents and streams; afterwards the server answers again."""
    server.play(name, times=1)
    with pytest.raises(openai.APIConnectionError):
        getattr(call, endpoint)()
    assert getattr(call, endpoint)()


def test_a_stream_dropped_midway_has_given_its_first_words(server, call):
    """The text so far arrives before the error."""
    server.play("half_body")
    chunks = iter(call.chat(stream=True))
    assert next(chunks).choices[0].delta.role == "assistant"
    with pytest.raises(openai.APIConnectionError):
        list(chunks)


@pytest.mark.parametrize("name", ["stall", "stall_midway", "slow", "slow_drip"])
@pytest.mark.parametrize("endpoint", ["chat", "stream"])
def test_what_is_slower_than_the_timeout_times_out(server, name, endpoint, call):
    """The client gives up, and the server's thread notices."""
    server.play(name)
    impatient = replace(call, client=call.client.with_options(timeout=0.02))
    with pytest.raises(openai.APITimeoutError):
        getattr(impatient, endpoint)()


def test_slow_answers_arrive_whole(server, call):
    """A delay and a drip cost time and nothing else."""
    whole = call.chat().choices[0].message.content
    server.play(Fault(delay_s=0.01, drip_s=0.001))
    started = time.monotonic()
    assert call.chat().choices[0].message.content == whole
    assert time.monotonic() - started >= 0.01 + 15 * 0.001
    assert len(call.stream()) > 5


@pytest.mark.parametrize("name", ["stall", "stall_midway"])
def test_a_stalled_answer_comes_when_it_is_released(server, call, name):
    """A release lets a stalled reply through in full, over a connection that stays good."""
    server.play(name)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(call.chat()))
    asking.start()
    while not server.requests:
        time.sleep(0.001)
    assert not answers
    server.release()
    asking.join()
    assert answers[0].choices[0].finish_reason == "stop"


def test_a_stall_is_bounded(server, call):
    """After its time the connection is closed."""
    server.play(replace(FAULTS["stall"], stall_s=0.01))
    with pytest.raises(openai.APIConnectionError):
        call.chat()


def test_a_connection_can_be_closed_after_a_whole_reply(server):
    """Although the reply promised to keep it: a client that reuses it may run into the close."""
    server.play("closed_after_reply")
    with socket.create_connection(("127.0.0.1", int(server.root_url.rpartition(":")[2])), timeout=5) as raw:
        raw.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n")
        reply = raw.makefile("rb").read()
    assert b"connection: close" not in reply.lower()
    assert len(json.loads(reply.partition(b"\r\n\r\n")[2])["data"]) > 1


def test_html_200_comes_back_as_text(server, call):
    """The SDK hands over the page as it is, without an exception."""
    server.play("html_200")
    assert isinstance(call.chat(), str)
    assert "Sign in" in call.responses()


@pytest.mark.parametrize("name", ["invalid_json", "empty_200"])
def test_broken_json_is_a_json_error(server, call, name):
    """The SDK lets the decoder's error through."""
    server.play(name)
    with pytest.raises(json.JSONDecodeError):
        call.chat()


def test_null_and_error_with_status_200_look_like_answers(server, call):
    """Neither raises: a client has to look."""
    server.play("null_200")
    assert call.chat() is None
    server.play("error_200")
    assert call.chat().choices is None


def test_a_stream_without_done_ends_all_the_same(server, call):
    """The end of the body is enough for the SDK."""
    whole = call.stream()
    server.play("no_done")
    assert [c.choices[0].delta.content for c in call.stream()] == [c.choices[0].delta.content for c in whole]


def test_a_stream_can_end_without_a_finish_reason(server, call):
    """No exception: only the missing reason shows that it was cut."""
    server.play("no_finish")
    assert all(chunk.choices[0].finish_reason is None for chunk in call.stream())
    assert "response.completed" not in [event.type for event in call.responses(stream=True)]


@pytest.mark.parametrize(("name", "code"), [("error_event", "server_error"), ("quota_event", "insufficient_quota")])
def test_an_error_inside_a_stream(server, call, name, code):
    """Chat raises a bare APIError; the Responses API yields an error event and stops."""
    server.play(name)
    with pytest.raises(openai.APIError) as caught:
        call.stream()
    assert type(caught.value) is openai.APIError
    assert caught.value.code == code
    last = list(call.responses(stream=True))[-1]
    assert (last.type, last.code) == ("error", code)


def test_usage_can_come_on_a_chunk_that_is_not_the_last(server, call):
    """With the finish reason instead of after it."""
    server.play("early_usage")
    chunks = call.stream(stream_options={"include_usage": True})
    assert all(chunk.choices for chunk in chunks)
    assert [chunk.usage is not None for chunk in chunks][-1]


@pytest.mark.parametrize("name", ["no_done", "no_finish", "error_event", "early_usage"])
def test_a_fault_of_streams_leaves_documents_alone(server, call, name):
    """It is played, and there is nothing to see."""
    whole = call.chat().choices
    server.play(name)
    assert call.chat().choices == whole
    if name == "early_usage":
        assert call.stream()[-1].usage is None


def test_a_fault_of_documents_leaves_streams_alone(server, call):
    """A list of parts has no place in a chunk."""
    server.play("list_content")
    assert isinstance(call.stream()[1].choices[0].delta.content, str)


def test_an_event_stream_can_come_where_json_was_asked_for(server, call):
    """The SDK hands over the raw text."""
    server.play("streamed")
    assert call.chat().startswith("data: {")
    assert call.responses().startswith("event: response.created")


@pytest.mark.parametrize("name", FAULTS)
def test_after_any_fault_the_sandbox_is_healthy_again(server, call, name):
    """Whatever is played, wherever: the client gets an answer or an exception, the server goes on."""
    fault = FAULTS[name]
    quick = replace(fault, delay_s=min(fault.delay_s, 0.01), drip_s=min(fault.drip_s, 0.001), stall_s=0.01)
    for ask in (call.chat, call.stream, call.responses, call.embed):
        server.play(quick, times=1)
        with contextlib.suppress(openai.OpenAIError, ValueError, AttributeError):
            ask()
        server.heal()
        with contextlib.suppress(openai.APIConnectionError):  # a connection that was closed after the reply
            call.client.models.list()
        assert ask()
