"""Telling a running sandbox over HTTP what to do."""

from __future__ import annotations

import http.client
import json

import openai
import pytest

from vision_backends.testing.sandbox import FAULTS


@pytest.fixture
def tell(server):
    """Return a function that sends a control request and returns status and JSON."""

    def send(method, action, body=None, headers=None):
        connection = http.client.HTTPConnection(server.root_url.removeprefix("http://"), timeout=5)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/_sandbox/{action}", data, headers or {})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    return send


def test_faults_are_played_over_http(tell, call):
    """By name and number, by object, by steps and by chaos."""
    assert tell("POST", "play", {"play": "quota_gone", "times": 1}) == (200, {"done": True})
    with pytest.raises(openai.RateLimitError):
        call.chat()
    call.chat()
    tell("POST", "play", {"play": {"name": "server_error", "models": ["gpt-sandbox"]}, "times": 1})
    with pytest.raises(openai.InternalServerError):
        call.chat()
    tell("POST", "play", {"play": {"steps": ["invalid_api_key"]}})
    with pytest.raises(openai.AuthenticationError):
        call.chat()
    tell("POST", "play", {"play": {"seed": 1, "rate": 1, "faults": ["overloaded"]}})
    with pytest.raises(openai.InternalServerError):
        call.chat()
    tell("POST", "heal")
    call.chat()


def test_limits_are_set_over_http(tell, call):
    """And lifted again."""
    tell("POST", "limits", {"quota_requests": 0})
    with pytest.raises(openai.RateLimitError):
        call.chat()
    tell("POST", "limits", {})
    call.chat()


def test_the_log_is_read_over_http(tell, call, image_part):
    """Requests, counts, and what was played; the control's own requests are not in it."""
    call.chat([image_part(size=(20, 10))])
    call.embed()
    requests = tell("GET", "requests")[1]["requests"]
    assert [request["path"] for request in requests] == ["/v1/chat/completions", "/v1/embeddings"]
    assert requests[0]["pictures"][0]["width"] == 20
    assert requests[0]["body"]["messages"][0]["content"][0]["image_url"]["url"].startswith("<data URL")
    assert tell("GET", "counts")[1] == {"/v1/chat/completions": 1, "/v1/embeddings": 1}
    assert tell("GET", "script")[1]["steps"] == [{"play": "healthy", "times": 2}]
    assert tell("GET", "faults")[1]["faults"] == list(FAULTS)
    tell("POST", "reset")
    assert tell("GET", "counts")[1] == {}


def test_a_stalled_reply_is_released_over_http(tell, server, call):
    """Without a stalled one it does nothing."""
    assert tell("POST", "release") == (200, {"done": True})
    assert call.chat()


@pytest.mark.parametrize(
    ("method", "action", "body", "status"),
    [
        ("POST", "play", {"play": "no_such_fault"}, 400),
        ("POST", "play", {}, 400),
        ("POST", "play", {"play": "slow", "times": 0}, 400),
        ("POST", "limits", {"speed": 3}, 400),
        ("POST", "limits", {"rpm": "many"}, 400),
        ("POST", "dance", None, 404),
        ("GET", "play", None, 404),
    ],
)
def test_a_control_request_without_meaning_is_refused(tell, method, action, body, status):
    """With a message, and nothing happens."""
    answered, reply = tell(method, action, body)
    assert answered == status
    assert reply["error"]["message"]


def test_the_control_is_not_for_browsers(tell):
    """A page from anywhere could otherwise read the log."""
    assert tell("GET", "requests", headers={"Origin": "https://example.com"})[0] == 403
